//! An earlier set again, as a new generation. It proves first that everything
//! it needs is there, and never builds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::clear::Condemned;
use super::draft::{Draft, ImageSource};
use super::plan::Plan;
use super::proof::Proof;
use super::record::{Action, GenerationRecord};
use super::returning::{Restarted, RollbackStart};
use super::summary::summarise;
use super::{Environment, EnvironmentError, Live, Status};

/// How many generations are tried when those that can be had are to be named.
const LOOK_BACK: usize = 10;

/// The generations between what is live and a target, newest first.
type Passed = Vec<Arc<GenerationRecord>>;

/// A generation that a rollback could lead to.
#[derive(Debug, Clone)]
pub struct RollbackTarget {
    /// The generation.
    pub record: Arc<GenerationRecord>,
    /// What is gone, in words. If nothing is, the generation can be restored.
    pub missing: Vec<String>,
}

impl Environment {
    /// Plans the way back to `target`, or to the set before the live one. If
    /// the live generation is itself a rollback, "before" is seen from the
    /// generation it restored, so that one rollback after another leads
    /// further back and never forth to what was rolled away.
    ///
    /// # Errors
    /// [`EnvironmentError::NoRollbackTarget`] and
    /// [`EnvironmentError::RollbackUnavailable`] name the generations that can be had.
    pub async fn plan_rollback(
        &self,
        live: Live,
        target: Option<u64>,
    ) -> Result<Plan, EnvironmentError> {
        self.plan_rollback_with(live, target, RollbackStart::Exact)
            .await
    }

    /// The same with a say about the start of DAGs that come back.
    ///
    /// # Errors
    /// As [`Environment::plan_rollback`]; a DAG whose start only the project's own code can
    /// tell is unavailable with another.
    pub async fn plan_rollback_with(
        &self,
        mut live: Live,
        target: Option<u64>,
        start: RollbackStart,
    ) -> Result<Plan, EnvironmentError> {
        self.refuse_unsettled(&live)?;
        let base = self.live_record(&live).await?;
        let found = match &base {
            Some(base) => self.find_target(base, target).await?,
            None => None,
        };
        let Some((found, passed)) = found else {
            return Err(EnvironmentError::NoRollbackTarget {
                generation: target,
                usable: self.usable(&live).await?,
            });
        };
        let records = [base.as_deref(), Some(found.as_ref())];
        for record in records.into_iter().flatten() {
            record.refuse_newer()?;
        }
        self.widen(&mut live.listing, &records).await?;
        let mut proof = self.prove(&found, &live.listing).await?;
        let mut restarted = Vec::new();
        if let (RollbackStart::At(at), true) = (start, proof.missing.is_empty()) {
            let base = base.as_deref();
            (restarted, proof.missing) = self.restarted(&found, base, at).await?;
        }
        if !proof.missing.is_empty() {
            return Err(EnvironmentError::RollbackUnavailable {
                generation: found.generation,
                missing: proof.missing,
                usable: self.usable(&live).await?,
            });
        }
        let returning = match start {
            RollbackStart::Exact => self.returning(&found, &passed).await?,
            RollbackStart::At(_) => Vec::new(),
        };
        let is_whole = proof.lost.is_empty();
        let reclaimed = std::mem::take(&mut proof.reclaimed);
        let mut draft = draft(&found, &passed, proof);
        // The bucket gets back what it has lost.
        for object in reclaimed {
            draft.bytes.insert(object, self.object(object).await?);
        }
        for Restarted {
            was,
            key,
            dag,
            bytes,
        } in restarted
        {
            draft.dags.remove(&was);
            draft.bytes.insert(dag.object, bytes);
            draft.dags.insert(key, dag);
        }
        let base_record = base.as_deref();
        let (mut summary, obstacles) = summarise(
            base_record,
            &live,
            &draft,
            &Condemned::default(),
            &self.options,
        );
        summary.returning = returning;
        let same =
            base_record.is_some_and(|base| base.image == draft.image && base.dags == draft.dags);
        let unchanged = same && summary.restored.is_empty() && is_whole;
        Ok(Plan {
            obstacles: self.unless_lost_all(&live, obstacles).await?,
            condemned: Condemned::default(),
            live,
            base,
            draft: (!unchanged).then_some(draft),
            summary,
        })
    }

