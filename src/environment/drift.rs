//! Which of our objects are no longer what we wrote.

use std::collections::BTreeMap;

use super::record::GenerationRecord;
use crate::bucket::{Listing, ObjectKey, StoredObject};

/// An object of ours that somebody else changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drifted {
    /// Its key.
    pub key: ObjectKey,
    /// What was done to it.
    pub change: DriftKind,
}

/// What somebody did to an object of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DriftKind {
    /// Other bytes are there.
    Changed,
    /// Nothing is there.
    Gone,
    /// The same bytes are there, but somebody else wrote them. It counts only
    /// where the file is to be replaced or deleted.
    Rewritten,
}

/// A listing by key.
pub(super) fn by_key(listing: &Listing) -> BTreeMap<&str, &StoredObject> {
    let objects = listing.objects.iter();
    objects
        .map(|object| (object.key.as_str(), object))
        .collect()
}

/// Compares a record with what the bucket has; sorted by key.
pub fn drift(record: &GenerationRecord, listing: &Listing) -> Vec<Drifted> {
    let objects = by_key(listing);
    let changes = record.dags.iter().filter_map(|(key, dag)| {
        let change = match objects.get(key.as_str()) {
            None => DriftKind::Gone,
            Some(object) if dag.checksums.matches(object) => return None,
            Some(_) => DriftKind::Changed,
        };
        let key = key.clone();
        Some(Drifted { key, change })
    });
    changes.collect()
}
