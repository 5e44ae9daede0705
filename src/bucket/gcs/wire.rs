//! How the JSON API writes objects, checksums, keys and times
//! (<https://cloud.google.com/storage/docs/json_api/v1/objects>).

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::header::{DATE, HeaderMap};
use jiff::Timestamp;
use serde::Deserialize;

use super::super::{Checksums, StorageGeneration, StoredObject};

/// The members of an object that we ask for.
pub(super) const OBJECT_FIELDS: &str = "name,size,md5Hash,crc32c,generation,updated,metadata";

/// The metadata entry that names the attempt that wrote an object.
pub(super) const NONCE: &str = "forebay-nonce";

/// An object resource. Numbers are texts there.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ObjectResource {
    name: String,
    size: String,
    md5_hash: Option<String>,
    crc32c: Option<String>,
    generation: String,
    updated: Timestamp,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
}

/// One page of a listing.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListPage {
    #[serde(default)]
    pub(super) items: Vec<ObjectResource>,
    pub(super) next_page_token: Option<String>,
}

/// The body of an error answer.
#[derive(Debug, Deserialize)]
pub(super) struct ErrorBody {
    pub(super) error: ErrorDetail,
}

/// The part of an error answer that is for people.
#[derive(Debug, Deserialize)]
pub(super) struct ErrorDetail {
    pub(super) message: String,
}

impl ObjectResource {
    pub(super) fn nonce(&self) -> Option<&str> {
        self.metadata.get(NONCE).map(String::as_str)
    }

    /// `None` if a number or a checksum is not what the API documents.
    pub(super) fn into_stored(self) -> Option<StoredObject> {
        Some(StoredObject {
            key: self.name,
            size: self.size.parse().ok()?,
            generation: StorageGeneration(self.generation.parse().ok()?),
            crc32c: self.crc32c.as_deref().map(decode_crc32c).transpose().ok()?,
            md5: self.md5_hash.as_deref().map(decode_md5).transpose().ok()?,
            updated: self.updated,
        })
    }
}

/// A text that is not a checksum in base64.
pub(super) struct NotAChecksum;

fn decode<const N: usize>(text: &str) -> Result<[u8; N], NotAChecksum> {
    BASE64
        .decode(text)
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or(NotAChecksum)
}

fn decode_crc32c(text: &str) -> Result<u32, NotAChecksum> {
    decode(text).map(u32::from_be_bytes)
}

fn decode_md5(text: &str) -> Result<[u8; 16], NotAChecksum> {
    decode(text)
}

/// CRC32C as the API writes it: base64 of the four bytes, the highest first.
pub(super) fn encode_crc32c(checksums: &Checksums) -> String {
    BASE64.encode(checksums.crc32c.to_be_bytes())
}

/// MD5 as the API writes it.
pub(super) fn encode_md5(checksums: &Checksums) -> String {
    BASE64.encode(checksums.md5)
}

/// What the headers of a media download say of the object. `updated` has whole
/// seconds; without `Last-Modified`, which the API does not promise, it is 1970.
pub(super) fn object_of_headers(key: &str, headers: &HeaderMap, size: u64) -> Option<StoredObject> {
    let text = |name: &str| headers.get(name)?.to_str().ok();
    let mut crc32c = None;
    let mut md5 = None;
    for value in headers.get_all("x-goog-hash") {
        for entry in value.to_str().ok()?.split(',') {
            match entry.trim().split_once('=')? {
                ("crc32c", text) => crc32c = Some(decode_crc32c(text).ok()?),
                ("md5", text) => md5 = Some(decode_md5(text).ok()?),
                _ => {}
            }
        }
    }
    Some(StoredObject {
        key: key.to_owned(),
        size,
        generation: StorageGeneration(text("x-goog-generation")?.parse().ok()?),
        crc32c,
        md5,
        updated: match text("last-modified") {
            Some(date) => parse_http_date(date)?,
            None => Timestamp::UNIX_EPOCH,
        },
    })
}

/// The server's clock, from the `Date` header.
pub(super) fn server_time(headers: &HeaderMap) -> Option<Timestamp> {
    parse_http_date(headers.get(DATE)?.to_str().ok()?)
}

fn parse_http_date(text: &str) -> Option<Timestamp> {
    Some(jiff::fmt::rfc2822::parse(text).ok()?.timestamp())
}

/// A key as one segment of a path: everything but unreserved characters is escaped, `/` too.
pub(super) fn encode_key(key: &str) -> String {
    let mut encoded = String::with_capacity(key.len() + 8);
    for byte in key.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_written_as_google_documents_them() {
        // From the documentation of the service: base64 of the big-endian CRC32C.
        let checksums = Checksums::of(b"hello");
        assert_eq!(encode_crc32c(&checksums), "mnG7TA==");
        assert_eq!(encode_md5(&checksums), "XUFAKrxLKna5cZ2REBfFkg==");
        assert_eq!(decode_crc32c("mnG7TA==").ok(), Some(checksums.crc32c));
        assert!(decode_crc32c("mnG7TAA=").is_err());
        assert!(decode_md5("no").is_err());
    }

    #[test]
    fn a_key_is_one_segment() {
        assert_eq!(encode_key("dags/a b%+é.py"), "dags%2Fa%20b%25%2B%C3%A9.py");
    }

    #[test]
    fn http_dates_are_read() {
        let time = parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        assert_eq!(time.to_string(), "1994-11-06T08:49:37Z");
        assert_eq!(parse_http_date("yesterday"), None);
    }

    #[test]
    fn hostile_listings_are_refused() {
        let resource = |text: &str| serde_json::from_str::<ObjectResource>(text).unwrap();
        let good = r#"{"name":"a","size":"1","generation":"7","updated":"2026-01-02T03:04:05Z","crc32c":"mnG7TA=="}"#;
        assert!(resource(good).into_stored().is_some());
        assert!(
            resource(&good.replace("\"1\"", "\"-1\""))
                .into_stored()
                .is_none()
        );
        assert!(
            resource(&good.replace("mnG7TA==", "x"))
                .into_stored()
                .is_none()
        );
    }
}
