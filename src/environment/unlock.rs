//! Ends a lease before its time: for the person who knows that its holder is dead.

use super::head::Intent;
use super::{Environment, EnvironmentError};
use crate::bucket::WriteCondition;

/// What became of a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unlocked {
    /// There was none.
    Free,
    /// It had run out already.
    Expired {
        /// Whose it was.
        holder: String,
    },
    /// It was ended.
    Ended {
        /// Whose it was.
        holder: String,
    },
}

impl Environment {
    /// Ends the lease of the change that applies `generation`, and no other. What was begun
    /// stays unfinished, for [`Environment::resume`] or [`Environment::abort`].
    ///
    /// A holder that lives after all loses HEAD, finds that out at its next renewal and stops;
    /// until then it may still write files.
    ///
    /// # Errors
    /// [`EnvironmentError::OtherLock`] if another generation is being applied;
    /// [`EnvironmentError::Lost`] if HEAD changed meanwhile.
    pub async fn unlock(&self, generation: u64) -> Result<Unlocked, EnvironmentError> {
        let Some(seen) = self.read_head().await? else {
            return Ok(Unlocked::Free);
        };
        seen.head.refuse_newer()?;
        let Some(intent) = seen.head.applying else {
            return Ok(Unlocked::Free);
        };
        let holder = intent.holder.clone();
        if intent.reference.generation != generation {
            return Err(EnvironmentError::OtherLock {
                named: generation,
                held: intent.reference.generation,
                holder,
            });
        }
        if intent.remaining(seen.updated, seen.server_time).is_none() {
            return Ok(Unlocked::Expired { holder });
        }
        let ended = Intent {
            lease_seconds: 0,
            ..intent
        };
        let condition = match seen.generation {
            Some(generation) => WriteCondition::Unchanged(generation),
            None => WriteCondition::Absent,
        };
        self.write_head(seen.head.live, Some(ended), condition)
            .await?;
        Ok(Unlocked::Ended { holder })
    }
}
