//! Objects of others that go because somebody said so: all of the folder with
//! `--clear-dags-folder`, and files of BigFlow's that nothing can bring back.
//!
//! BigFlow deletes first and then uploads, by a prefix without a slash. Here what is
//! condemned is deleted last, at the storage generation that was shown, and only in the
//! environment's own folder.

use std::collections::{BTreeMap, BTreeSet};

use super::key::MONITORING_KEY;
use super::owners::Owners;
use super::record::GenerationRecord;
use super::{Environment, EnvironmentError, Live};
use crate::bucket::{ObjectKey, StorageGeneration, StoredObject};
use crate::progress::Event;

/// Keys and storage generations of what is to go.
#[derive(Debug, Clone, Default)]
pub(super) struct Condemned(BTreeMap<ObjectKey, StorageGeneration>);

impl Condemned {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &ObjectKey> {
        self.0.keys()
    }

    /// Whether this very object, which is under `key`, is to go.
    pub(super) fn has(&self, key: &ObjectKey, object: &StoredObject) -> bool {
        self.0.get(key) == Some(&object.generation)
    }

    /// Whether a key's object is to go.
    pub(super) fn has_key(&self, key: &ObjectKey) -> bool {
        self.0.contains_key(key)
    }
}

impl Environment {
    /// What goes besides the base's own files.
    pub(super) fn condemned(&self, base: Option<&GenerationRecord>, live: &Live) -> Condemned {
        let prefix = self.options.dags_prefix.as_str();
        let ours: BTreeSet<&str> = base
            .into_iter()
            .flat_map(|base| base.dags.keys().map(ObjectKey::as_str))
            .collect();
        let goes = |object: &&StoredObject| {
            let cleared = self.options.clear_folder && object.key.starts_with(prefix);
            (cleared || live.lost.contains(&object.key))
                && object.key != MONITORING_KEY
                && !object.key.ends_with('/')
                && !ours.contains(object.key.as_str())
        };
        let mut condemned = BTreeMap::new();
        for object in live.listing.objects.iter().filter(goes) {
            match object.key.parse() {
                Ok(key) => {
                    condemned.insert(key, object.generation);
                }
                Err(error) => self.progress.report(Event::Warning(format!(
                    "{error}: it stays, delete it by hand"
                ))),
            }
        }
        Condemned(condemned)
    }

    /// Asks for consent to delete what belongs to others, naming whose it is where that is
    /// known. What came with an adoption was agreed to there.
    pub(super) async fn unconfirmed(
        &self,
        condemned: &Condemned,
        live: &Live,
    ) -> Result<Option<EnvironmentError>, EnvironmentError> {
        let keys: Vec<String> = condemned
            .keys()
            .map(ObjectKey::to_string)
            .filter(|key| !live.lost.contains(key))
            .collect();
        if keys.is_empty() || self.options.confirmed {
            return Ok(None);
        }
        let wanted = keys.iter().map(String::as_str).collect();
        let owners: Owners = self.owners(&wanted).await?;
        Ok(Some(EnvironmentError::Unconfirmed { keys, owners }))
    }
}
