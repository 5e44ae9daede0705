//! What is live, and whether it is as it should be.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::drift::{Drifted, by_key, drift};
use super::head::Intent;
use super::record::GenerationRecord;
use super::{Environment, EnvironmentError};
use crate::bucket::{Listing, ObjectKey};

/// Where an environment is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nothing was ever committed, and nothing is being applied.
    Empty,
    /// A generation is live.
    Committed,
    /// A change is being applied, or was left unfinished.
    Applying,
}

/// What is live in an environment.
#[derive(Debug, Clone)]
pub struct Status {
    /// Where it is in its life.
    pub state: State,
    /// The committed generation; while a change is being applied, the one before it.
    pub live: Option<Arc<GenerationRecord>>,
    /// The change that is being applied.
    pub applying: Option<Intent>,
    /// Whether the change's lease still runs, so that its holder may be alive.
    pub held: bool,
    /// Objects of the committed generation that somebody changed. What a change
    /// that is being applied has done already does not count.
    pub drift: Vec<Drifted>,
    /// How many objects in `dags/` are not ours.
    pub foreign: usize,
    pub(super) listing: Listing,
}

impl Environment {
    /// Looks at HEAD, the live record and `dags/`; asks no registry.
    ///
    /// # Errors
    /// See [`EnvironmentError`].
    pub async fn status(&self) -> Result<Status, EnvironmentError> {
        let mut live = self.observe(None).await?;
        let record = self.live_record(&live).await?;
        let applying = live.head().and_then(|head| head.applying.clone());
        let held = live
            .seen
            .as_ref()
            .zip(applying.as_ref())
            .is_some_and(|(seen, intent)| {
                intent.remaining(seen.updated, seen.server_time).is_some()
            });
        let next = match &applying {
            Some(intent) => self.load(&intent.reference).await.ok(),
            None => None,
        };
        let records = [record.as_deref(), next.as_deref()];
        self.widen(&mut live.listing, &records).await?;
        let ours: BTreeSet<&str> = records
            .into_iter()
            .flatten()
            .flat_map(|record| record.dags.keys().map(ObjectKey::as_str))
            .collect();
        let objects = by_key(&live.listing);
        // What the unfinished change has written or deleted already is nobody else's doing.
        let is_of_change = |drifted: &Drifted| {
            next.as_deref().is_some_and(|next| {
                let object = objects.get(drifted.key.as_str());
                match next.dags.get(&drifted.key) {
                    Some(dag) => object.is_some_and(|object| dag.checksums.matches(object)),
                    None => object.is_none(),
                }
            })
        };
        Ok(Status {
            state: match (&applying, &record) {
                (Some(_), _) => State::Applying,
                (None, Some(_)) => State::Committed,
                (None, None) => State::Empty,
            },
            held,
            foreign: objects.keys().filter(|key| !ours.contains(*key)).count(),
            drift: record
                .as_deref()
                .map(|record| drift(record, &live.listing))
                .unwrap_or_default()
                .into_iter()
                .filter(|drifted| !is_of_change(drifted))
                .collect(),
            live: record,
            applying,
            listing: live.listing.clone(),
        })
    }
}
