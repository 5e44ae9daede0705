//! The bytes of an object's parts as they lie in a bucket.
//!
//! Where a bucket tells one write from another only by the bytes (S3, whose tag is their MD5), a
//! part that is written again would look as the collector has seen it, and be deleted. So a
//! part ends there with a stamp, which no other write has. It is no content: a reader cuts it off.

use bytes::Bytes;

use crate::bucket::nonce;

/// A stamp's length in bytes: 32 hexadecimal digits.
pub(super) const STAMP: u64 = 32;

/// A part with a stamp of its own.
pub(super) fn stamped(bytes: &[u8]) -> Bytes {
    [bytes, nonce().as_bytes()].concat().into()
}

/// The part's own `size` bytes of what was read; none if they cannot be.
pub(super) fn without_stamp(mut read: Bytes, size: u64) -> Option<Bytes> {
    let length = read.len() as u64;
    if length != size && length != size + STAMP {
        return None;
    }
    read.truncate(usize::try_from(size).ok()?);
    Some(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_writes_are_equal_and_all_are_read_alike() {
        let (one, two) = (stamped(b"part"), stamped(b"part"));
        assert_ne!(one, two);
        for read in [one, two, Bytes::from_static(b"part")] {
            assert_eq!(without_stamp(read, 4).unwrap(), "part");
        }
    }

    #[test]
    fn what_has_another_length_is_no_part() {
        for size in [0, 3, 5, 4 + STAMP - 1, 4 + STAMP + 1] {
            assert_eq!(without_stamp(stamped(b"part"), size), None, "{size}");
        }
    }
}
