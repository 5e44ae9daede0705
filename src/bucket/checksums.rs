//! The checksums that Google Cloud Storage keeps of every object.

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

    /// Whether a stored object has these bytes. Its MD5 counts if it has one.
    pub fn matches(&self, object: &StoredObject) -> bool {
        object.size == self.size
            && object.crc32c == Some(self.crc32c)
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
