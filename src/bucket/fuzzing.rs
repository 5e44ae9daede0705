//! See [`crate::fuzzing`].
#![allow(missing_docs)]

use super::entity_tag::fuzzing::listing;
use super::gcs::fuzzing::gcs_answer;

/// An answer of a storage service is refused, or read.
pub fn bucket_answer(bytes: &[u8]) {
    gcs_answer(bytes);
    listing(bytes);
}
