//! What the collector will delete, for all to see.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::remote::{CacheError, Remote};
use crate::bucket::{StoredObject, nonce};

/// `mark.json` (`schema/cache-mark.schema.json`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    version: u32,
    /// No two writes are alike, also where a bucket tells them by their bytes.
    #[serde(default)]
    stamp: String,
    /// Keys and the generations that will be deleted.
    pub(super) condemned: BTreeMap<String, u64>,
}

impl Mark {
    const VERSION: u32 = 1;

    /// The mark that is there, and which write of it.
    pub(super) async fn find(remote: &Remote) -> Result<Option<(Self, StoredObject)>, CacheError> {
        let Some(read) = remote.read(remote.location.mark()?).await? else {
            return Ok(None);
        };
        // One that cannot be read condemns nothing, and is written anew.
        let mark = serde_json::from_slice(&read.bytes)
            .ok()
            .filter(|mark: &Self| mark.version == Self::VERSION)
            .unwrap_or_else(|| Self::of(&BTreeMap::new()));
        Ok(Some((mark, read.object)))
    }

    pub(super) fn of(condemned: &BTreeMap<String, StoredObject>) -> Self {
        Self {
            version: Self::VERSION,
            stamp: nonce(),
            condemned: condemned
                .iter()
                .map(|(key, object)| (key.clone(), object.generation.0))
                .collect(),
        }
    }

    /// Whether a key that begins so is condemned.
    pub(super) fn names_any(&self, prefix: &str) -> bool {
        let mut following = self.condemned.range(prefix.to_owned()..);
        following
            .next()
            .is_some_and(|(key, _)| key.starts_with(prefix))
    }
}