    /// The target, and the generations that came after it, newest first.
    async fn find_target(
        &self,
        base: &Arc<GenerationRecord>,
        target: Option<u64>,
    ) -> Result<Option<(Arc<GenerationRecord>, Passed)>, EnvironmentError> {
        let mut record = Arc::clone(base);
        let mut passed = Vec::new();
        let mut not_before = target.or(base.rollback_of);
        loop {
            match (target, not_before) {
                (Some(target), _) if record.generation == target => {
                    return Ok(Some((record, passed)));
                }
                (Some(_), _) => {}
                (None, Some(restored)) if record.generation == restored => not_before = None,
                (None, Some(_)) => {}
                (None, None) if record.state() != base.state() => {
                    return Ok(Some((record, passed)));
                }
                (None, None) => {}
            }
            match self.parent(&record).await? {
                Some(parent) => passed.push(std::mem::replace(&mut record, parent)),
                None => return Ok(None),
            }
        }
    }

    /// The generation that was live before a generation became live.
    pub(super) async fn parent(
        &self,
        record: &GenerationRecord,
    ) -> Result<Option<Arc<GenerationRecord>>, EnvironmentError> {
        match &record.parent {
            Some(parent) => self.load_unless_pruned(parent).await,
            None => Ok(None),
        }
    }

    /// The newest sets before the live one, at most `limit`, each with what is missing for a
    /// rollback to it, in words. The registry is asked.
    ///
    /// # Errors
    /// See [`EnvironmentError`].
    pub async fn rollback_targets(
        &self,
        status: &Status,
        limit: usize,
    ) -> Result<Vec<RollbackTarget>, EnvironmentError> {
        let mut targets: Vec<RollbackTarget> = Vec::new();
        let Some(live) = &status.live else {
            return Ok(targets);
        };
        let mut states = BTreeSet::from([live.state()]);
        let mut next = self.parent(live).await?;
        while let Some(record) = next
            && targets.len() < limit
        {
            if states.insert(record.state()) {
                let proof = self.prove(&record, &status.listing).await?;
                targets.push(RollbackTarget {
                    missing: proof.missing,
                    record: Arc::clone(&record),
                });
            }
            next = self.parent(&record).await?;
        }
        Ok(targets)
    }

    /// Which of the latest generations everything is there for, newest first;
    /// the live one is not named. What cannot even be looked at is not usable.
    async fn usable(&self, live: &Live) -> Result<Vec<u64>, EnvironmentError> {
        let mut usable = Vec::new();
        let earlier = self.history(Some(LOOK_BACK + 1)).await.unwrap_or_default();
        for record in earlier.iter().skip(1) {
            if let Ok(proof) = self.prove(record, &live.listing).await
                && proof.missing.is_empty()
            {
                usable.push(record.generation);
            }
        }
        Ok(usable)
    }
}

fn draft(target: &GenerationRecord, passed: &[Arc<GenerationRecord>], proof: Proof) -> Draft {
    let state = target.state();
    let mut rolled_away: Vec<_> = passed.iter().map(|record| record.state()).collect();
    rolled_away.sort();
    rolled_away.dedup();
    rolled_away.retain(|passed| *passed != state);
    let untagged = proof.untagged.iter();
    let manifests = untagged.chain(proof.lost.iter().map(|image| &image.manifest));
    let without_tag: BTreeSet<_> = manifests.map(|m| m.descriptor.digest).collect();
    let images = target.images.iter();
    // What was coming to its end then is over.
    let dags: BTreeMap<_, _> = target
        .lasting()
        .map(|(key, dag)| (key.clone(), dag.clone()))
        .collect();
    let mut needed: BTreeSet<_> = dags.values().map(|dag| dag.image).collect();
    needed.insert(target.image);
    Draft {
        action: Action::Rollback,
        rollback_of: Some(target.generation),
        version: target.version.clone(),
        git: target.git.clone(),
        ancestors: target.ancestors.clone(),
        rolled_away,
        image: target.image,
        contents: (target.images.iter())
            .filter_map(|image| Some((image.digest, image.contents?)))
            .collect(),
        retained: images
            .filter(|image| needed.contains(&image.digest) && !without_tag.contains(&image.digest))
            .cloned()
            .collect(),
        source: ImageSource::Proven {
            untagged: proof.untagged,
            lost: proof.lost,
        },
        dags,
        bytes: BTreeMap::new(),
    }
}
