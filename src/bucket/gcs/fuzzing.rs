//! See [`crate::fuzzing`].
#![allow(missing_docs)]

use super::wire::{self, ListPage, ObjectResource};

/// A page of a listing, an object or an error is refused, or read.
pub(in crate::bucket) fn gcs_answer(bytes: &[u8]) {
    if let Ok(page) = serde_json::from_slice::<ListPage>(bytes) {
        page.items.into_iter().for_each(read);
    }
    if let Ok(object) = serde_json::from_slice(bytes) {
        read(object);
    }
    let _ = (wire::message(bytes), wire::denied_permission(bytes));
}

fn read(object: ObjectResource) {
    let _ = object.nonce();
    let _ = object.into_stored();
}
