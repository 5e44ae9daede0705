//! Makes a plan real.
//!
//! The order of writes, and why nothing is ever lost or half there:
//!
//! 1. the image's blobs, then its manifest, under the version's tag;
//! 2. the bytes of new DAGs into `objects/` (create-only);
//! 3. the generation's record (create-only): this claims its number;
//! 4. the image's retention tag, which has that number;
//! 5. HEAD to `applying` (compare-and-swap). Until here nothing can be seen,
//!    and the loser of two deploys ends here;
//! 6. the version's tag, where files name their image by it and it is not on
//!    that image; then `dags/`: new files, then changed ones, then, last, those that leave,
//!    each under the precondition that it is still what we saw;
//! 7. the listing again: everything is as it was to be;
//! 8. HEAD to committed.
//!
//! Killed after 5, all that is needed to go on, or back, is in the bucket and
//! the registry: see [`Environment::settle`].

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};

use super::clear::Condemned;
use super::head::{Direction, LiveGeneration, listing_digest};
use super::key::LAST_GENERATION;
use super::lease::Lease;
use super::plan::{Draft, Plan};
use super::record::{GenerationRecord, RecordReference, RecordedImage};
use super::transition::{Transition, Upload};
use super::written::{Written, storage_generations};
use super::{Environment, EnvironmentError, Live};
use crate::bucket::{BucketError, Listing, ObjectKey, StorageGeneration, WriteCondition};
use crate::oci::Sha256Digest;
use crate::progress::{Event, Phase, Unit};
use crate::registry::PushReport;
use forebay_store::ObjectDigest;

/// How many objects are written at the same time.
pub(super) const PARALLEL: usize = 16;

/// How often somebody else may claim the number that we were about to take.
const CLAIMS: usize = 20;

/// What an apply did.
#[derive(Debug, Clone, Default)]
pub struct Applied {
    /// The generation that is live now.
    pub generation: u64,
    /// The generation that was live before.
    pub previous: Option<u64>,
    /// Whether anything was written at all.
    pub changed: bool,
    /// The live image; absent in an environment where nothing ever was.
    pub image: Option<Sha256Digest>,
    /// The generation whose set is live again, after a rollback.
    pub rollback_of: Option<u64>,
    /// What the registry got.
    pub push: Option<PushReport>,
    /// How many files were written to `dags/`.
    pub uploaded: usize,
    /// How many files were deleted from `dags/`.
    pub deleted: usize,
}

impl Environment {
    /// Makes a plan real, in the order stated above, and verifies it.
    ///
    /// # Errors
    /// The first of the plan's obstacles, if it has any;
    /// [`EnvironmentError::Lost`] if another deploy was faster;
    /// [`EnvironmentError::Interrupted`] if it stopped after `dags/` may have
    /// begun to change; otherwise nothing visible has changed.
    pub async fn apply(&self, plan: Plan) -> Result<Applied, EnvironmentError> {
        if let Some(obstacle) = plan.obstacles.into_iter().next() {
            return Err(obstacle);
        }
        let previous = plan.live.generation().map(|live| live.reference.generation);
        if plan.live.foreseen {
            return Err(EnvironmentError::Foreseen);
        }
        let Some(draft) = plan.draft else {
            if let (false, Some(base)) = (plan.condemned.is_empty(), &plan.base) {
                return self.clear(&plan.live, base, &plan.condemned).await;
            }
            return Ok(Applied {
                generation: previous.unwrap_or_default(),
                previous,
                image: plan.live.generation().map(|live| live.image),
                ..Applied::default()
            });
        };
        let base = plan.base.as_deref();
        let (push, manifests) = self.provide_images(&plan.live, base, &draft).await?;
        self.keep_bytes(&draft, base).await?;
        let (record, reference) = self.claim_number(&plan.live, &draft).await?;
        self.retain_images(&record, &manifests).await?;

        let intent = self.intent(reference, Direction::Forward);
        let seen = plan.live.seen.as_ref().and_then(|seen| seen.generation);
        let lease = Lease::take(self, seen, plan.live.generation().cloned(), intent).await?;
        let written = Written::of(base, plan.live.generation());
        let transition = Transition {
            target: Some(&record),
            base,
            abandoned: None,
            written: Some(&written),
            condemned: Some(&plan.condemned),
        };
        let (uploaded, deleted) = self
            .carry_out(lease, &transition, &plan.live.listing, reference)
            .await?;
        Ok(Applied {
            generation: reference.generation,
            previous,
            changed: true,
            image: Some(record.image),
            rollback_of: record.rollback_of,
            push,
            uploaded,
            deleted,
        })
    }

