//! Entity tags in the place of storage generations.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use http::HeaderValue;

use super::StorageGeneration;

/// The tags that a bucket has shown us: a request must name the tag itself.
#[derive(Debug, Default)]
pub(super) struct Tags(Mutex<HashMap<StorageGeneration, String>>);

/// A number that stands for a text.
pub(super) fn generation_of(text: &str) -> StorageGeneration {
    let mut generation = [0; 8];
    blake3::Hasher::new()
        .update(text.as_bytes())
        .finalize_xof()
        .fill(&mut generation);
    StorageGeneration(u64::from_le_bytes(generation))
}

impl Tags {
    pub(super) fn note(&self, tag: &str) -> StorageGeneration {
        let tag = tag.trim_start_matches("W/").trim_matches('"');
        let generation = generation_of(tag);
        let mut tags = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tags.insert(generation, format!("\"{tag}\""));
        generation
    }

    /// The tag of a generation that this bucket has shown us.
    pub(super) fn find(&self, generation: StorageGeneration) -> Option<HeaderValue> {
        let tags = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        HeaderValue::try_from(tags.get(&generation)?).ok()
    }
}
