//! Sending what can be sent again, and reading what must not be endless.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::{HttpClient, TlsProblem, is_transient_error, is_transient_status, retry_after};

/// Why a request got no answer. It never shows the address, whose query may hold a secret.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The connection could not be made, or broke.
    #[error("{}", innermost(.0))]
    Transport(reqwest::Error),
    /// No secure connection can be made.
    #[error(transparent)]
    Tls(TlsProblem),
    /// Nothing came for [`HttpOptions::stall_timeout`](super::HttpOptions::stall_timeout).
    #[error("no answer within {} seconds", .0.as_secs_f32())]
    Stalled(Duration),
}

impl From<reqwest::Error> for SendError {
    fn from(error: reqwest::Error) -> Self {
        match TlsProblem::among(&error) {
            Some(problem) => Self::Tls(problem),
            None => Self::Transport(error.without_url()),
        }
    }
}

impl SendError {
    /// Whether the same request may succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Transport(error) => is_transient_error(error),
            Self::Tls(_) => false,
            Self::Stalled(_) => true,
        }
    }
}

/// The last cause: those before it say only that a request failed.
fn innermost(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => innermost(source),
        None => error.to_string(),
    }
}

impl HttpClient {
    /// Sends a request, repeatedly while a repetition may help: on broken
    /// connections and transient statuses, with the policy's pauses. A status
    /// that stays transient is returned as the answer that it is.
    ///
    /// A request whose body is a stream is sent once.
    ///
    /// # Errors
    /// See [`SendError`].
    pub async fn send(
        &self,
        request: reqwest::RequestBuilder,
    ) -> Result<reqwest::Response, SendError> {
        let limit = self.stall_timeout();
        let mut request = Some(request);
        let mut failures = 0;
        loop {
            let next = request
                .as_ref()
                .and_then(reqwest::RequestBuilder::try_clone);
            let Some(attempt) = std::mem::replace(&mut request, next) else {
                return Err(SendError::Stalled(limit));
            };
            failures += 1;
            let last = failures >= self.retry().attempts || request.is_none();
            let wish = match tokio::time::timeout(limit, attempt.send()).await {
                Ok(Ok(response)) if last || !is_transient_status(response.status()) => {
                    return Ok(response);
                }
                Ok(Ok(response)) => retry_after(response.headers()),
                Ok(Err(error)) if last || !is_transient_error(&error) => return Err(error.into()),
                Err(_) if last => return Err(SendError::Stalled(limit)),
                Ok(Err(_)) | Err(_) => None,
            };
            self.pause(failures, wish).await;
        }
    }

    /// Waits before the attempt that follows `failures` failed ones.
    pub async fn pause(&self, failures: u32, server_wish: Option<Duration>) {
        let delay = self.retry().delay(failures, server_wish);
        log::debug!(
            "attempt {failures} failed; again in {} ms",
            delay.as_millis()
        );
        tokio::time::sleep(delay).await;
    }
}

/// A body of at most `limit` bytes; `None` if it is longer.
///
/// # Errors
/// See [`SendError`].
pub async fn read_body(
    mut response: reqwest::Response,
    limit: usize,
) -> Result<Option<Bytes>, SendError> {
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > limit {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body.freeze()))
}
