//! Retention: what was live long ago loses its record, its images their tags, its DAG files
//! their bytes. What is live is never touched, nor what another environment of the project
//! still needs.
//!
//! Bytes in `objects/` are listed before the records are read, and deleted as they were
//! listed: a deploy that needs some of them again writes them anew before its record, so
//! that they are no longer what was listed. Everything is deleted under the environment's
//! lease, tags before objects before records, the oldest record first: whatever is
//! interrupted is found again by the next run.
//!
//! Records are looked at and let go, so that the memory that is needed grows with the objects
//! that the bucket lists, and not with generations times DAG files.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use jiff::SignedDuration;

use super::head::Direction;
use super::lease::Lease;
use super::record::GenerationRecord;
use super::{Environment, EnvironmentError, EnvironmentKey, Live, PARALLEL};
use crate::bucket::{BucketError, Listing, ObjectKey, StorageGeneration};
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

/// What was done of it.
struct Deleted {
    tags_left: Vec<String>,
    done: usize,
    total: usize,
}

impl Prunable {
    /// Whether everything is needed.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.tags.is_empty() && self.objects == 0
    }
}

/// How many records are on their way at once. Each may be megabytes.
const RECORDS_AT_ONCE: usize = 8;

/// A generation that was live.
struct Deployed {
    generation: u64,
    rollback_of: Option<u64>,
}

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
        let mut history = Vec::new();
        let note = |record: &GenerationRecord| Deployed {
            generation: record.generation,
            rollback_of: record.rollback_of,
        };
        self.walk_history(None, |record| history.push(note(&record)))
            .await?;
        let was_live: BTreeSet<_> = history.iter().map(|record| record.generation).collect();
        let kept = last_deployed(&history, &was_live, retention.keep);
        let oldest = kept.iter().min().copied().unwrap_or_default();
        let goes = |number: u64| {
            number < oldest || (was_live.contains(&number) && !kept.contains(&number))
        };

        let project = self.bucket.list(&self.key.project_prefix()).await?;
        let mut needed_objects = BTreeSet::new();
        let (mut needed_tags, mut old_tags) = (BTreeSet::new(), BTreeSet::new());
        self.visit_records(&project, &self.key, |number, record| {
            let tags = self.retention_tags(&record);
            if goes(number) {
                old_tags.extend(tags);
            } else {
                needed_tags.extend(tags);
                needed_objects.extend(record.objects());
            }
        })
        .await?;
        for other in self.other_environments(&project) {
            self.visit_records(&project, &other, |_, record| {
                needed_objects.extend(record.objects());
            })
            .await?;
        }
        let mut old_records = record_keys(&project, &self.key);
        old_records.retain(|number, _| *number < oldest);
        let tags = self.tagged(old_tags.difference(&needed_tags)).await?;
        let unneeded = unneeded_objects(self, &objects, &needed_objects, retention.grace);

        Ok(Prunable {
            kept,
            records: old_records.keys().copied().collect(),
            tags: tags.iter().map(Tag::to_string).collect(),
            objects: unneeded.len(),
            object_bytes: unneeded.iter().map(|(_, _, size)| size).sum(),
            deletes: Deletes {
                tags,
                objects: (unneeded.into_iter())
                    .map(|(key, generation, _)| (key, generation))
                    .collect(),
                records: old_records.into_values().collect(),
            },
            live: Some(live),
        })
    }

    /// Deletes it, while nobody else changes the environment. Gives the tags that the
    /// registry does not let go.
    ///
    /// # Errors
    /// [`EnvironmentError::Lost`] if a deploy was faster; [`EnvironmentError::PruningStopped`]
    /// if somebody wished so, after which the environment is free.
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
            Ok(deleted) => {
                lease.commit(Some(generation.clone())).await?;
                match deleted.done < deleted.total {
                    true => Err(EnvironmentError::PruningStopped {
                        done: deleted.done,
                        total: deleted.total,
                    }),
                    false => Ok(deleted.tags_left),
                }
            }
            Err(error @ EnvironmentError::Lost { .. }) => Err(error),
            Err(error) => {
                lease.release().await;
                Err(error.interrupts(generation.reference.generation))
            }
        }
    }

    /// Once somebody wishes to stop, nothing more is deleted.
    async fn delete_all(
        &self,
        lease: &mut Lease<'_>,
        deletes: &Deletes,
    ) -> Result<Deleted, EnvironmentError> {
        let left = std::sync::Mutex::new(Vec::new());
        let done = AtomicUsize::new(0);
        let untag = async |tag: &Tag| {
            let deleted = match self.registry.delete_tag(tag).await {
                Ok(deleted) => deleted,
                // What may not be deleted only takes room.
                Err(RegistryError::Denied { .. }) => false,
                Err(error) => return Err(error.into()),
            };
            if !deleted {
                let mut left = left
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner);
                left.push(tag.to_string());
            }
            done.fetch_add(1, Ordering::Relaxed);
            Ok(())
        };
        let delete = async |(key, generation): &(ObjectKey, StorageGeneration)| {
            match self.bucket.delete(key, *generation).await {
                // Somebody needs it again.
                Ok(()) | Err(BucketError::ConditionFailed { .. }) => {}
                Err(error) => return Err(error.into()),
            }
            done.fetch_add(1, Ordering::Relaxed);
            Ok(())
        };
        let Deletes {
            tags,
            objects,
            records,
        } = deletes;
        lease.drive(self.at_once(tags.iter().map(untag))).await?;
        lease
            .drive(self.at_once(objects.iter().map(delete)))
            .await?;
        // The chain of parents must not get holes.
        let one_by_one = records
            .iter()
            .take_while(|_| !self.options.interruption.is_raised());
        lease.drive(stream::iter(one_by_one).then(delete)).await?;
        let mut tags_left = left.into_inner().unwrap_or_default();
        tags_left.sort();
        Ok(Deleted {
            tags_left,
            done: done.into_inner(),
            total: tags.len() + objects.len() + records.len(),
        })
    }

    /// Looks at all records of an environment that the bucket has, also those of deploys that
    /// died, in any order.
    async fn visit_records(
        &self,
        project: &Listing,
        environment: &EnvironmentKey,
        mut visit: impl FnMut(u64, GenerationRecord),
    ) -> Result<(), EnvironmentError> {
        let keys = record_keys(project, environment);
        let reads = keys.into_iter().map(|(number, (key, _))| async move {
            let read = self.bucket.read(&key).await?;
            Ok::<_, EnvironmentError>((number, key, read))
        });
        let mut reads = stream::iter(reads).buffer_unordered(RECORDS_AT_ONCE);
        while let Some((number, key, read)) = reads.try_next().await? {
            let Some(read) = read else { continue };
            let record = GenerationRecord::parse(&read.bytes, environment, key.as_str())?;
            record.refuse_newer()?;
            visit(number, record);
        }
        Ok(())
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

    /// The tags that keep a generation's images, as far as they are in this repository.
    fn retention_tags(&self, record: &GenerationRecord) -> Vec<String> {
        let images = record.images.iter();
        let here = images.filter(|image| self.elsewhere(image).is_none());
        here.map(|image| image.retention_tag.clone()).collect()
    }

    /// Those that the registry has: an earlier run may have taken some away.
    async fn tagged(
        &self,
        tags: impl Iterator<Item = &String>,
    ) -> Result<Vec<Tag>, EnvironmentError> {
        let asked = tags.map(async |tag| {
            let tag: Tag = tag.parse()?;
            let name = ManifestName::Tag(tag.clone());
            let found = self.registry.manifest_descriptor(&name).await?;
            Ok::<_, EnvironmentError>(found.map(|_| tag))
        });
        let found: Vec<_> = stream::iter(asked).buffered(PARALLEL).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }
}

/// The keys of an environment's records, by number.
fn record_keys(
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

/// Numbers of generations, those first that were deployed last.
fn last_deployed(history: &[Deployed], was_live: &BTreeSet<u64>, keep: usize) -> Vec<u64> {
    let mut seen = BTreeSet::new();
    let deployed = history.iter();
    let numbers = deployed.flat_map(|record| [Some(record.generation), record.rollback_of]);
    let there = numbers.flatten().filter(|number| was_live.contains(number));
    // The live one is the first.
    there
        .filter(|number| seen.insert(*number))
        .take(keep.max(1))
        .collect()
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
