//! Retiring without harm: a task that runs fails when its DAG's file disappears, so a file
//! that leaves can be given an end instead, and be deleted by a later deploy.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::desired::{Desired, DesiredDags};
use super::record::{GenerationRecord, RecordedDag};
use super::{Environment, EnvironmentError};
use crate::bucket::{Checksums, ObjectKey};
use crate::dags::with_end_date;
use crate::progress::Event;
use forebay_store::ObjectDigest;

/// What becomes of the file of a DAG that is no longer wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Retire {
    /// It is deleted at once.
    #[default]
    Delete,
    /// It gets an `end_date`, and the next deploy deletes it.
    Drain,
}

/// Files with an end, by their keys.
pub(super) type Draining = BTreeMap<ObjectKey, (RecordedDag, Bytes)>;

impl Environment {
    /// The files that may leave, each with an end. None if files are deleted at once.
    pub(super) async fn draining(
        &self,
        base: Option<&GenerationRecord>,
        desired: &Desired,
    ) -> Result<Draining, EnvironmentError> {
        let mut draining = Draining::new();
        let (Some(base), Retire::Drain) = (base, self.options.retire) else {
            return Ok(draining);
        };
        let wanted: BTreeSet<_> = desired
            .dags()
            .iter()
            .map(|dag| (&dag.workflow, &dag.identity))
            .collect();
        let chosen: BTreeSet<_> = wanted.iter().map(|(workflow, _)| *workflow).collect();
        let may_leave = |dag: &RecordedDag| match &desired.dags {
            DesiredDags::Only(_) => chosen.contains(&dag.workflow),
            DesiredDags::All(_) => {
                !wanted.contains(&(&dag.workflow, &dag.identity)) || dag.image != desired.image()
            }
        };
        let now = self.clock.now();
        for (key, dag) in &base.dags {
            if dag.ends.is_some() || !may_leave(dag) {
                continue;
            }
            let bytes = self.dag_bytes(dag).await?;
            let Some(ended) = with_end_date(&bytes, now) else {
                self.progress.report(Event::Warning(format!(
                    "{key} cannot be given an end, since it is not written as BigFlow or Forebay writes it: it is deleted at once"
                )));
                continue;
            };
            let mut decisive = b"forebay draining DAG file 1\n".to_vec();
            decisive.extend_from_slice(&ended);
            let dag = RecordedDag {
                identity: ObjectDigest::of(&decisive),
                object: ObjectDigest::of(&ended),
                checksums: Checksums::of(&ended),
                ends: Some(now),
                ..dag.clone()
            };
            draining.insert(key.clone(), (dag, ended.into()));
        }
        Ok(draining)
    }
}
