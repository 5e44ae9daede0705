//! Ends what a deploy that died has left unfinished. Its intent is in HEAD,
//! its record and the bytes of its DAGs are in the bucket, its image in the
//! registry; so anybody can go on, once the lease has run out.

use std::sync::Arc;

use super::head::{Direction, Intent};
use super::lease::Lease;
use super::record::GenerationRecord;
use super::transition::Transition;
use super::written::Written;
use super::{Environment, EnvironmentError, Live};
use crate::progress::Event;

/// What became of a change that was left unfinished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settled {
    /// The generation that was being applied.
    pub generation: u64,
    /// Whether it is live now, or what was live before it.
    pub direction: Direction,
}

impl Environment {
    /// If a change was left unfinished and its lease has run out, carries it
    /// to its end, or back where its image or its DAGs are gone; then looks again.
    ///
    /// # Errors
    /// [`EnvironmentError::Held`] while the lease runs;
    /// [`EnvironmentError::Interrupted`] if it cannot be ended either.
    pub async fn settle(&self, live: Live) -> Result<(Live, Option<Settled>), EnvironmentError> {
        let Some(intent) = self.expired_intent(&live)? else {
            return Ok((live, None));
        };
        let settled = self.end(&live, &intent, None).await?;
        self.progress
            .report(Event::Warning(match settled.direction {
                Direction::Forward => format!(
                    "generation {}, left unfinished by {}, was carried to its end",
                    settled.generation, intent.holder
                ),
                Direction::Back => format!(
                    "generation {}, left unfinished by {}, was taken back",
                    settled.generation, intent.holder
                ),
            }));
        let image = live.image.map(|(image, _)| image);
        Ok((self.observe(image.as_ref()).await?, Some(settled)))
    }

    /// Carries an unfinished change to its end; `None` if there is none.
    ///
    /// # Errors
    /// As [`Environment::settle`], and what is missing if it cannot be carried on.
    pub async fn resume(&self) -> Result<Option<Settled>, EnvironmentError> {
        self.end_unfinished(Direction::Forward).await
    }

    /// Takes an unfinished change back; `None` if there is none.
    ///
    /// # Errors
    /// As [`Environment::settle`].
    pub async fn abort(&self) -> Result<Option<Settled>, EnvironmentError> {
        self.end_unfinished(Direction::Back).await
    }

    async fn end_unfinished(
        &self,
        direction: Direction,
    ) -> Result<Option<Settled>, EnvironmentError> {
        let live = self.observe(None).await?;
        match self.expired_intent(&live)? {
            Some(intent) => self.end(&live, &intent, Some(direction)).await.map(Some),
            None => Ok(None),
        }
    }

    fn expired_intent(&self, live: &Live) -> Result<Option<Intent>, EnvironmentError> {
        let Some(seen) = &live.seen else {
            return Ok(None);
        };
        let Some(intent) = &seen.head.applying else {
            return Ok(None);
        };
        seen.head.refuse_newer()?;
        match intent.remaining(seen.updated, seen.server_time) {
            Some(remaining) => Err(EnvironmentError::Held {
                holder: intent.holder.clone(),
                generation: intent.reference.generation,
                remaining,
            }),
            None => Ok(Some(intent.clone())),
        }
    }

    /// Without a direction: the intent's own, but back if forward is impossible.
    async fn end(
        &self,
        live: &Live,
        intent: &Intent,
        direction: Option<Direction>,
    ) -> Result<Settled, EnvironmentError> {
        let generation = intent.reference.generation;
        let ended = self.try_to_end(live, intent, direction).await;
        let direction = ended.map_err(|error| error.interrupts(generation))?;
        Ok(Settled {
            generation,
            direction,
        })
    }

    async fn try_to_end(
        &self,
        live: &Live,
        intent: &Intent,
        wanted: Option<Direction>,
    ) -> Result<Direction, EnvironmentError> {
        let base = self.live_record(live).await?;
        let next = self.load(&intent.reference).await?;
        for record in base.iter().chain([&next]) {
            record.refuse_newer()?;
        }
        let mut live = live.clone();
        let records = [base.as_deref(), Some(next.as_ref())];
        self.widen(&mut live.listing, &records).await?;
        let live = &live;
        // Whoever went back has written files of the base anew, and noted nowhere where.
        let noted = live
            .generation()
            .filter(|_| intent.direction == Direction::Forward);
        let written = Written::of(base.as_deref(), noted);
        let transition = |direction| match direction {
            Direction::Forward => Transition {
                target: Some(&next),
                base: base.as_deref(),
                abandoned: None,
                written: Some(&written),
                condemned: None,
            },
            Direction::Back => Transition {
                target: base.as_deref(),
                base: base.as_deref(),
                abandoned: Some(&next),
                written: None,
                condemned: None,
            },
        };
        let direction = match (wanted, intent.direction) {
            (Some(direction), _) => direction,
            (None, Direction::Back) => Direction::Back,
            (None, Direction::Forward) => {
                match self
                    .obstacles(live, &next, &transition(Direction::Forward))
                    .await?
                {
                    None => Direction::Forward,
                    Some(_) => Direction::Back,
                }
            }
        };
        if wanted == Some(Direction::Forward)
            && let Some(obstacle) = self.obstacles(live, &next, &transition(direction)).await?
        {
            return Err(obstacle);
        }
        if let (Direction::Back, Some(base)) = (direction, &base) {
            let (lost, _) = self.lost_dags(base, &live.listing).await?;
            refuse_lost(lost)?;
        }
        let transition = transition(direction);
        // What cannot be done is found out before anybody else's intent is taken over.
        let steps = transition.steps(&live.listing, self.options.restore_drift);
        self.unless_lost(live, steps).await?;
        let taken = self.intent(intent.reference, direction);
        let seen = live.seen.as_ref().and_then(|seen| seen.generation);
        let lease = Lease::take(self, seen, live.generation().cloned(), taken).await?;
        self.carry_out(lease, &transition, &live.listing, intent.reference)
            .await?;
        Ok(direction)
    }

    /// Why a change cannot be carried on; drift is not among the reasons, since it bars both ways.
    async fn obstacles(
        &self,
        live: &Live,
        next: &Arc<GenerationRecord>,
        transition: &Transition<'_>,
    ) -> Result<Option<EnvironmentError>, EnvironmentError> {
        let steps = transition.steps(&live.listing, self.options.restore_drift);
        match self.unless_lost(live, steps).await {
            Ok(_) => {}
            Err(error @ EnvironmentError::ForeignKeys { .. }) => return Ok(Some(error)),
            Err(error) => return Err(error),
        }
        for image in &next.images {
            if let Some(elsewhere) = self.elsewhere(image) {
                // What is live needs it too, wherever it is.
                if transition
                    .base
                    .is_some_and(|base| base.images.contains(image))
                {
                    continue;
                }
                return Ok(Some(elsewhere));
            }
            if !self.has_image(&image.digest).await? {
                return Ok(Some(self.image_missing(&image.digest)));
            }
        }
        let (lost, _) = self.lost_dags(next, &live.listing).await?;
        Ok(refuse_lost(lost).err())
    }
}

fn refuse_lost(lost: Vec<String>) -> Result<(), EnvironmentError> {
    match lost.into_iter().next() {
        Some(what) => Err(EnvironmentError::LostObject { what }),
        None => Ok(()),
    }
}