    /// Steps 5 to 8 for a set that is live already: only others' objects go.
    async fn clear(
        &self,
        live: &Live,
        base: &GenerationRecord,
        condemned: &Condemned,
    ) -> Result<Applied, EnvironmentError> {
        let Some(committed) = live.generation().cloned() else {
            return Ok(Applied::default());
        };
        let reference = committed.reference;
        let intent = self.intent(reference, Direction::Forward);
        let seen = live.seen.as_ref().and_then(|seen| seen.generation);
        let image = committed.image;
        let lease = Lease::take(self, seen, Some(committed), intent).await?;
        let transition = Transition {
            target: Some(base),
            base: Some(base),
            abandoned: None,
            written: None,
            condemned: Some(condemned),
        };
        let (uploaded, deleted) = self
            .carry_out(lease, &transition, &live.listing, reference)
            .await?;
        Ok(Applied {
            generation: reference.generation,
            previous: Some(reference.generation),
            changed: true,
            image: Some(image),
            uploaded,
            deleted,
            ..Applied::default()
        })
    }

    /// Step 2. What an earlier generation already has there is not written again.
    pub(super) async fn keep_bytes(
        &self,
        draft: &Draft,
        base: Option<&GenerationRecord>,
    ) -> Result<(), EnvironmentError> {
        self.local
            .put(draft.bytes.values().cloned().collect())
            .await?;
        let known = |digest: &ObjectDigest| {
            let mut dags = base.into_iter().flat_map(GenerationRecord::objects);
            dags.any(|object| object == *digest)
        };
        let new = draft.bytes.iter().filter(|(digest, _)| !known(digest));
        let writes = new.map(|(digest, bytes)| self.keep_object(digest, bytes));
        let mut writes = stream::iter(writes).buffer_unordered(PARALLEL);
        while let Some(written) = writes.next().await {
            written?;
        }
        Ok(())
    }

    async fn keep_object(
        &self,
        digest: &ObjectDigest,
        bytes: &Bytes,
    ) -> Result<(), EnvironmentError> {
        let key = self.key.object(digest)?;
        match self
            .bucket
            .write(&key, bytes.clone(), WriteCondition::Absent)
            .await
        {
            Ok(_) => Ok(()),
            // Somebody wrote the same bytes long ago. They are written again, so that whoever
            // deletes what no record needs finds that they are not what he saw.
            Err(BucketError::ConditionFailed { .. }) => match self.bucket.read(&key).await? {
                Some(read) => {
                    let seen = WriteCondition::Unchanged(read.object.generation);
                    match self.bucket.write(&key, bytes.clone(), seen).await {
                        Ok(_) | Err(BucketError::ConditionFailed { .. }) => Ok(()),
                        Err(error) => Err(error.into()),
                    }
                }
                None => {
                    let write = self
                        .bucket
                        .write(&key, bytes.clone(), WriteCondition::Absent);
                    write.await.map(|_| ()).map_err(EnvironmentError::from)
                }
            },
            Err(error) => Err(error.into()),
        }
    }

