//! What a deploy would change. [`compare`] is pure; [`Environment::plan`] fetches
//! what it needs.

use std::sync::Arc;

use bytes::Bytes;

use super::clear::Condemned;
use super::compare::{Compared, compare};
use super::desired::{Desired, DesiredDags};
use super::draft::{Draft, ImageSource};
use super::head::listing_digest;
use super::images::known_manifest;
use super::lease::lost_against;
use super::record::{GenerationRecord, RecordedCommit, state_digest};
use super::summary::PlanSummary;
use super::{Environment, EnvironmentError, Live};
use crate::registry::{Previous, PushForecast, forecast_push};
use forebay_store::ObjectDigest;

/// Whether the commit `older` is contained in `newer`; `None` if nobody can tell.
pub type IsAncestor<'a> = &'a (dyn Fn(&str, &str) -> Option<bool> + Sync);

/// What a deploy or a rollback would do.
pub struct Plan {
    pub(super) live: Live,
    pub(super) base: Option<Arc<GenerationRecord>>,
    /// Absent if everything is as it is to be.
    pub(super) draft: Option<Draft>,
    /// What goes although it is not ours.
    pub(super) condemned: Condemned,
    /// For people.
    pub summary: PlanSummary,
    pub(super) obstacles: Vec<EnvironmentError>,
}

impl Plan {
    /// Whether nothing is to be done.
    pub fn is_unchanged(&self) -> bool {
        self.draft.is_none() && self.condemned.is_empty()
    }

    /// Adds a reason why it may not be applied.
    pub fn bar(&mut self, obstacle: EnvironmentError) {
        self.obstacles.push(obstacle);
    }

    /// Somebody has agreed to delete what belongs to others.
    pub fn confirm(&mut self) {
        self.obstacles
            .retain(|obstacle| !matches!(obstacle, EnvironmentError::Unconfirmed { .. }));
    }

    /// Why [`Environment::apply`] will refuse it: drift, keys of others, an older commit.
    pub fn obstacles(&self) -> &[EnvironmentError] {
        &self.obstacles
    }

    /// The same, for good.
    pub fn into_obstacles(self) -> Vec<EnvironmentError> {
        self.obstacles
    }

    /// Adds what only whoever has built knows: the nearest ancestors of the commit, newest
    /// first, and what is in the image. Both are only for the record.
    pub fn note(&mut self, ancestors: Vec<String>, contents: Option<Bytes>) {
        let Some(draft) = &mut self.draft else {
            return;
        };
        draft.ancestors = ancestors;
        draft.ancestors.truncate(GenerationRecord::ANCESTORS);
        if let Some(contents) = contents {
            let digest = ObjectDigest::of(&contents);
            draft.bytes.insert(digest, contents);
            draft.contents.insert(draft.image, digest);
        }
    }

    /// What the environment was at when this was planned.
    pub fn live(&self) -> &Live {
        &self.live
    }
}

impl Environment {
    /// Compares what is live with what is to be live.
    ///
    /// If HEAD and the listing alone say that nothing has changed, no record is read.
    ///
    /// A plan that may not be applied is a plan all the same: see [`Plan::obstacles`].
    ///
    /// # Errors
    /// [`EnvironmentError::EmptySet`] and [`EnvironmentError::DuplicateKey`] if
    /// nothing can be planned; [`EnvironmentError::Held`] if a change is being
    /// applied: see [`Environment::settle`].
    pub async fn plan(
        &self,
        mut live: Live,
        desired: Desired,
        is_ancestor: IsAncestor<'_>,
    ) -> Result<Plan, EnvironmentError> {
        self.refuse_unsettled(&live)?;
        if matches!(&desired.dags, DesiredDags::All(dags) if dags.is_empty()) {
            return Err(EnvironmentError::EmptySet);
        }
        let image = desired.image();
        if live.generation().is_some_and(|live| live.image == image)
            && live.image_is_present(&image).is_none()
        {
            live.image = Some((image, self.has_image(&image).await?));
        }
        let clears = self.options.clear_folder || !live.lost.is_empty();
        if let Some(summary) = unchanged_by_head(&live, &desired).filter(|_| !clears) {
            return Ok(Plan {
                live,
                base: None,
                draft: None,
                summary,
                condemned: Condemned::default(),
                obstacles: Vec::new(),
            });
        }
        let base = self.live_record(&live).await?;
        if let Some(base) = &base {
            base.refuse_newer()?;
        }
        self.widen(&mut live.listing, &[base.as_deref()]).await?;
        let draining = self.draining(base.as_deref(), &desired).await?;
        let condemned = self.condemned(base.as_deref(), &live);
        let Compared {
            draft,
            summary,
            mut obstacles,
        } = compare(
            base.as_deref(),
            &live,
            desired,
            draining,
            &condemned,
            self.registry.repository(),
            &self.options,
        )?;
        if let (Some(draft), Some(base)) = (&draft, base.as_deref())
            && !self.options.allow_older
        {
            obstacles.extend(older(base, draft.git.as_ref(), is_ancestor));
            obstacles.extend(rolled_away(base, draft));
        }
        obstacles.extend(self.unconfirmed(&condemned, &live).await?);
        Ok(Plan {
            obstacles: self.unless_lost_all(&live, obstacles).await?,
            condemned,
            live,
            base,
            draft,
            summary,
        })
    }

