//! Retention: what was live long ago loses its record, its images their tags, its DAG files
//! their bytes. What is live is never touched, nor what another environment of the project
//! still needs.
//!
//! Bytes in `objects/` are listed before the records are read, and deleted as they were
//! listed: a deploy that needs some of them again writes them anew before its record, so
//! that they are no longer what was listed. Everything is deleted under the environment's
//! lease, tags before objects before records, the oldest record first: whatever is
//! interrupted is found again by the next run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream;
use jiff::SignedDuration;

use super::head::Direction;
use super::lease::Lease;
use super::record::{GenerationRecord, RecordedImage};
use super::{Environment, EnvironmentError, EnvironmentKey, Live};
use crate::bucket::{Listing, ObjectKey, StorageGeneration};
use crate::oci::Tag;
use crate::registry::{ManifestName, RegistryError};
use forebay_store::ObjectDigest;

/// What is kept.
#[derive(Debug, Clone)]
pub struct Retention {
    /// So many generations, those last that were deployed last: by a deploy, or by a rollback
    /// to them.
    pub keep: usize,
    /// Bytes that no record names are kept for so long after they were written, by the
    /// bucket server's clock.
    pub grace: Duration,
}

/// What nobody needs.
#[derive(Debug, Clone, Default)]
pub struct Prunable {
    /// The generations that stay, those first that were deployed last.
    pub kept: Vec<u64>,
    /// Generations whose records go.
    pub records: Vec<u64>,
    /// Retention tags that go. The version's tags stay.
    pub tags: Vec<String>,
    /// How many objects go.
    pub objects: usize,
    /// Their bytes.
    pub object_bytes: u64,
    deletes: Deletes,
    live: Option<Live>,
}

#[derive(Debug, Clone, Default)]
struct Deletes {
    tags: Vec<Tag>,
    objects: Vec<(ObjectKey, StorageGeneration)>,
    records: Vec<(ObjectKey, StorageGeneration)>,
}

impl Prunable {
    /// Whether everything is needed.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.tags.is_empty() && self.objects == 0
    }
}

/// Records by number.
type Records = BTreeMap<u64, Arc<GenerationRecord>>;

impl Environment {
    /// Finds out what nobody needs. Writes nothing.
    ///
    /// # Errors
    /// [`EnvironmentError::Held`] if a change is being applied; a record that cannot be read,
    /// because nobody knows what it needs.
    pub async fn prunable(&self, retention: &Retention) -> Result<Prunable, EnvironmentError> {
        let objects = self.bucket.list(&self.key.objects_prefix()).await?;
        let live = self.observe(None).await?;
        self.refuse_unsettled(&live)?;
        if live.generation().is_none() {
            return Ok(Prunable::default());
        }
        let history = self.history(None).await?;
        let kept = last_deployed(&history, retention.keep);
        let oldest = kept.iter().min().copied().unwrap_or_default();

        let project = self.bucket.list(&self.key.project_prefix()).await?;
        let own = self.records_in(&project, &self.key).await?;
        let mut old_records = Vec::new();
        for (number, (key, generation)) in self.record_keys(&project, &self.key) {
            if number < oldest {
                old_records.push((number, key, generation));
            }
        }
        let is_live_long_ago = |number: &u64| {
            let was_live = history.iter().any(|record| record.generation == *number);
            *number < oldest || (was_live && !kept.contains(number))
        };
        let (gone, needed): (Records, Records) = own
            .into_iter()
            .partition(|(number, _)| is_live_long_ago(number));

        let mut needed_objects: BTreeSet<ObjectDigest> = objects_of(&needed);
        for other in self.other_environments(&project) {
            let records = self.records_in(&project, &other).await?;
            needed_objects.extend(objects_of(&records));
        }
        let tags = self.unneeded_tags(&gone, &needed).await?;
        let unneeded = unneeded_objects(self, &objects, &needed_objects, retention.grace);

        Ok(Prunable {
            kept,
            records: old_records.iter().map(|(number, ..)| *number).collect(),
            tags: tags.iter().map(Tag::to_string).collect(),
            objects: unneeded.len(),
            object_bytes: unneeded.iter().map(|(_, _, size)| size).sum(),
            deletes: Deletes {
                tags,
                objects: (unneeded.into_iter())
                    .map(|(key, generation, _)| (key, generation))
                    .collect(),
                records: (old_records.into_iter())
                    .map(|(_, key, generation)| (key, generation))
                    .collect(),
            },
            live: Some(live),
        })
    }

    /// Deletes it, while nobody else changes the environment. Gives the tags that the
    /// registry does not let go.
    ///
    /// # Errors
    /// [`EnvironmentError::Lost`] if a deploy was faster.
    pub async fn prune(&self, prunable: Prunable) -> Result<Vec<String>, EnvironmentError> {
        let live = prunable.live.as_ref();
        let generation = live.and_then(|live| live.generation());
        let (Some(live), Some(generation), false) = (live, generation, prunable.is_empty()) else {
            return Ok(Vec::new());
        };
        // Whoever finds this unfinished carries out what is live already.
        let intent = self.intent(generation.reference, Direction::Forward);
        let seen = live.seen.as_ref().and_then(|seen| seen.generation);
        let mut lease = Lease::take(self, seen, Some(generation.clone()), intent).await?;
        let deleted = self.delete_all(&mut lease, &prunable.deletes).await;
        match deleted {
            Ok(left) => {
                lease.commit(Some(generation.clone())).await?;
                Ok(left)
            }
            Err(error @ EnvironmentError::Lost { .. }) => Err(error),
            Err(error) => {
                lease.release().await;
                Err(error.interrupts(generation.reference.generation))
            }
        }
    }

