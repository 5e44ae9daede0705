//! From one set of DAG files to another, with the bucket anywhere between.
//! Pure: two records and a listing in, the steps that are left out.

use super::EnvironmentError;
use super::clear::Condemned;
use super::drift::{DriftKind, Drifted, by_key};
use super::owners::Owners;
use super::record::{GenerationRecord, RecordedDag};
use super::written::Written;
use crate::bucket::{Listing, ObjectKey, StorageGeneration, StoredObject, WriteCondition};

/// A change of what is live, begun or not.
#[derive(Clone, Copy)]
pub(super) struct Transition<'a> {
    /// What is to be live; nothing if a first deploy is taken back.
    pub(super) target: Option<&'a GenerationRecord>,
    /// What was live: its keys are ours.
    pub(super) base: Option<&'a GenerationRecord>,
    /// What a deploy that is taken back may have written: ours are only those
    /// of its keys that hold its very bytes.
    pub(super) abandoned: Option<&'a GenerationRecord>,
    /// At which storage generations the files of `base` are ours; without it, at any.
    pub(super) written: Option<&'a Written<'a>>,
    /// What goes although it is not ours.
    pub(super) condemned: Option<&'a Condemned>,
}

/// What is left to be done, each step with the precondition that nobody else was faster.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Steps<'a> {
    pub(super) create: Vec<Upload<'a>>,
    pub(super) replace: Vec<Upload<'a>>,
    pub(super) delete: Vec<(ObjectKey, StorageGeneration)>,
}

/// One DAG file to be written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Upload<'a> {
    pub(super) key: &'a ObjectKey,
    pub(super) dag: &'a RecordedDag,
    pub(super) condition: WriteCondition,
}

impl Steps<'_> {
    pub(super) fn count(&self) -> usize {
        self.create.len() + self.replace.len() + self.delete.len()
    }
}

fn is_at(record: Option<&GenerationRecord>, key: &ObjectKey, object: &StoredObject) -> bool {
    let dag = record.and_then(|record| record.dags.get(key));
    dag.is_some_and(|dag| dag.checksums.matches(object))
}

fn names(record: Option<&GenerationRecord>, key: &ObjectKey) -> bool {
    record.is_some_and(|record| record.dags.contains_key(key))
}

impl<'a> Transition<'a> {
    /// All records whose keys it may touch.
    pub(super) fn records(&self) -> [Option<&'a GenerationRecord>; 3] {
        [self.target, self.base, self.abandoned]
    }

    /// Whether an object under `key` is one that we wrote.
    fn is_ours(&self, key: &ObjectKey, object: &StoredObject) -> bool {
        let untouched = self
            .written
            .is_none_or(|written| written.is_ours(key, object));
        (untouched && is_at(self.base, key, object)) || is_at(self.abandoned, key, object)
    }

    fn is_condemned(&self, key: &ObjectKey, object: &StoredObject) -> bool {
        self.condemned
            .is_some_and(|condemned| condemned.has(key, object))
    }

    fn drifted(&self, key: &ObjectKey, object: &StoredObject) -> Drifted {
        Drifted {
            key: key.clone(),
            change: match is_at(self.base, key, object) {
                true => DriftKind::Rewritten,
                false => DriftKind::Changed,
            },
        }
    }

    /// Every key of `base` and `abandoned` that is not to be live.
    fn leaving(&self) -> impl Iterator<Item = &'a ObjectKey> {
        let target = self.target;
        let keys = |record: Option<&'a GenerationRecord>| {
            record.into_iter().flat_map(|record| record.dags.keys())
        };
        let base = self.base;
        let of_abandoned = keys(self.abandoned).filter(move |key| !names(base, key));
        let all = keys(self.base).chain(of_abandoned);
        all.filter(move |key| !names(target, key))
    }

    /// What is left to be done to get from `listing` to the target.
    ///
    /// # Errors
    /// [`EnvironmentError::ForeignKeys`] if somebody else has taken a key, and
    /// [`EnvironmentError::Drift`] if somebody changed an object of ours and
    /// `restore_drift` does not allow to write over it.
    pub(super) fn steps(
        &self,
        listing: &Listing,
        restore_drift: bool,
    ) -> Result<Steps<'a>, EnvironmentError> {
        let objects = by_key(listing);
        let mut steps = Steps::default();
        let mut foreign = Vec::new();
        let mut drifted = Vec::new();
        for (key, dag) in self.target.into_iter().flat_map(|target| &target.dags) {
            let object = objects.get(key.as_str()).copied();
            let condition = match object {
                None => WriteCondition::Absent,
                Some(object) => WriteCondition::Unchanged(object.generation),
            };
            let upload = Upload {
                key,
                dag,
                condition,
            };
            match object {
                None => steps.create.push(upload),
                Some(object) if dag.checksums.matches(object) => {}
                Some(object) if self.is_ours(key, object) => steps.replace.push(upload),
                Some(object) if self.is_condemned(key, object) => steps.replace.push(upload),
                Some(_) if !names(self.base, key) => foreign.push(key.to_string()),
                Some(_) if restore_drift => steps.replace.push(upload),
                Some(object) => drifted.push(self.drifted(key, object)),
            }
        }
        for key in self.leaving() {
            match objects.get(key.as_str()) {
                None => {}
                Some(object) if self.is_ours(key, object) => {
                    steps.delete.push((key.clone(), object.generation));
                }
                // Somebody wrote under a name that a dead deploy only meant to use.
                Some(_) if !names(self.base, key) => {}
                Some(object) if restore_drift => {
                    steps.delete.push((key.clone(), object.generation));
                }
                Some(object) => drifted.push(self.drifted(key, object)),
            }
        }
        for key in self.condemned.into_iter().flat_map(Condemned::keys) {
            let object = objects.get(key.as_str()).copied();
            let object = object.filter(|object| self.is_condemned(key, object));
            if let Some(object) = object.filter(|_| !names(self.target, key)) {
                steps.delete.push((key.clone(), object.generation));
            }
        }
        if !foreign.is_empty() {
            return Err(EnvironmentError::ForeignKeys {
                keys: foreign,
                owners: Owners::new(),
            });
        }
        if !drifted.is_empty() {
            return Err(EnvironmentError::Drift { objects: drifted });
        }
        Ok(steps)
    }

    /// Whether the bucket has come to the target.
    ///
    /// # Errors
    /// [`EnvironmentError::NotVerified`] with the keys that are not as they should be.
    pub(super) fn verify(&self, listing: &Listing) -> Result<(), EnvironmentError> {
        let objects = by_key(listing);
        let wanted = self.target.into_iter().flat_map(|target| &target.dags);
        let wrong = wanted.filter(|(key, dag)| {
            let object = objects.get(key.as_str());
            !object.is_some_and(|object| dag.checksums.matches(object))
        });
        let wrong = wrong.map(|(key, _)| key);
        let left = self.leaving().filter(|key| {
            let object = objects.get(key.as_str());
            object.is_some_and(|object| self.is_ours(key, object))
        });
        let condemned = self.condemned.into_iter().flat_map(Condemned::keys);
        let left = left.chain(condemned.filter(|key| {
            let object = objects.get(key.as_str());
            object.is_some_and(|object| self.is_condemned(key, object))
        }));
        let mut keys: Vec<String> = wrong.chain(left).map(ObjectKey::to_string).collect();
        if keys.is_empty() {
            return Ok(());
        }
        keys.sort();
        Err(EnvironmentError::NotVerified { keys })
    }
}
