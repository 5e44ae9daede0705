//! The generations that were live, newest first: HEAD's chain of parents.
//! Records of deploys that died are not on it.

use std::sync::Arc;

use super::key::LAST_GENERATION;
use super::record::{GenerationRecord, RecordReference};
use super::{Environment, EnvironmentError};

impl Environment {
    /// The live generation and those before it; at most `limit`.
    ///
    /// # Errors
    /// See [`EnvironmentError`].
    pub async fn history(
        &self,
        limit: Option<usize>,
    ) -> Result<Vec<Arc<GenerationRecord>>, EnvironmentError> {
        let mut history = Vec::new();
        self.walk_history(limit, |record| history.push(record))
            .await?;
        Ok(history)
    }

    /// The same, one after the other: a record has a line for every DAG file, so that whoever
    /// needs only a little of each should not hold all of them.
    pub(super) async fn walk_history(
        &self,
        limit: Option<usize>,
        mut visit: impl FnMut(Arc<GenerationRecord>),
    ) -> Result<(), EnvironmentError> {
        let live = self.read_head().await?.and_then(|seen| seen.head.live);
        let mut next = live.map(|live| live.reference);
        for _ in 0..limit.unwrap_or(usize::MAX) {
            let Some(reference) = next else { break };
            let Some(record) = self.load_unless_pruned(&reference).await? else {
                break;
            };
            next = record.parent;
            visit(record);
        }
        Ok(())
    }

    /// The numbers of all records that the bucket has.
    pub(super) async fn numbers(&self) -> Result<Vec<u64>, EnvironmentError> {
        let folder = self.key.generations_prefix();
        let listing = self.bucket.list(&folder).await?;
        let numbers = listing.objects.iter().filter_map(|object| {
            let name = object.key.strip_prefix(&folder)?.strip_suffix(".json")?;
            name.parse::<u64>().ok().filter(|n| *n <= LAST_GENERATION)
        });
        Ok(numbers.collect())
    }

    /// A record; nothing if it is older than all that retention has left.
    pub(super) async fn load_unless_pruned(
        &self,
        reference: &RecordReference,
    ) -> Result<Option<Arc<GenerationRecord>>, EnvironmentError> {
        match self.load(reference).await {
            Err(lost @ EnvironmentError::LostObject { .. }) => {
                let numbers = self.numbers().await?;
                match numbers.iter().all(|number| *number > reference.generation) {
                    true => Ok(None),
                    false => Err(lost),
                }
            }
            record => record.map(Some),
        }
    }
}
