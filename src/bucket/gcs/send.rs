//! One request with its repetitions: the same rule for every call of the API.
//!
//! Reads are repeated freely. A write is repeated too, because every write
//! carries a precondition; whoever sends it must then expect to meet its own
//! earlier attempt (see [`Answer::repeated`]).

use bytes::{Bytes, BytesMut};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap};
use http::{Method, StatusCode};
use jiff::Timestamp;
use url::Url;

use super::super::BucketError;
use super::GcsBucket;
use super::wire::{self, ErrorBody};
use crate::http::{is_transient_error, is_transient_status, retry_after, tidy};

/// A request that can be sent as often as needed.
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) url: Url,
    /// Content type and bytes.
    pub(super) body: Option<(String, Bytes)>,
    /// The most bytes of an answer that we are ready to hold.
    pub(super) limit: usize,
    /// The permission that the call needs, in Google's words.
    pub(super) permission: &'static str,
    /// For messages: `reading dags/a.py`.
    pub(super) what: String,
}

/// A final answer: neither a passing failure nor a stale token.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// Whether an earlier attempt ended without a clear answer and may have been applied.
    pub(super) repeated: bool,
}

enum AttemptError {
    Transport(reqwest::Error),
    TooLarge,
}

impl GcsBucket {
    /// Sends until there is a final answer or the attempts are used up.
    pub(super) async fn send(&self, call: &Call) -> Result<Answer, BucketError> {
        let policy = *self.http.retry();
        let mut failures = 0;
        let mut renewed = false;
        let mut repeated = false;
        loop {
            let (error, wish) = match self.attempt(call).await? {
                Ok(answer) if answer.status == StatusCode::UNAUTHORIZED && !renewed => {
                    renewed = true;
                    if let Some(tokens) = &self.tokens {
                        tokens.invalidate().await;
                        continue;
                    }
                    return Ok(answer);
                }
                Ok(answer) if is_transient_status(answer.status) => {
                    let wish = retry_after(&answer.headers);
                    (self.unexpected(call, &answer), wish)
                }
                Ok(answer) => return Ok(Answer { repeated, ..answer }),
                Err(AttemptError::Transport(error)) => {
                    let transient = is_transient_error(&error);
                    let error = BucketError::Unreachable {
                        bucket: self.to_string(),
                        source: error.without_url().into(),
                    };
                    if !transient {
                        return Err(error);
                    }
                    (error, None)
                }
                Err(AttemptError::TooLarge) => {
                    return Err(self.malformed(call, "an answer larger than expected"));
                }
            };
            repeated = true;
            failures += 1;
            if failures >= policy.attempts {
                return Err(error);
            }
            tokio::time::sleep(policy.delay(failures, wish)).await;
        }
    }

    async fn attempt(&self, call: &Call) -> Result<Result<Answer, AttemptError>, BucketError> {
        let mut request = self.http.request(call.method.clone(), call.url.clone());
        if let Some(tokens) = &self.tokens
            && let Some(token) = tokens.token().await?
        {
            request = request.header(AUTHORIZATION, format!("Bearer {}", token.reveal()));
        }
        if let Some((content_type, bytes)) = &call.body {
            request = request
                .header(CONTENT_TYPE, content_type)
                .body(bytes.clone());
        }
        Ok(receive(request, call.limit).await)
    }

    /// The error for an answer that no caller has a use for.
    pub(super) fn refuse(&self, call: &Call, answer: &Answer) -> BucketError {
        match answer.status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => BucketError::Denied {
                bucket: self.to_string(),
                permission: denied_permission(&answer.body).unwrap_or(call.permission),
                identity: self
                    .tokens
                    .as_ref()
                    .map_or_else(|| "nobody (no credentials)".to_owned(), |t| t.describe()),
            },
            StatusCode::NOT_FOUND => BucketError::NoBucket {
                bucket: self.to_string(),
            },
            _ => self.unexpected(call, answer),
        }
    }

    fn unexpected(&self, call: &Call, answer: &Answer) -> BucketError {
        BucketError::Unexpected {
            bucket: self.to_string(),
            status: answer.status.as_u16(),
            request: call.what.clone(),
            detail: message(&answer.body),
        }
    }

    /// The error for a good status with a body or header that the API does not document.
    pub(super) fn malformed(&self, call: &Call, detail: &str) -> BucketError {
        BucketError::Unexpected {
            bucket: self.to_string(),
            status: 200,
            request: call.what.clone(),
            detail: Some(detail.to_owned()),
        }
    }

    /// The server's clock when it answered.
    pub(super) fn time_of(&self, call: &Call, answer: &Answer) -> Result<Timestamp, BucketError> {
        wire::server_time(&answer.headers)
            .ok_or_else(|| self.malformed(call, "an answer without a Date header"))
    }
}

async fn receive(request: reqwest::RequestBuilder, limit: usize) -> Result<Answer, AttemptError> {
    let mut response = request.send().await.map_err(AttemptError::Transport)?;
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(AttemptError::Transport)? {
        if body.len() + chunk.len() > limit {
            return Err(AttemptError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Answer {
        status: response.status(),
        headers: std::mem::take(response.headers_mut()),
        body: body.freeze(),
        repeated: false,
    })
}

/// The server's own words, cut short and cleaned, unless they are a page for browsers.
fn message(body: &[u8]) -> Option<String> {
    const LONGEST: usize = 300;
    let text = match serde_json::from_slice::<ErrorBody>(body) {
        Ok(body) => body.error.message,
        Err(_) => std::str::from_utf8(body).ok()?.to_owned(),
    };
    let text = tidy(&text, LONGEST);
    (!text.is_empty() && !text.starts_with('<')).then_some(text)
}

/// The permission that a 403 names: replacing an object needs `delete` beside `create`.
fn denied_permission(body: &[u8]) -> Option<&'static str> {
    let text = message(body)?;
    [
        "storage.objects.delete",
        "storage.objects.create",
        "storage.objects.list",
        "storage.objects.get",
    ]
    .into_iter()
    .find(|permission| text.contains(permission))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn html_and_terminal_codes_are_never_shown() {
        assert_eq!(message(b" <html>Bad Gateway</html>"), None);
        assert_eq!(
            message(b"gone\x1b[31m\nfishing").as_deref(),
            Some("gone [31m fishing")
        );
        let body = br#"{"error":{"code":400,"message":"no\u001b]0;x\u0007 such"}}"#;
        assert_eq!(message(body).as_deref(), Some("no ]0;x such"));
    }
}
