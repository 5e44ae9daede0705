//! Where a store may get what it lacks.

use std::fmt;

use crate::{ObjectDigest, ObjectInfo, Realisation, RecipeKey, Store, StoreError};

/// Another place that has realisations and objects, such as a cache that machines share.
///
/// It is asked only for what the store does not have. What it says is believed, so that it
/// must have verified who said so; bytes are verified by their digests anyway. It never
/// fails: a source that cannot be reached knows nothing.
pub trait Source: Send + Sync + fmt::Debug {
    /// What following the recipe gave elsewhere. It may put into `store` what is at hand.
    fn realisation(&self, store: &Store, key: &RecipeKey) -> Option<Realisation>;

    /// The names and size of an object that can be brought.
    fn info(&self, digest: &ObjectDigest) -> Option<ObjectInfo>;

    /// Puts objects into `store`, as many of them as it can.
    ///
    /// # Errors
    /// Those of the store alone.
    fn bring(&self, store: &Store, digests: &[ObjectDigest]) -> Result<(), StoreError>;
}
