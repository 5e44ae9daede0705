//! The checksums that buckets keep of every object.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use md5::{Digest as _, Md5};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::StoredObject;

/// Length, CRC32C and MD5 of some bytes: enough to say from a listing alone
/// whether a bucket still has them.
///
/// In JSON: `size` and `crc32c` as numbers, `md5` as 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checksums {
    /// Length in bytes.
    pub size: u64,
    /// CRC-32 with Castagnoli's polynomial.
    pub crc32c: u32,
    /// MD5.
    #[serde(serialize_with = "write_hex", deserialize_with = "read_hex")]
    pub md5: [u8; 16],
}

impl Checksums {
    /// The checksums of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self {
            size: bytes.len() as u64,
            crc32c: crc32c::crc32c(bytes),
            md5: Md5::digest(bytes).into(),
        }
    }

    /// Whether a stored object has these bytes: all checksums that the bucket
    /// has of it must be theirs, and one it must have.
    pub fn matches(&self, object: &StoredObject) -> bool {
        (object.crc32c.is_some() || object.md5.is_some()) && self.allow(object)
    }

    /// Whether nothing that the bucket says of a stored object tells that it has other bytes.
    pub(super) fn allow(&self, object: &StoredObject) -> bool {
        object.size == self.size
            && object.crc32c.is_none_or(|crc32c| crc32c == self.crc32c)
            && object.md5.is_none_or(|md5| md5 == self.md5)
    }
}

fn write_hex<S: Serializer>(md5: &[u8; 16], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&hex::encode(md5))
}

fn read_hex<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 16], D::Error> {
    let text = String::deserialize(deserializer)?;
    let mut md5 = [0; 16];
    hex::decode_to_slice(&text, &mut md5).map_err(serde::de::Error::custom)?;
    Ok(md5)
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

pub(super) fn decode_crc32c(text: &str) -> Result<u32, NotAChecksum> {
    decode(text).map(u32::from_be_bytes)
}

pub(super) fn decode_md5(text: &str) -> Result<[u8; 16], NotAChecksum> {
    decode(text)
}

/// CRC32C as Google's API writes it: base64 of the four bytes, the highest first.
pub(super) fn encode_crc32c(checksums: &Checksums) -> String {
    BASE64.encode(checksums.crc32c.to_be_bytes())
}

/// MD5 as HTTP and all services write it.
pub(super) fn encode_md5(checksums: &Checksums) -> String {
    BASE64.encode(checksums.md5)
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
}
