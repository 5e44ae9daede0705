//! See [`crate::fuzzing`].
#![allow(missing_docs)]

use http::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};

use super::answer::Problem;
use super::challenge::Challenge;
use super::lists::{ReferrerPage, TagPage};

/// What a registry asks for is passed over, or a realm that it names.
pub fn challenge(bytes: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(WWW_AUTHENTICATE, value);
        }
    }
    let _ = Challenge::from_headers(&headers);
}

/// The bodies of answers.
pub(in crate::registry) fn lists(bytes: &[u8]) {
    let _ = serde_json::from_slice::<TagPage>(bytes);
    let _ = serde_json::from_slice::<ReferrerPage>(bytes);
    for media_type in ["application/json", "text/plain"] {
        Problem::parse(media_type, bytes);
    }
}
