//! What S3 and Azure say differently.

use async_trait::async_trait;
use http::StatusCode;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;
use object_store::client::HttpRequest;
use serde::Deserialize;
use url::Url;

use super::super::ObjectKey;
use super::super::exchange::{Answer, Permissions};

/// One object of a listing.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ListedObject {
    pub(super) key: String,
    pub(super) size: u64,
    pub(super) tag: String,
    pub(super) md5: Option<[u8; 16]>,
    pub(super) updated: Timestamp,
}

/// One page of a listing.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ListedPage {
    pub(super) objects: Vec<ListedObject>,
    /// What the next page's request must name.
    pub(super) next: Option<String>,
}

/// A service's addresses, headers and words.
#[async_trait]
pub(super) trait Dialect: Send + Sync {
    /// Adds what shows who we are.
    async fn authorize(&self, request: &mut HttpRequest) -> object_store::Result<()>;
    fn identity(&self) -> String;
    fn permissions(&self) -> Permissions;
    fn object_url(&self, key: &ObjectKey) -> Url;
    fn list_url(&self, prefix: &str, marker: Option<&str>) -> Url;
    /// `None` if it is not as documented.
    fn parse_page(&self, body: &[u8]) -> Option<ListedPage>;
    /// Where the nonce of an attempt is kept with the object.
    fn nonce_header(&self) -> HeaderName;
    /// What else a write needs.
    fn put_headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        Vec::new()
    }
    /// Whether an object that is written again with the same bytes has another tag.
    fn tags_writes(&self) -> bool;
    /// Whether all who speak so hold to a delete's condition.
    fn holds_to_conditions(&self) -> bool;
    /// The MD5 of an object's bytes, if the headers give it.
    fn md5(&self, headers: &HeaderMap) -> Option<[u8; 16]>;
    /// Whether the answer to a write or delete means that its condition did not hold.
    fn is_condition_failed(&self, status: StatusCode, body: &[u8]) -> bool;
    /// Whether a 404 means the whole bucket.
    fn is_bucket_missing(&self, body: &[u8]) -> bool;
    fn is_transient(&self, answer: &Answer) -> bool;
}

/// The body of an error, which both services write alike.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct ErrorBody {
    pub(super) code: String,
    pub(super) message: String,
}

impl ErrorBody {
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        // Azure begins with a byte order mark.
        let text = std::str::from_utf8(body)
            .ok()?
            .trim_start_matches('\u{feff}');
        let error: Self = quick_xml::de::from_str(text).ok()?;
        (!error.code.is_empty()).then_some(error)
    }

    /// Whether the body's code is one of these.
    pub(super) fn is(body: &[u8], codes: &[&str]) -> bool {
        Self::parse(body).is_some_and(|error| codes.contains(&error.code.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_both_are_read() {
        for body in [
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>NoSuchBucket</Code><Message>The specified bucket does not exist</Message><BucketName>x</BucketName></Error>",
            "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>NoSuchBucket</Code><Message>No.\nRequestId:1</Message></Error>",
        ] {
            assert!(ErrorBody::is(body.as_bytes(), &["NoSuchBucket"]), "{body}");
        }
        for body in [
            "",
            "<html></html>",
            "no XML",
            "<Error><Code></Code></Error>",
            "\u{0}",
        ] {
            assert!(ErrorBody::parse(body.as_bytes()).is_none(), "{body}");
        }
    }
}
