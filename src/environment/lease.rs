//! The right to change `dags/`: HEAD in the state `applying`, written by us.
//!
//! It is renewed when half of it is used up. Whoever finds HEAD changed has
//! lost the right and stops: nothing more is started. The lease's end is
//! judged by others by the server's clock; we only measure how long ago our
//! last write was, so that no clock's setting counts.

use std::pin::pin;
use std::time::Duration;

use futures_util::{Stream, TryStreamExt as _};
use tokio::time::Instant;

use super::head::{Direction, Head, Intent, LiveGeneration};
use super::observe::SeenHead;
use super::record::RecordReference;
use super::{Environment, EnvironmentError};
use crate::bucket::{BucketError, StorageGeneration, WriteCondition};
use crate::interruption::Heeding;

/// HEAD, as long as it is ours.
pub(super) struct Lease<'e> {
    environment: &'e Environment,
    live: Option<LiveGeneration>,
    intent: Intent,
    head: StorageGeneration,
    renewed: Instant,
    /// From before HEAD is swapped until it is swapped back: a program that
    /// ended meanwhile would keep others out.
    _heeding: Heeding,
}

impl<'e> Lease<'e> {
    /// Swaps HEAD to `applying`, if it still is what was seen.
    ///
    /// # Errors
    /// [`EnvironmentError::Lost`] names who was faster. Any other error after
    /// which HEAD may have been swapped is [`EnvironmentError::Interrupted`].
    pub(super) async fn take(
        environment: &'e Environment,
        seen: Option<StorageGeneration>,
        live: Option<LiveGeneration>,
        intent: Intent,
    ) -> Result<Self, EnvironmentError> {
        let condition = seen.map_or(WriteCondition::Absent, WriteCondition::Unchanged);
        let generation = intent.reference.generation;
        let heeding = environment.options.interruption.heed();
        if environment.options.interruption.is_raised() {
            return Err(EnvironmentError::Stopped {
                done: 0,
                total: 0,
                live: live.map(|live| live.reference.generation),
            });
        }
        let started = Instant::now();
        let head = environment
            .write_head(live.clone(), Some(intent.clone()), condition)
            .await
            .map_err(|error| match error {
                EnvironmentError::Bucket(
                    BucketError::Unreachable { .. }
                    | BucketError::Unexpected { .. }
                    | BucketError::Damaged { .. }
                    | BucketError::Io { .. },
                ) => error.interrupts(generation),
                clear => clear,
            })?;
        Ok(Self {
            environment,
            live,
            intent,
            head,
            renewed: started,
            _heeding: heeding,
        })
    }

    /// The generation that is live once this is committed.
    pub(super) fn target(&self) -> Option<RecordReference> {
        match self.intent.direction {
            Direction::Forward => Some(self.intent.reference),
            Direction::Back => self.live.as_ref().map(|live| live.reference),
        }
    }

    /// The generation that is recorded as live until this is committed.
    pub(super) fn live(&self) -> Option<u64> {
        self.live.as_ref().map(|live| live.reference.generation)
    }

    fn length(&self) -> Duration {
        Duration::from_secs(self.intent.lease_seconds)
    }

    async fn renew(&mut self) -> Result<(), EnvironmentError> {
        let started = Instant::now();
        self.head = self
            .environment
            .write_head(
                self.live.clone(),
                Some(self.intent.clone()),
                WriteCondition::Unchanged(self.head),
            )
            .await?;
        self.renewed = started;
        Ok(())
    }

    /// Drives work to its end while keeping the lease alive; the first error ends both.
    ///
    /// Work goes on during a renewal, but not beyond the lease's end: then it
    /// stands still until the renewal shows that nobody took over. A renewal
    /// that has begun is always waited for, since it may have swapped HEAD.
    pub(super) async fn drive(
        &mut self,
        work: impl Stream<Item = Result<(), EnvironmentError>>,
    ) -> Result<(), EnvironmentError> {
        let mut work = pin!(work.try_for_each(|()| async { Ok(()) }));
        loop {
            let deadline = self.renewed + self.length();
            tokio::select! {
                result = &mut work => return result,
                () = tokio::time::sleep_until(self.renewed + self.length() / 2) => {}
            }
            let mut finished = None;
            let mut renewal = pin!(self.renew());
            loop {
                let may_work = finished.is_none() && Instant::now() < deadline;
                tokio::select! {
                    renewed = &mut renewal => break renewed?,
                    result = &mut work, if may_work => finished = Some(result),
                    () = tokio::time::sleep_until(deadline), if may_work => {}
                }
            }
            if let Some(result) = finished {
                return result;
            }
        }
    }

    /// Swaps HEAD to committed. If somebody else has carried the same change
    /// to its end meanwhile, that is as good.
    pub(super) async fn commit(self, live: Option<LiveGeneration>) -> Result<(), EnvironmentError> {
        let condition = WriteCondition::Unchanged(self.head);
        match self
            .environment
            .write_head(live.clone(), None, condition)
            .await
        {
            Err(lost @ EnvironmentError::Lost { .. }) => {
                let now = self.environment.read_head().await?.map(|seen| seen.head);
                let reference = |live: &Option<LiveGeneration>| live.as_ref().map(|l| l.reference);
                match now {
                    Some(Head {
                        applying: None,
                        live: now,
                        ..
                    }) if reference(&now) == reference(&live) => Ok(()),
                    _ => Err(lost),
                }
            }
            result => result.map(|_| ()),
        }
    }

    /// Lets others take over at once. Only a courtesy: the lease runs out anyway.
    pub(super) async fn release(self) {
        let intent = Intent {
            lease_seconds: 0,
            ..self.intent
        };
        let condition = WriteCondition::Unchanged(self.head);
        let _ = self
            .environment
            .write_head(self.live, Some(intent), condition)
            .await;
    }
}

impl Environment {
    /// A change that we begin or take over. A lease under a second would be
    /// over at once, and one of more than a day would only keep others out.
    pub(super) fn intent(&self, reference: RecordReference, direction: Direction) -> Intent {
        Intent {
            reference,
            direction,
            holder: self.options.holder.clone(),
            lease_seconds: self.options.lease.as_secs().clamp(1, 86_400),
        }
    }

    pub(super) async fn write_head(
        &self,
        live: Option<LiveGeneration>,
        applying: Option<Intent>,
        condition: WriteCondition,
    ) -> Result<StorageGeneration, EnvironmentError> {
        let head = Head::new(&self.key, live, applying, &self.options.holder);
        let bytes = head.to_bytes()?.into();
        match self.bucket.write(&self.key.head()?, bytes, condition).await {
            Ok(object) => Ok(object.generation),
            Err(BucketError::ConditionFailed { .. }) => Err(self.lost().await?),
            Err(error) => Err(error.into()),
        }
    }

    /// Who changed HEAD before us.
    async fn lost(&self) -> Result<EnvironmentError, EnvironmentError> {
        Ok(lost_against(self.read_head().await?))
    }
}

/// HEAD is not what we saw, but this.
pub(super) fn lost_against(now: Option<SeenHead>) -> EnvironmentError {
    match now {
        Some(seen) => EnvironmentError::Lost {
            state: seen.head.describe(),
            winner: seen.head.written_by,
        },
        None => EnvironmentError::Lost {
            winner: "somebody".to_owned(),
            state: "its HEAD.json was deleted".to_owned(),
        },
    }
}
