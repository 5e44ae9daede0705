//! Who we are to Google's services and to registries. A secret lives only in
//! memory, in a type that cannot be printed.

mod secret;

pub use secret::Secret;

use async_trait::async_trait;

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

    /// Forgets the cached token after a 401, so that the next call mints one.
    async fn invalidate(&self);
}
