//! A token that somebody else keeps fresh in a file.

use std::path::PathBuf;

use async_trait::async_trait;

use super::{CredentialError, Secret, TokenSource};

/// Read for every use, because whoever writes the file knows when the token ends.
pub(super) struct AccessTokenFile {
    path: PathBuf,
}

impl AccessTokenFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }
}

#[async_trait]
impl TokenSource for AccessTokenFile {
    fn describe(&self) -> String {
        format!("the access token file {}", self.path.display())
    }

    async fn token(&self) -> Result<Option<Secret>, CredentialError> {
        let misconfigured = |problem: String| CredentialError::Misconfigured {
            source_name: self.describe(),
            problem,
        };
        let text = tokio::fs::read_to_string(&self.path)
            .await
            .map_err(|error| misconfigured(format!("it cannot be read: {error}")))?;
        let token = text.trim();
        if token.is_empty() || token.contains(char::is_whitespace) {
            return Err(misconfigured(
                "it must hold one access token and nothing else".to_owned(),
            ));
        }
        Ok(Some(Secret::new(token)))
    }

    async fn invalidate(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_file_is_read_again_for_every_use() {
        let directory = tempfile::tempdir().unwrap();
        let source = AccessTokenFile::new(directory.path().join("token"));
        assert!(source.token().await.is_err());
        for token in ["first", "second"] {
            std::fs::write(&source.path, format!("{token}\n")).unwrap();
            assert_eq!(source.token().await.unwrap().unwrap().reveal(), token);
        }
        std::fs::write(&source.path, "two words").unwrap();
        let error = source.token().await.unwrap_err().to_string();
        assert!(!error.contains("words"), "{error}");
    }
}
