//! The account that gcloud is logged in with.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::Deserialize;
use tokio::process::Command;

use super::cached::{Mint, Minted};
use super::{CredentialError, Secret};

/// gcloud needs most of a second; a minute means that it waits for something.
const TIMEOUT: Duration = Duration::from_secs(60);

/// `gcloud config config-helper`, which tells the token's end too.
pub(super) struct Gcloud {
    executable: PathBuf,
}

#[derive(Deserialize)]
struct Answer {
    credential: Credential,
}

#[derive(Deserialize)]
struct Credential {
    access_token: String,
    token_expiry: Option<Timestamp>,
}

impl Gcloud {
    pub(super) fn new(executable: PathBuf) -> Self {
        Self { executable }
    }

    fn refused(&self, problem: String) -> CredentialError {
        CredentialError::Refused {
            source_name: self.describe(),
            problem,
        }
    }
}

#[async_trait]
impl Mint for Gcloud {
    fn describe(&self) -> String {
        format!("gcloud's account ({})", self.executable.display())
    }

    async fn mint(&self) -> Result<Minted, CredentialError> {
        let running = Command::new(&self.executable)
            .args([
                "config",
                "config-helper",
                "--format=json",
                "--min-expiry=5m",
            ])
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(TIMEOUT, running)
            .await
            .map_err(|_| self.refused("it did not answer within a minute".to_owned()))?
            .map_err(|error| self.refused(format!("it cannot be started: {error}")))?;
        // What it prints may hold tokens, so none of it is shown.
        if !output.status.success() {
            return Err(self.refused(format!(
                "it ended with {}; run `gcloud auth login`",
                output.status
            )));
        }
        let Answer { credential } = serde_json::from_slice(&output.stdout)
            .map_err(|_| self.refused("its answer is not the expected JSON".to_owned()))?;
        let life = credential
            .token_expiry
            .map(|end| end.duration_since(Timestamp::now()))
            .map(|left| Duration::try_from(left).unwrap_or_default());
        Ok(Minted {
            token: Secret::new(credential.access_token),
            life,
        })
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;
    use crate::credentials::programs;

    async fn mint(text: &str) -> Result<Minted, CredentialError> {
        let (_directory, executable) = programs::script("gcloud", text);
        Gcloud::new(executable).mint().await
    }

    #[tokio::test]
    async fn token_and_end_are_read() {
        let answer = r#"{"configuration": {}, "credential": {"access_token": "ya29.x", "id_token": "i", "token_expiry": "2999-01-01T00:00:00Z"}}"#;
        let minted = mint(&format!("echo '{answer}'")).await.unwrap();
        assert_eq!(minted.token.reveal(), "ya29.x");
        assert!(minted.life.unwrap() > Duration::from_secs(3_600));
    }

    #[tokio::test]
    async fn what_gcloud_prints_is_not_shown() {
        for script in ["echo ya29.leak; exit 1", "echo ya29.leak", "echo '{}'"] {
            let error = mint(script).await.unwrap_err();
            let text = format!("{error} {error:?}");
            assert!(text.contains("gcloud's account"), "{text}");
            assert!(!text.contains("leak"), "{text}");
        }
    }
}