    /// What the registry would get. Only asks, and nothing if no image is to be pushed.
    ///
    /// # Errors
    /// See [`EnvironmentError`].
    pub async fn forecast(&self, plan: &Plan) -> Result<Option<PushForecast>, EnvironmentError> {
        let Some(draft) = &plan.draft else {
            return Ok(None);
        };
        let ImageSource::Push(image, _) = &draft.source else {
            return Ok(None);
        };
        let previous = known_manifest(&plan.live, &draft.image);
        let previous = previous.as_ref().map(|previous| {
            let fetched = plan.live.fetched(previous).map(Previous::Fetched);
            fetched.unwrap_or(Previous::Named(previous))
        });
        let registry = self.registry.as_ref();
        Ok(Some(forecast_push(registry, image, previous).await?))
    }

    /// Whether HEAD and the listing alone say that nothing would change.
    pub fn is_unchanged(&self, live: &Live, desired: &Desired) -> bool {
        unchanged_by_head(live, desired).is_some()
    }

    /// HEAD and the listing are read at the same time, so that what somebody has
    /// deployed in between looks like drift: HEAD tells the two apart.
    pub(super) async fn unless_lost<T>(
        &self,
        live: &Live,
        result: Result<T, EnvironmentError>,
    ) -> Result<T, EnvironmentError> {
        let Err(EnvironmentError::Drift { .. } | EnvironmentError::ForeignKeys { .. }) = &result
        else {
            return result;
        };
        let now = self.read_head().await?;
        let seen = live.seen.as_ref().and_then(|seen| seen.generation);
        if now.as_ref().and_then(|now| now.generation) == seen {
            return match result {
                Err(error) => Err(self.naming_owners(error).await),
                result => result,
            };
        }
        Err(lost_against(now))
    }

    /// The same for each of several obstacles.
    pub(super) async fn unless_lost_all(
        &self,
        live: &Live,
        obstacles: Vec<EnvironmentError>,
    ) -> Result<Vec<EnvironmentError>, EnvironmentError> {
        let mut confirmed = Vec::new();
        for obstacle in obstacles {
            match self.unless_lost::<()>(live, Err(obstacle)).await {
                Err(lost @ EnvironmentError::Lost { .. }) => return Err(lost),
                Err(obstacle) => confirmed.push(obstacle),
                Ok(()) => {}
            }
        }
        Ok(confirmed)
    }

    /// Refuses while a change is being applied, or if a newer program has been here.
    pub(super) fn refuse_unsettled(&self, live: &Live) -> Result<(), EnvironmentError> {
        if let Some(head) = live.head() {
            head.refuse_newer()?;
        }
        match live
            .seen
            .as_ref()
            .zip(live.head().and_then(|head| head.applying.as_ref()))
        {
            None => Ok(()),
            Some((seen, intent)) => Err(EnvironmentError::Held {
                holder: intent.holder.clone(),
                generation: intent.reference.generation,
                remaining: intent
                    .remaining(seen.updated, seen.server_time)
                    .unwrap_or_default(),
            }),
        }
    }
}

/// The shortest way to "nothing to do": the same image and identities, all of
/// `dags/` as it was when the live generation was verified.
fn unchanged_by_head(live: &Live, desired: &Desired) -> Option<PlanSummary> {
    let DesiredDags::All(dags) = &desired.dags else {
        return None;
    };
    let generation = live.generation()?;
    let image = desired.image();
    let state = state_digest(
        &image,
        dags.iter()
            .map(|dag| (&dag.workflow, &dag.identity, &image)),
    );
    // A commit that has all that is live takes the place of one that had not.
    let is_committed = generation.dirty && desired.git.as_ref().is_some_and(|git| !git.dirty);
    let unchanged = generation.state == state
        && !generation.draining
        && !is_committed
        && generation.listing == listing_digest(&live.listing)
        && live.image_is_present(&image) == Some(true);
    unchanged.then(|| PlanSummary {
        reused: dags.iter().map(|dag| dag.workflow.clone()).collect(),
        foreign: live.listing.objects.len().saturating_sub(dags.len()),
        ..PlanSummary::default()
    })
}

/// A rollback holds the environment against what it led away from: whatever still
/// builds the same finds that somebody decided against it.
fn rolled_away(base: &GenerationRecord, draft: &Draft) -> Option<EnvironmentError> {
    let held = base.rolled_away.contains(&draft.state());
    held.then(|| EnvironmentError::RolledAway {
        generation: base.generation,
        holder: base.created_by.clone(),
    })
}

/// An older commit does not overwrite a newer one. Where git does not know the live commit,
/// because the clone is older, the record tells.
fn older(
    base: &GenerationRecord,
    ours: Option<&RecordedCommit>,
    is_ancestor: IsAncestor<'_>,
) -> Option<EnvironmentError> {
    let (Some(live), Some(ours)) = (&base.git, ours) else {
        return None;
    };
    let older = live.commit != ours.commit
        && is_ancestor(&ours.commit, &live.commit)
            .unwrap_or_else(|| base.ancestors.contains(&ours.commit));
    older.then(|| EnvironmentError::OlderCommit {
        generation: base.generation,
        live: live.commit.clone(),
        ours: ours.commit.clone(),
    })
}
