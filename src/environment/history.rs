//! The generations that were live, newest first: HEAD's chain of parents.
//! Records of deploys that died are not on it.

use std::sync::Arc;

use super::record::GenerationRecord;
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
        let live = self.read_head().await?.and_then(|seen| seen.head.live);
        let mut next = live.map(|live| live.reference);
        while let Some(reference) = next {
            if limit.is_some_and(|limit| history.len() >= limit) {
                break;
            }
            let record = self.load(&reference).await?;
            next = record.parent;
            history.push(record);
        }
        Ok(history)
    }
}
