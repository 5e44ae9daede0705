//! Docker's credential helpers: `docker-credential-NAME get`, the server on
//! its standard input, the login as JSON on its standard output.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::{LoginKind, Secret, programs};

/// Some helpers unlock a keychain, which a person has to allow.
const TIMEOUT: Duration = Duration::from_secs(120);

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "Username")]
    username: String,
    #[serde(rename = "Secret")]
    secret: String,
}

/// Asks one helper; `None` if it knows no login for the server.
///
/// # Errors
/// Why the helper failed, without what it printed.
pub(super) async fn ask(
    directories: &[PathBuf],
    helper: &str,
    server: &str,
) -> Result<Option<LoginKind>, String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if !helper.bytes().all(is_plain) {
        return Err(format!("{helper:?} is no name of a credential helper"));
    }
    let program = format!("docker-credential-{helper}");
    let file_name = format!("{program}{}", std::env::consts::EXE_SUFFIX);
    let executable = programs::find(directories, file_name)
        .ok_or_else(|| format!("{program} is not on the PATH"))?;
    log::debug!("running {program}");
    let running = async {
        let mut child = Command::new(&executable)
            .arg("get")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        if let Some(mut input) = child.stdin.take() {
            // A helper that does not read has its own idea of what to answer.
            let _ = input.write_all(server.as_bytes()).await;
        }
        child.wait_with_output().await
    };
    let output = tokio::time::timeout(TIMEOUT, running)
        .await
        .map_err(|_| format!("{program} did not answer"))?
        .map_err(|error| format!("{program} cannot be started: {error}"))?;
    if !output.status.success() {
        // The protocol's only way to say so.
        let text = String::from_utf8_lossy(&output.stdout);
        return if text.contains("credentials not found") {
            Ok(None)
        } else {
            Err(format!("{program} ended with {}", output.status))
        };
    }
    let answer: Answer = serde_json::from_slice(&output.stdout)
        .map_err(|_| format!("{program} gave no valid answer"))?;
    if answer.secret.is_empty() {
        return Ok(None);
    }
    Ok(Some(LoginKind::of_pair(answer.username, answer.secret)))
}

impl LoginKind {
    /// A user name and its secret; Docker's user name `<token>` marks an identity token.
    pub(super) fn of_pair(user: String, secret: String) -> Self {
        let secret = Secret::new(secret);
        if user == "<token>" {
            Self::IdentityToken(secret)
        } else {
            Self::Password {
                user,
                password: secret,
            }
        }
    }
}
