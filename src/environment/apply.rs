//! Makes a plan real.
//!
//! The order of writes, and why nothing is ever lost or half there:
//!
//! 1. the image's blobs, then its manifest, under the version's tag;
//! 2. at the same time, the bytes of new DAGs into `objects/` (create-only);
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

use futures_util::future::try_join;
use futures_util::{Stream, StreamExt as _, stream};

use super::clear::Condemned;
use super::head::Direction;
use super::lease::Lease;
use super::plan::Plan;
use super::record::{GenerationRecord, RecordReference};
use super::transition::{Transition, Upload};
use super::written::{Written, live_generation};
use super::{Environment, EnvironmentError, Live, PARALLEL};
use crate::bucket::{Listing, ObjectKey, StorageGeneration};
use crate::oci::Sha256Digest;
use crate::progress::{Event, Phase, Unit};
use crate::registry::PushReport;

/// What an apply did.
#[derive(Debug, Clone, Default)]
pub struct Applied {
    /// The generation that is live now.
    pub generation: u64,
    /// The generation that was live before.
    pub previous: Option<u64>,
    /// The same, if a rollback to it would change what is live now.
    pub undo: Option<u64>,
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

impl Plan {
    /// What [`Environment::apply`] would give, as far as that can be foreseen.
    ///
    /// # Errors
    /// The first of its obstacles.
    pub fn foreseen(self) -> Result<Applied, EnvironmentError> {
        if let Some(obstacle) = self.obstacles.into_iter().next() {
            return Err(obstacle);
        }
        let live = self.live.generation();
        let previous = live.map(|live| live.reference.generation);
        Ok(Applied {
            generation: previous.unwrap_or_default(),
            previous,
            image: match &self.draft {
                Some(draft) => Some(draft.image),
                None => live.map(|live| live.image),
            },
            rollback_of: self.draft.and_then(|draft| draft.rollback_of),
            ..Applied::default()
        })
    }
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
        let Some(mut draft) = plan.draft else {
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
        let bytes = std::mem::take(&mut draft.bytes);
        let ((push, manifests), ()) = try_join(
            self.provide_images(&plan.live, base, &draft),
            self.keep_bytes(bytes, base),
        )
        .await?;
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
        if let Err(error) = self.local.note_dags(&record, base).await {
            self.progress.report(Event::Warning(format!(
                "the DAG files of generation {} cannot be shared: {error}",
                reference.generation
            )));
        }
        let undo = base
            .filter(|base| base.image != record.image || !base.lasting().eq(record.dags.iter()));
        Ok(Applied {
            generation: reference.generation,
            previous,
            undo: undo.and(previous),
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
    pub(super) fn at_once<'s, W: Future + 's>(
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