    /// Step 3. A number that a dead deploy has left its record at is passed over.
    pub(super) async fn claim_number(
        &self,
        live: &Live,
        draft: &Draft,
    ) -> Result<(GenerationRecord, RecordReference), EnvironmentError> {
        let parent = live.generation().map(|live| live.reference);
        let next = |number: u64| match number {
            ..LAST_GENERATION => Ok(number + 1),
            last => Err(EnvironmentError::NumbersTaken { last }),
        };
        let mut number = next(parent.map_or(0, |parent| parent.generation))?;
        for _ in 0..CLAIMS {
            let record = self.record(draft, number, parent)?;
            let bytes = Bytes::from(record.to_bytes()?);
            let reference = RecordReference {
                generation: number,
                record: ObjectDigest::of(&bytes),
            };
            let key = self.key.generation(number)?;
            let write = self
                .bucket
                .write(&key, bytes.clone(), WriteCondition::Absent);
            match write.await {
                Ok(_) => {
                    self.local.put(vec![bytes]).await?;
                    return Ok((record, reference));
                }
                Err(BucketError::ConditionFailed { .. }) => {
                    let taken = self.numbers().await?.into_iter().max();
                    number = next(number.max(taken.unwrap_or_default()))?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(EnvironmentError::NumbersTaken { last: number })
    }

    pub(super) fn record(
        &self,
        draft: &Draft,
        number: u64,
        parent: Option<RecordReference>,
    ) -> Result<GenerationRecord, EnvironmentError> {
        let tag = self.key.retention_tag(number)?;
        let repository = self.registry.repository().to_string();
        let new = draft.untagged().into_iter().enumerate();
        let new = new.map(|(position, digest)| RecordedImage {
            digest,
            repository: repository.clone(),
            // Only a rollback to several images that have all lost their tags needs more than one.
            retention_tag: match position {
                0 => tag.to_string(),
                _ => format!("{tag}.{position}"),
            },
            contents: draft.contents_of(&digest),
        });
        let mut images: Vec<_> = new.chain(draft.retained.iter().cloned()).collect();
        images.sort_by_key(|image| image.digest);
        Ok(GenerationRecord {
            schema: GenerationRecord::SCHEMA,
            project: self.key.project.clone(),
            environment: self.key.environment.clone(),
            generation: number,
            parent,
            action: draft.action,
            rollback_of: draft.rollback_of,
            version: draft.version.clone(),
            git: draft.git.clone(),
            ancestors: draft.ancestors.clone(),
            rolled_away: draft.rolled_away.clone(),
            created_at: self.clock.now(),
            created_by: self.options.holder.clone(),
            program: concat!("forebay ", env!("CARGO_PKG_VERSION")).to_owned(),
            image: draft.image,
            images,
            dags: draft.dags.clone(),
        })
    }

    /// Steps 6 to 8, under a lease. Gives the numbers of files written and deleted.
    pub(super) async fn carry_out(
        &self,
        mut lease: Lease<'_>,
        transition: &Transition<'_>,
        listing: &Listing,
        applying: RecordReference,
    ) -> Result<(usize, usize), EnvironmentError> {
        let target = transition.target.zip(lease.target());
        let outcome = match self.change_dags(&mut lease, transition, listing).await {
            Ok((listing, counts)) => {
                let live = target.map(|(target, reference)| {
                    live_generation(target, reference, &self.seen_next(target, listing))
                });
                lease.commit(live).await.map(|()| counts)
            }
            // Whoever took the lease from us decides now.
            Err(error @ EnvironmentError::Lost { .. }) => Err(error),
            Err(error) => {
                lease.release().await;
                Err(error)
            }
        };
        let counts = outcome.map_err(|error| error.interrupts(applying.generation))?;
        if let Some((target, reference)) = target
            && let Err(error) = self.remember(&reference, target).await
        {
            self.progress.report(Event::Warning(format!(
                "generation {} is live, but this machine could not take note of it: {error}",
                target.generation
            )));
        }
        Ok(counts)
    }

    /// Steps 6 and 7.
    async fn change_dags(
        &self,
        lease: &mut Lease<'_>,
        transition: &Transition<'_>,
        listing: &Listing,
    ) -> Result<(Listing, (usize, usize)), EnvironmentError> {
        let steps = transition.steps(listing, self.options.restore_drift)?;
        if let Some(target) = transition.target {
            let tags = self.place_version_tags(target);
            lease.drive(stream::once(tags)).await?;
        }
        let counts = (steps.create.len() + steps.replace.len(), steps.delete.len());
        self.progress.report(Event::Started {
            phase: Phase::Upload,
            total: Some(steps.count() as u64),
            unit: Unit::Items,
        });
        let done = AtomicUsize::new(0);
        for uploads in [&steps.create, &steps.replace] {
            let writes = uploads.iter().map(|upload| self.upload(upload, &done));
            lease.drive(self.at_once(writes)).await?;
        }
        let deletes = steps.delete.iter();
        let deletes = deletes.map(|(key, generation)| self.delete(key, *generation, &done));
        lease.drive(self.at_once(deletes)).await?;
        let (done, total) = (done.into_inner(), steps.count());
        // Where all is done, the quickest end is the commit.
        if done < total {
            let live = lease.live();
            return Err(EnvironmentError::Stopped { done, total, live });
        }
        self.progress.report(Event::Finished {
            phase: Phase::Upload,
            summary: format!("{} written, {} deleted", counts.0, counts.1),
        });

        self.progress.report(Event::Started {
            phase: Phase::Verify,
            total: None,
            unit: Unit::Items,
        });
        let listing = self.list_dags(&transition.records()).await?;
        transition.verify(&listing)?;
        self.progress.report(Event::Finished {
            phase: Phase::Verify,
            summary: format!(
                "{} DAG files are live",
                transition.target.map_or(0, |target| target.dags.len())
            ),
        });
        Ok((listing, counts))
    }

    /// Some at a time. Once somebody wishes to stop, none is begun any more; those that are on
    /// their way come to their end.
    fn at_once<'s, W: Future + 's>(
        &'s self,
        work: impl Iterator<Item = W> + 's,
    ) -> impl Stream<Item = W::Output> + 's {
        let work = work.take_while(|_| !self.options.interruption.is_raised());
        stream::iter(work).buffer_unordered(PARALLEL)
    }

    async fn upload(
        &self,
        upload: &Upload<'_>,
        done: &AtomicUsize,
    ) -> Result<(), EnvironmentError> {
        let bytes = self.dag_bytes(upload.dag).await?;
        self.bucket
            .write(upload.key, bytes, upload.condition)
            .await?;
        self.advance(done);
        Ok(())
    }

    async fn delete(
        &self,
        key: &ObjectKey,
        generation: StorageGeneration,
        done: &AtomicUsize,
    ) -> Result<(), EnvironmentError> {
        self.bucket.delete(key, generation).await?;
        self.advance(done);
        Ok(())
    }

    fn advance(&self, done: &AtomicUsize) {
        done.fetch_add(1, Ordering::Relaxed);
        self.progress.report(Event::Advanced {
            phase: Phase::Upload,
            amount: 1,
        });
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
        draining: target.is_draining(),
        written: storage_generations(target, listing),
    }
}
