//! Opening repositories as the program does, without this machine's logins.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use forebay::credentials::{AuthMethod, RegistryCredentials, token_source};
use forebay::http::{HttpClient, HttpOptions, RetryPolicy};
use forebay::registry::{OpenOptions, Registry, open};

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
    let http = http();
    let google = token_source(&AuthMethod::Anonymous, &http).unwrap();
    let credentials = Arc::new(RegistryCredentials::new(docker_config, google, false));
    let repository = name.parse().unwrap();
    open(&repository, &http, &credentials, options).unwrap()
}
