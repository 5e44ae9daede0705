//! One request with its repetitions: the same rule for every call to every service.
//!
//! Reads are repeated freely. A write is repeated too, because every write
//! carries a precondition; whoever sends it must then expect to meet its own
//! earlier attempt (see [`Answer::repeated`]).

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::header::{DATE, HeaderMap};
use http::{Method, StatusCode};
use jiff::Timestamp;
use url::Url;

use super::{BucketError, BucketLocation, ObjectKey};
use crate::http::{HttpClient, is_transient_error, is_transient_status, retry_after, tidy};

/// A request that can be sent as often as needed.
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) url: Url,
    /// All but those that say who we are.
    pub(super) headers: HeaderMap,
    pub(super) body: Option<Bytes>,
    /// The most bytes of an answer that we are ready to hold.
    pub(super) limit: usize,
    /// The permission that the call needs, in the service's words.
    pub(super) permission: &'static str,
    /// For messages: `reading dags/a.py`.
    pub(super) what: String,
}

impl Call {
    /// Without headers and body, for an answer of no more than a page of a listing.
    pub(super) fn new(method: Method, url: Url, permission: &'static str, what: String) -> Self {
        Self {
            method,
            url,
            headers: HeaderMap::new(),
            body: None,
            limit: PAGE_LIMIT,
            permission,
            what,
        }
    }
}

/// The names of what a user must be allowed to do, in the service's words.
pub(super) struct Permissions {
    pub(super) list: &'static str,
    pub(super) read: &'static str,
    pub(super) write: &'static str,
    pub(super) delete: &'static str,
}

/// The most bytes of one page of a listing: 5,000 objects with keys of 1 KiB and all else.
const PAGE_LIMIT: usize = 32 << 20;
/// The most bytes of an object that we read: DAG files and records are far smaller.
pub(super) const OBJECT_LIMIT: usize = 64 << 20;

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

/// A service that keeps buckets, as one of its users sees it.
#[async_trait]
pub(super) trait Service: Send + Sync {
    /// The bucket that all calls are about.
    fn location(&self) -> &BucketLocation;

    fn http(&self) -> &HttpClient;

    /// The call with what shows who we are, as of now.
    async fn authorize(&self, call: &Call) -> Result<reqwest::RequestBuilder, BucketError>;

    /// Forgets a token that was refused. `false` if there is no other to be had.
    async fn renew(&self) -> bool {
        false
    }

    /// Who we are, without secrets.
    fn identity(&self) -> String;

    /// The sentence for people in the body of an answer that is no success.
    fn words(&self, body: &[u8]) -> Option<String>;

