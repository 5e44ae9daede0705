//! DAGs that a rollback brings back after they were away: Airflow remembers them, and its
//! catch-up starts all runs that they have missed; unless they get a new start.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::record::{GenerationRecord, RecordedDag};
use super::{Environment, EnvironmentError};
use crate::bucket::{Checksums, ObjectKey};
use crate::dags::WrittenDag;
use crate::project::WorkflowId;
use forebay_store::ObjectDigest;

/// With which start time a rollback brings DAGs back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RollbackStart {
    /// With their own: the very files that were live.
    #[default]
    Exact,
    /// With this one, in local time, so that nothing is caught up on.
    At(DateTime),
}

/// A DAG that comes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Returning {
    /// Its workflow.
    pub workflow: WorkflowId,
    /// Its id in Airflow; absent if its file does not tell.
    pub dag_id: Option<String>,
    /// Since when it was away, by the clock of whoever took it away.
    pub since: Timestamp,
    /// Its schedule, in Python; absent if its file does not tell.
    pub schedule: Option<String>,
    /// How many runs Airflow's catch-up would start, if that can be told.
    pub runs: Option<u64>,
}

/// A DAG file with another start.
pub(super) struct Restarted {
    pub(super) was: ObjectKey,
    pub(super) key: ObjectKey,
    pub(super) dag: RecordedDag,
    pub(super) bytes: Bytes,
}

impl Environment {
    /// The DAGs of `target` that are not live. `passed` are the generations after it, newest first.
    pub(super) async fn returning(
        &self,
        target: &GenerationRecord,
        passed: &[Arc<GenerationRecord>],
    ) -> Result<Vec<Returning>, EnvironmentError> {
        let mut returning = Vec::new();
        for (key, dag) in target.lasting() {
            let lacking = passed
                .iter()
                .take_while(|record| !record.dags.contains_key(key));
            let Some(first_without) = lacking.last() else {
                continue;
            };
            let bytes = self.dag_bytes(dag).await?;
            let written = WrittenDag::read(&bytes).ok();
            let civil = |time: Timestamp| time.to_zoned(TimeZone::UTC).datetime();
            let since = first_without.created_at;
            let runs = written
                .as_ref()
                .and_then(|written| written.runs_between(civil(since), civil(self.clock.now())));
            returning.push(Returning {
                workflow: dag.workflow.clone(),
                dag_id: written.as_ref().map(|written| written.dag_id.to_owned()),
                since,
                schedule: written.map(|written| written.schedule.to_owned()),
                runs,
            });
        }
        Ok(returning)
    }

    /// The DAGs of `target` that are not in `base`, with the start `at`; and what cannot be
    /// had, in words.
    pub(super) async fn restarted(
        &self,
        target: &GenerationRecord,
        base: Option<&GenerationRecord>,
        at: DateTime,
    ) -> Result<(Vec<Restarted>, Vec<String>), EnvironmentError> {
        let (mut restarted, mut missing) = (Vec::new(), Vec::new());
        for (key, dag) in target.lasting() {
            if base.is_some_and(|base| base.dags.contains_key(key)) {
                continue;
            }
            let bytes = self.dag_bytes(dag).await?;
            let file = WrittenDag::read(&bytes)
                .and_then(|written| written.restarted(at, &dag.identity, dag.start));
            let file = match file {
                Ok(file) => file,
                Err(problem) => {
                    let workflow = &dag.workflow;
                    missing.push(format!("a new start for {workflow} ({problem})"));
                    continue;
                }
            };
            let folder = key
                .as_str()
                .rsplit_once('/')
                .map_or("", |(folder, _)| folder);
            let object = ObjectDigest::of(&file.bytes);
            restarted.push(Restarted {
                was: key.clone(),
                key: format!("{folder}/{}", file.file_name).parse()?,
                dag: RecordedDag {
                    identity: file.identity,
                    object,
                    start: file.start,
                    checksums: Checksums::of(&file.bytes),
                    ..dag.clone()
                },
                bytes: file.bytes.into(),
            });
        }
        Ok((restarted, missing))
    }
}
