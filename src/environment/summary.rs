//! What a draft means for the bucket, in lists and numbers for people, and what bars its way.

use std::collections::BTreeSet;

use super::clear::Condemned;
use super::draft::Draft;
use super::drift::{Drifted, by_key, drift};
use super::owners::Owners;
use super::record::{GenerationRecord, may_own};
use super::returning::Returning;
use super::written::Written;
use super::{EnvironmentError, Live, Options};
use crate::bucket::ObjectKey;
use crate::oci::Sha256Digest;
use crate::project::WorkflowId;

/// What a plan does, for people. A workflow is in at most one list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlanSummary {
    /// Workflows that were not live.
    pub added: Vec<WorkflowId>,
    /// Workflows whose file is replaced.
    pub changed: Vec<WorkflowId>,
    /// Workflows whose file stays.
    pub reused: Vec<WorkflowId>,
    /// Workflows that are no longer wanted, and whose files are deleted.
    pub retired: Vec<WorkflowId>,
    /// Workflows of which a file that leaves gets an end first, whether or not another one
    /// takes its place. They may be in a second list.
    pub draining: Vec<WorkflowId>,
    /// How many objects in `dags/` are not ours and stay untouched.
    pub foreign: usize,
    /// Objects of ours that somebody changed and that are written anew.
    pub restored: Vec<Drifted>,
    /// The image, if another one was live.
    pub new_image: Option<Sha256Digest>,
    /// How many files are written to `dags/`.
    pub uploads: usize,
    /// How many bytes they have.
    pub upload_bytes: u64,
    /// How many files are deleted from `dags/`.
    pub deletes: usize,
    /// The DAGs that an exact rollback brings back, whose missed runs Airflow would start.
    pub returning: Vec<Returning>,
    /// Objects of others that go because somebody said so, sorted by key.
    pub cleared: Vec<String>,
}

/// What a draft means for the bucket, and why it may not be applied.
pub(super) fn summarise(
    base: Option<&GenerationRecord>,
    live: &Live,
    draft: &Draft,
    condemned: &Condemned,
    options: &Options,
) -> (PlanSummary, Vec<EnvironmentError>) {
    let mut obstacles = Vec::new();
    let listing = &live.listing;
    let drifted = base.map(|base| {
        let leaves = |key: &ObjectKey| {
            let (before, after) = (base.dags.get(key), draft.dags.get(key));
            before.map(|dag| dag.checksums) != after.map(|dag| dag.checksums)
        };
        let written = Written::of(Some(base), live.generation());
        let mut drifted = drift(base, listing);
        drifted.extend(written.rewritten(base, listing, leaves));
        drifted
    });
    let drifted = drifted.unwrap_or_default();
    if !drifted.is_empty() && !options.restore_drift {
        obstacles.push(EnvironmentError::Drift {
            objects: drifted.clone(),
        });
    }
    let objects = by_key(listing);
    let ours = |key: &ObjectKey| base.is_some_and(|base| base.dags.contains_key(key));
    let foreign: Vec<String> = draft
        .dags
        .keys()
        .filter(|key| {
            !may_own(key)
                || (!ours(key) && !condemned.has_key(key) && objects.contains_key(key.as_str()))
        })
        .map(ObjectKey::to_string)
        .collect();
    if !foreign.is_empty() {
        obstacles.push(EnvironmentError::ForeignKeys {
            keys: foreign,
            owners: Owners::new(),
        });
    }
    let before = base.map(GenerationRecord::by_workflow).unwrap_or_default();
    let mut summary = PlanSummary {
        foreign: objects.len()
            - base.map_or(0, |base| {
                let keys = base.dags.keys();
                keys.filter(|key| objects.contains_key(key.as_str()))
                    .count()
            })
            - condemned.keys().count(),
        new_image: (base.map(|base| base.image) != Some(draft.image)).then_some(draft.image),
        ..PlanSummary::default()
    };
    let mut wanted = BTreeSet::new();
    for (key, dag) in &draft.dags {
        let is_new_end = base.is_none_or(|base| base.dags.get(key) != Some(dag));
        let list = match before.get(&dag.workflow) {
            _ if dag.ends.is_some() => is_new_end.then_some(&mut summary.draining),
            None => Some(&mut summary.added),
            Some(known) if *known == (key, dag) => Some(&mut summary.reused),
            Some(_) => Some(&mut summary.changed),
        };
        list.into_iter()
            .for_each(|list| list.push(dag.workflow.clone()));
        if dag.ends.is_none() {
            wanted.insert(&dag.workflow);
        }
        let object = objects.get(key.as_str());
        if !object.is_some_and(|object| dag.checksums.matches(object)) {
            summary.uploads += 1;
            summary.upload_bytes += dag.checksums.size;
        }
    }
    summary.draining.sort();
    summary.draining.dedup();
    let leaving = base.into_iter().flat_map(|base| &base.dags);
    let leaving = leaving.filter(|(key, _)| !draft.dags.contains_key(*key));
    let retired: BTreeSet<_> = leaving
        .map(|(_, dag)| &dag.workflow)
        .filter(|workflow| !wanted.contains(workflow))
        .collect();
    summary.retired = retired.into_iter().cloned().collect();
    let leaving = base.into_iter().flat_map(|base| base.dags.keys());
    summary.deletes = leaving
        .chain(condemned.keys())
        .filter(|key| !draft.dags.contains_key(*key) && objects.contains_key(key.as_str()))
        .count();
    summary.cleared = condemned.keys().map(ObjectKey::to_string).collect();
    summary.restored = drifted;
    (summary, obstacles)
}
