//! Whose objects these are: looked up in the HEADs of all environments that
//! share the bucket, and only when a foreign object is in the way.

use std::collections::{BTreeMap, BTreeSet};

use super::head::Head;
use super::key::EnvironmentKey;
use super::record::{GenerationRecord, RecordReference};
use super::{Environment, EnvironmentError};
use crate::bucket::ObjectKey;
use crate::progress::Event;
use forebay_store::ObjectDigest;

/// Where all state lies.
const STATE_PREFIX: &str = "forebay/v1/";

/// Which environment a key belongs to, for the keys that belong to one.
pub type Owners = BTreeMap<String, EnvironmentKey>;

impl Environment {
    /// The environments that own these keys, or are about to. What cannot be read, or
    /// was written by a newer program, names no owner.
    ///
    /// # Errors
    /// The bucket's.
    pub async fn owners(&self, keys: &BTreeSet<&str>) -> Result<Owners, EnvironmentError> {
        let mut owners = Owners::new();
        if keys.is_empty() {
            return Ok(owners);
        }
        for object in self.bucket.list(STATE_PREFIX).await?.objects {
            let Some(other) = environment_of(&object.key).filter(|other| *other != self.key) else {
                continue;
            };
            for record in self.records_of(&other).await? {
                let owned = record.dags.keys().map(ObjectKey::as_str);
                for key in owned.filter(|key| keys.contains(key)) {
                    owners.insert(key.to_owned(), other.clone());
                }
            }
        }
        Ok(owners)
    }

    /// What is live in another environment, and what is being applied to it.
    async fn records_of(
        &self,
        other: &EnvironmentKey,
    ) -> Result<Vec<GenerationRecord>, EnvironmentError> {
        let key = other.head()?;
        let read = self.bucket.read(&key).await?;
        let head = read.and_then(|read| Head::parse(&read.bytes, other, key.as_str()).ok());
        let Some(Head { live, applying, .. }) = head else {
            return Ok(Vec::new());
        };
        let references = [
            live.map(|live| live.reference),
            applying.map(|intent| intent.reference),
        ];
        let references: BTreeSet<_> = references
            .into_iter()
            .flatten()
            .map(|reference| (reference.generation, reference.record))
            .collect();
        let mut records = Vec::new();
        for (generation, record) in references {
            let reference = RecordReference { generation, record };
            records.extend(self.record_of(other, &reference).await?);
        }
        Ok(records)
    }

    async fn record_of(
        &self,
        other: &EnvironmentKey,
        reference: &RecordReference,
    ) -> Result<Option<GenerationRecord>, EnvironmentError> {
        let key = other.generation(reference.generation)?;
        let read = self.bucket.read(&key).await?;
        let read = read.filter(|read| ObjectDigest::of(&read.bytes) == reference.record);
        Ok(read.and_then(|read| GenerationRecord::parse(&read.bytes, other, key.as_str()).ok()))
    }

    /// Says whose the keys are that are in the way.
    pub(super) async fn naming_owners(&self, error: EnvironmentError) -> EnvironmentError {
        let EnvironmentError::ForeignKeys { keys, .. } = error else {
            return error;
        };
        let wanted = keys.iter().map(String::as_str).collect();
        match self.owners(&wanted).await {
            Ok(owners) => EnvironmentError::ForeignKeys { keys, owners },
            Err(unknown) => {
                self.progress.report(Event::Warning(format!(
                    "whose the keys are could not be looked up: {unknown}"
                )));
                EnvironmentError::ForeignKeys {
                    keys,
                    owners: Owners::new(),
                }
            }
        }
    }
}

/// The environment whose HEAD has this key.
fn environment_of(key: &str) -> Option<EnvironmentKey> {
    let names = key.strip_prefix(STATE_PREFIX)?.strip_suffix("/HEAD.json")?;
    let (project, environment) = names.split_once('/')?;
    Some(EnvironmentKey {
        project: project.parse().ok()?,
        environment: environment.parse().ok()?,
    })
}

/// `dags/a.py (project flow, environment prod), dags/b.py`.
pub(super) fn with_owners(keys: &[String], owners: &Owners) -> String {
    let described: Vec<_> = keys
        .iter()
        .map(|key| match owners.get(key) {
            Some(EnvironmentKey {
                project,
                environment,
            }) => format!("{key} (project {project}, environment {environment})"),
            None => key.clone(),
        })
        .collect();
    described.join(", ")
}
