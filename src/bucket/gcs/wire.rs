//! How the JSON API writes objects, checksums, keys and times
//! (<https://cloud.google.com/storage/docs/json_api/v1/objects>).

use std::collections::BTreeMap;

use http::header::HeaderMap;
use jiff::Timestamp;
use serde::Deserialize;

use super::super::checksums::{decode_crc32c, decode_md5};
use super::super::exchange::parse_http_date;
use super::super::{StorageGeneration, StoredObject};

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
struct ErrorBody {
    error: ErrorDetail,
}

/// The part of an error answer that is for people.
#[derive(Debug, Deserialize)]
struct ErrorDetail {
    message: String,
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

/// The server's own words.
pub(super) fn message(body: &[u8]) -> Option<String> {
    match serde_json::from_slice::<ErrorBody>(body) {
        Ok(body) => Some(body.error.message),
        Err(_) => Some(std::str::from_utf8(body).ok()?.to_owned()),
    }
}

/// The permission that a 403 names: replacing an object needs `delete` beside `create`.
pub(super) fn denied_permission(body: &[u8]) -> Option<&'static str> {
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
    fn the_words_of_an_error_are_its_message() {
        let body = br#"{"error":{"code":400,"message":"no such"}}"#;
        assert_eq!(message(body).as_deref(), Some("no such"));
        assert_eq!(message(b"in short").as_deref(), Some("in short"));
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
