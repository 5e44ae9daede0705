//! Who we are to Google's services and to registries. A secret lives only in
//! memory, in a type that cannot be printed.

mod access_token_file;
mod application_default;
mod cached;
mod docker_config;
mod docker_helper;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod gcloud;
mod library;
mod metadata;
mod netrc;
mod programs;
mod registry;
mod secret;
mod service_account;
#[cfg(test)]
mod test_server;
mod vault;

pub use netrc::netrc_login;
pub(crate) use registry::is_google;
pub use registry::{Login, LoginKind, RegistryCredentials};
pub use secret::Secret;
pub use vault::{SecretText, VaultLogin, VaultOptions, VaultSettings};

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::http::HttpClient;

/// Where the tokens for Google's services come from.
#[derive(Debug, Clone)]
pub enum AuthMethod {
    /// This machine's login: Application Default Credentials, the metadata
    /// server, gcloud, in this order. BigFlow's `local_account`.
    LocalAccount,
    /// Google's secrets engine of a Vault server. BigFlow's `vault`.
    Vault(Box<VaultSettings>),
    /// A file with an access token, read again for every use.
    AccessTokenFile(PathBuf),
    /// No token at all: emulators.
    Anonymous,
}

/// Makes the source of tokens for Google's services. Makes no request.
///
/// # Errors
/// [`CredentialError::Misconfigured`].
pub fn token_source(
    method: &AuthMethod,
    http: &HttpClient,
) -> Result<Arc<dyn TokenSource>, CredentialError> {
    Ok(match method {
        AuthMethod::LocalAccount => Arc::new(application_default::LocalAccount::from_process(
            http.clone(),
        )),
        AuthMethod::Vault(settings) => Arc::new(cached::Cached::new(vault::Vault::new(
            (**settings).clone(),
            http,
        )?)),
        AuthMethod::AccessTokenFile(path) => {
            Arc::new(access_token_file::AccessTokenFile::new(path.clone()))
        }
        AuthMethod::Anonymous => Arc::new(Anonymous),
    })
}

/// Goes without a token.
struct Anonymous;

#[async_trait]
impl TokenSource for Anonymous {
    fn describe(&self) -> String {
        "nobody (anonymous access)".to_owned()
    }

    async fn token(&self) -> Result<Option<Secret>, CredentialError> {
        Ok(None)
    }

    async fn invalidate(&self) {}
}

/// Why no token could be had. No variant may hold a secret or a response body.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// A source that was asked for is not configured, or configured wrongly.
    #[error("{source_name}: {problem}")]
    Misconfigured {
        /// Which source of credentials, in words.
        source_name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The source was asked and refused or failed.
    #[error("{source_name} gave no token: {problem}")]
    Refused {
        /// Which source of credentials, in words.
        source_name: String,
        /// What it answered, without bodies.
        problem: String,
    },
}

/// Gives access tokens of one identity, for bucket and registry alike.
#[async_trait]
pub trait TokenSource: Send + Sync {
    /// Which identity and from where, for error messages: `Vault at https://…`.
    fn describe(&self) -> String;

    /// A token good for at least some minutes; `None` means: go without (anonymous).
    ///
    /// # Errors
    /// See [`CredentialError`].
    async fn token(&self) -> Result<Option<Secret>, CredentialError>;

    /// How long the token that was last given is still good, where that is known.
    fn remaining(&self) -> Option<Duration> {
        None
    }

    /// Forgets the cached token after a 401, so that the next call mints one.
    async fn invalidate(&self);
}
