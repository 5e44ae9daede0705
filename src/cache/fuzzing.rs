//! See [`crate::fuzzing`].
#![allow(clippy::unwrap_used, missing_docs)]

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::entry::Entry;
use super::key::{SigningKey, TrustedKey};

/// An entry is refused, or the same when it is written and read again.
pub fn cache_entry(bytes: &[u8]) {
    check(bytes);
    // Nobody guesses a gzip stream: the same as the inside of one.
    let mut body = GzEncoder::new(Vec::new(), Compression::fast());
    body.write_all(bytes).unwrap();
    let header = br#"{"format":"forebay-cache-entry","version":1,"domain":"unsigned"}"#;
    check(&[header.as_slice(), b"\n", &body.finish().unwrap()].concat());
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = text.parse::<TrustedKey>();
        if let Ok(key) = SigningKey::parse(text) {
            assert_eq!(
                SigningKey::parse(&key.to_text()).unwrap().to_text(),
                key.to_text()
            );
        }
    }
}

fn check(bytes: &[u8]) {
    if let Ok(entry) = Entry::decode_unverified(bytes) {
        let written = entry.encode(None).unwrap();
        assert_eq!(Entry::decode_unverified(&written).unwrap(), entry);
    }
}
