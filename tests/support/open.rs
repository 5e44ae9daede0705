//! Opening repositories as the program does, without this machine's logins.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use forebay::credentials::{AuthMethod, RegistryCredentials, token_source};
use forebay::http::{HttpClient, HttpOptions, RetryPolicy};
use forebay::registry::{OpenOptions, Registry, RegistryError, open};

/// A client that repeats at once.
pub(crate) fn http() -> HttpClient {
    HttpClient::new(&HttpOptions {
        retry: RetryPolicy {
            attempts: 4,
            base_delay: Duration::ZERO,
            max_delay: Duration::from_millis(20),
        },
        ..HttpOptions::default()
    })
    .unwrap()
}

/// Opens a repository with the logins of these Docker configuration files.
pub(crate) fn repository(name: &str, docker_config: Vec<PathBuf>) -> Arc<dyn Registry> {
    repository_with(name, docker_config, &OpenOptions::default())
}

/// Opens a repository with options.
pub(crate) fn repository_with(
    name: &str,
    docker_config: Vec<PathBuf>,
    options: &OpenOptions,
) -> Arc<dyn Registry> {
    try_repository(name, &http(), docker_config, options).unwrap()
}

/// The same with a client of one's own.
pub(crate) fn try_repository(
    name: &str,
    http: &HttpClient,
    docker_config: Vec<PathBuf>,
    options: &OpenOptions,
) -> Result<Arc<dyn Registry>, RegistryError> {
    let google = token_source(&AuthMethod::Anonymous, http).unwrap();
    let credentials = Arc::new(RegistryCredentials::new(docker_config, google, false));
    open(&name.parse().unwrap(), http, &credentials, options)
}
