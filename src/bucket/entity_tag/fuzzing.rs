//! See [`crate::fuzzing`].
#![allow(missing_docs)]

use super::dialect::ErrorBody;

/// A page of a listing or an error, as S3 and Azure write them, is refused, or read.
pub(in crate::bucket) fn listing(bytes: &[u8]) {
    let _ = super::s3::page(bytes);
    let _ = super::azure::page(bytes);
    let _ = ErrorBody::parse(bytes);
}