    async fn delete_all(
        &self,
        lease: &mut Lease<'_>,
        deletes: &Deletes,
    ) -> Result<Vec<String>, EnvironmentError> {
        let left = std::sync::Mutex::new(Vec::new());
        let untag = async |tag: &Tag| match self.registry.delete_tag(tag).await {
            Ok(true) => Ok(()),
            // What may not be deleted only takes room.
            Ok(false) | Err(RegistryError::Denied { .. }) => {
                let mut left = left
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner);
                left.push(tag.to_string());
                Ok(())
            }
            Err(error) => Err(error.into()),
        };
        for tag in &deletes.tags {
            lease.drive(stream::once(untag(tag))).await?;
        }
        for (key, generation) in deletes.objects.iter().chain(&deletes.records) {
            let delete = async {
                match self.bucket.delete(key, *generation).await {
                    // Somebody needs it again.
                    Ok(()) | Err(crate::bucket::BucketError::ConditionFailed { .. }) => Ok(()),
                    Err(error) => Err(error.into()),
                }
            };
            lease.drive(stream::once(delete)).await?;
        }
        Ok(left.into_inner().unwrap_or_default())
    }

    /// The keys of an environment's records, by number.
    fn record_keys(
        &self,
        project: &Listing,
        environment: &EnvironmentKey,
    ) -> BTreeMap<u64, (ObjectKey, StorageGeneration)> {
        let prefix = environment.generations_prefix();
        let objects = project.objects.iter().filter_map(|object| {
            let name = object.key.strip_prefix(&prefix)?.strip_suffix(".json")?;
            let key = object.key.parse().ok()?;
            Some((name.parse().ok()?, (key, object.generation)))
        });
        objects.collect()
    }

    /// All records of an environment that the bucket has, also those of deploys that died.
    async fn records_in(
        &self,
        project: &Listing,
        environment: &EnvironmentKey,
    ) -> Result<Records, EnvironmentError> {
        let mut records = Records::new();
        for (number, (key, _)) in self.record_keys(project, environment) {
            let Some(read) = self.bucket.read(&key).await? else {
                continue;
            };
            let record = GenerationRecord::parse(&read.bytes, environment, key.as_str())?;
            record.refuse_newer()?;
            records.insert(number, Arc::new(record));
        }
        Ok(records)
    }

    /// The project's other environments in this bucket.
    fn other_environments(&self, project: &Listing) -> Vec<EnvironmentKey> {
        let prefix = self.key.project_prefix();
        let names = project.objects.iter().filter_map(|object| {
            let (environment, rest) = object.key.strip_prefix(&prefix)?.split_once('/')?;
            rest.starts_with("generations/").then_some(environment)
        });
        let names: BTreeSet<_> = names.collect();
        let keys = names.into_iter().filter_map(|environment| {
            Some(EnvironmentKey {
                project: self.key.project.clone(),
                environment: environment.parse().ok()?,
            })
        });
        keys.filter(|key| *key != self.key).collect()
    }

    async fn unneeded_tags(
        &self,
        gone: &Records,
        needed: &Records,
    ) -> Result<Vec<Tag>, EnvironmentError> {
        let of = |records: &Records| -> BTreeSet<String> {
            let images = records.values().flat_map(|record| record.images.iter());
            let here = images.filter(|image| self.elsewhere(image).is_none());
            here.map(|image: &RecordedImage| image.retention_tag.clone())
                .collect()
        };
        let needed = of(needed);
        let mut tags = Vec::new();
        for tag in of(gone).difference(&needed) {
            let tag: Tag = tag.parse()?;
            // An earlier run may have taken it away.
            let name = ManifestName::Tag(tag.clone());
            if self.registry.manifest_descriptor(&name).await?.is_some() {
                tags.push(tag);
            }
        }
        Ok(tags)
    }
}

fn objects_of(records: &Records) -> BTreeSet<ObjectDigest> {
    let records = records.values();
    records.flat_map(|record| record.objects()).collect()
}

/// Numbers of generations, those first that were deployed last.
fn last_deployed(history: &[Arc<GenerationRecord>], keep: usize) -> Vec<u64> {
    let mut kept = Vec::new();
    for record in history {
        for number in [Some(record.generation), record.rollback_of] {
            if let Some(number) = number
                && !kept.contains(&number)
                && history.iter().any(|record| record.generation == number)
            {
                kept.push(number);
            }
        }
    }
    // The live one is the first.
    kept.truncate(keep.max(1));
    kept
}

/// Objects without a need that are older than the grace period, with their sizes.
fn unneeded_objects(
    environment: &Environment,
    objects: &Listing,
    needed: &BTreeSet<ObjectDigest>,
    grace: Duration,
) -> Vec<(ObjectKey, StorageGeneration, u64)> {
    let prefix = environment.key.objects_prefix();
    let grace = SignedDuration::try_from(grace).unwrap_or(SignedDuration::MAX);
    let is_old = |updated| objects.server_time.duration_since(updated) >= grace;
    let unneeded = objects.objects.iter().filter(|object| {
        let digest = object.key.strip_prefix(&prefix);
        let digest = digest.and_then(|digest| digest.parse::<ObjectDigest>().ok());
        digest.is_some_and(|digest| !needed.contains(&digest)) && is_old(object.updated)
    });
    let unneeded = unneeded.filter_map(|object| {
        let key = object.key.parse().ok()?;
        Some((key, object.generation, object.size))
    });
    unneeded.collect()
}
