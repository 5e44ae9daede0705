//! At which storage generation we left our objects. What has our bytes, but was
//! written anew by somebody, is theirs: it is neither replaced nor deleted.

use std::collections::BTreeMap;

use super::drift::{DriftKind, Drifted, by_key};
use super::head::{LiveGeneration, listing_digest};
use super::record::{GenerationRecord, RecordReference};
use crate::bucket::{Listing, ObjectKey, StorageGeneration, StoredObject};

/// The storage generations of a record's files, as HEAD keeps them.
#[derive(Debug, Default)]
pub(super) struct Written<'a>(BTreeMap<&'a ObjectKey, StorageGeneration>);

impl<'a> Written<'a> {
    /// What HEAD says of its live record. A HEAD that does not say it knows nothing.
    pub(super) fn of(record: Option<&'a GenerationRecord>, live: Option<&LiveGeneration>) -> Self {
        let keys = record.into_iter().flat_map(|record| record.dags.keys());
        let written = live.into_iter().flat_map(|live| &live.written);
        Self(keys.zip(written.copied().map(StorageGeneration)).collect())
    }

    /// Whether an object is the one that we wrote, as far as that is known.
    pub(super) fn is_ours(&self, key: &ObjectKey, object: &StoredObject) -> bool {
        let written = self.0.get(key);
        written.is_none_or(|written| *written == object.generation)
    }

    /// The files that are to be `leaving` and that somebody wrote anew with the same bytes.
    pub(super) fn rewritten<'r>(
        &'r self,
        record: &'r GenerationRecord,
        listing: &Listing,
        leaving: impl Fn(&ObjectKey) -> bool,
    ) -> Vec<Drifted> {
        let objects = by_key(listing);
        let leaving = record.dags.iter().filter(|(key, _)| leaving(key));
        let rewritten = leaving.filter(|(key, dag)| {
            let object = objects.get(key.as_str());
            object.is_some_and(|object| dag.checksums.matches(object) && !self.is_ours(key, object))
        });
        rewritten
            .map(|(key, _)| Drifted {
                key: key.clone(),
                change: DriftKind::Rewritten,
            })
            .collect()
    }
}

/// What HEAD is to say. The reference is the one by which the record was found:
/// written anew it would lack what a newer program has added to it.
pub(super) fn live_generation(
    target: &GenerationRecord,
    reference: RecordReference,
    listing: &Listing,
) -> LiveGeneration {
    LiveGeneration {
        reference,
        image: target.image,
        state: target.state(),
        dirty: target.is_dirty(),
        listing: listing_digest(listing),
        draining: target.draining().next().is_some(),
        written: storage_generations(target, listing),
    }
}

/// The storage generations of a record's files in a listing, in the order of its keys;
/// none at all if one of them is not there.
fn storage_generations(record: &GenerationRecord, listing: &Listing) -> Vec<u64> {
    let objects = by_key(listing);
    let generations = record.dags.keys();
    let generations = generations.map(|key| objects.get(key.as_str()).map(|o| o.generation.0));
    generations.collect::<Option<_>>().unwrap_or_default()
}