    /// The permission that a refusal names, if it is not the one that the call is known to need.
    fn denied_permission(&self, _: &[u8]) -> Option<&'static str> {
        None
    }

    /// Whether the same call may succeed later.
    fn is_transient(&self, answer: &Answer) -> bool {
        is_transient_status(answer.status)
    }

    /// Sends until there is a final answer or the attempts are used up.
    async fn send(&self, call: &Call) -> Result<Answer, BucketError> {
        let policy = *self.http().retry();
        let mut failures = 0;
        let mut renewed = false;
        let mut repeated = false;
        loop {
            let request = self.authorize(call).await?;
            let (error, wish) = match receive(request, call.limit).await {
                Ok(answer) if answer.status == StatusCode::UNAUTHORIZED && !renewed => {
                    renewed = true;
                    if self.renew().await {
                        continue;
                    }
                    return Ok(answer);
                }
                Ok(answer) if self.is_transient(&answer) => {
                    let wish = retry_after(&answer.headers);
                    (self.unexpected(call, &answer), wish)
                }
                Ok(answer) => return Ok(Answer { repeated, ..answer }),
                Err(AttemptError::Transport(error)) => {
                    let transient = is_transient_error(&error);
                    let error = BucketError::Unreachable {
                        bucket: self.location().to_string(),
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

    /// The object is not as the condition of a write or a delete wants it.
    fn condition_failed(&self, key: &ObjectKey) -> BucketError {
        BucketError::ConditionFailed {
            bucket: self.location().to_string(),
            key: key.to_string(),
        }
    }

    /// The bytes are not those that the service says it has.
    fn damaged(&self, key: &ObjectKey) -> BucketError {
        BucketError::Damaged {
            bucket: self.location().to_string(),
            key: key.to_string(),
        }
    }

    /// The error for an answer that no caller has a use for.
    fn refuse(&self, call: &Call, answer: &Answer) -> BucketError {
        match answer.status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => BucketError::Denied {
                bucket: self.location().to_string(),
                permission: self
                    .denied_permission(&answer.body)
                    .unwrap_or(call.permission),
                identity: self.identity(),
            },
            StatusCode::NOT_FOUND => BucketError::NoBucket {
                bucket: self.location().to_string(),
            },
            _ => self.unexpected(call, answer),
        }
    }

    fn unexpected(&self, call: &Call, answer: &Answer) -> BucketError {
        BucketError::Unexpected {
            bucket: self.location().to_string(),
            status: answer.status.as_u16(),
            request: call.what.clone(),
            detail: self
                .words(&answer.body)
                .and_then(|words| presentable(&words)),
        }
    }

    /// The error for a good status with a body or header that the API does not document.
    fn malformed(&self, call: &Call, detail: &str) -> BucketError {
        BucketError::Unexpected {
            bucket: self.location().to_string(),
            status: 200,
            request: call.what.clone(),
            detail: Some(detail.to_owned()),
        }
    }

    /// The server's clock when it answered.
    fn time_of(&self, call: &Call, answer: &Answer) -> Result<Timestamp, BucketError> {
        (answer.headers.get(DATE))
            .and_then(|value| parse_http_date(value.to_str().ok()?))
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
pub(super) fn presentable(words: &str) -> Option<String> {
    const LONGEST: usize = 300;
    let text = tidy(words, LONGEST);
    (!text.is_empty() && !text.starts_with('<')).then_some(text)
}

/// A moment as HTTP headers write it.
pub(super) fn parse_http_date(text: &str) -> Option<Timestamp> {
    Some(jiff::fmt::rfc2822::parse(text).ok()?.timestamp())
}

/// A key, or a part of a query, as part of an address: everything but unreserved
/// characters is escaped, but for those in `kept`.
pub(super) fn escape(text: &str, kept: &[u8]) -> String {
    let mut encoded = String::with_capacity(text.len() + 8);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || kept.contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// [`escape`] undone. Here a plus is a plus, as it is not in a form.
pub(crate) fn unescape(text: &str) -> String {
    let form = format!("k={}", text.replace('+', "%2B").replace('&', "%26"));
    let mut pairs = url::form_urlencoded::parse(form.as_bytes());
    pairs
        .next()
        .map(|(_, text)| text.into_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn html_and_terminal_codes_are_never_shown() {
        assert_eq!(presentable(" <html>Bad Gateway</html>"), None);
        assert_eq!(
            presentable("gone\x1b[31m\nfishing").as_deref(),
            Some("gone [31m fishing")
        );
    }

    #[test]
    fn a_key_is_one_segment_unless_its_slashes_are_kept() {
        let key = "dags/a b%+é.py";
        assert_eq!(escape(key, b""), "dags%2Fa%20b%25%2B%C3%A9.py");
        assert_eq!(escape(key, b"/"), "dags/a%20b%25%2B%C3%A9.py");
        for kept in [b"".as_slice(), b"/"] {
            assert_eq!(unescape(&escape(key, kept)), key);
        }
        assert_eq!(unescape("a+b&c=d%26"), "a+b&c=d&");
    }

    #[test]
    fn http_dates_are_read() {
        let time = parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        assert_eq!(time.to_string(), "1994-11-06T08:49:37Z");
        assert_eq!(parse_http_date("yesterday"), None);
    }
}
