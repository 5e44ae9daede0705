//! The checksums that Google Cloud Storage keeps of every object.

use md5::{Digest as _, Md5};

use super::StoredObject;

/// Length, CRC32C and MD5 of some bytes: enough to say from a listing alone
/// whether a bucket still has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checksums {
    /// Length in bytes.
    pub size: u64,
    /// CRC-32 with Castagnoli's polynomial.
    pub crc32c: u32,
    /// MD5.
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
