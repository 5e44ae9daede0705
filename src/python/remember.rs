//! Small JSON documents that the store remembers under a recipe.

use std::collections::BTreeMap;

use forebay_store::{Batch, ObjectDigest, Realisation, Recipe, Store, StoreError};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The only output of such a recipe.
const OUTPUT: &str = "document";

/// The document that was remembered for `recipe` on this machine; one that is not understood
/// counts as none.
pub(crate) fn recall<Document: DeserializeOwned>(
    store: &Store,
    recipe: &Recipe,
) -> Result<Option<Document>, StoreError> {
    read(store, store.local_realisation(&recipe.key())?)
}

/// The document that was remembered for `recipe`, here or on another machine.
pub(crate) fn recall_from_anywhere<Document: DeserializeOwned>(
    store: &Store,
    recipe: &Recipe,
) -> Result<Option<Document>, StoreError> {
    read(store, store.realisation(&recipe.key())?)
}

fn read<Document: DeserializeOwned>(
    store: &Store,
    realisation: Option<Realisation>,
) -> Result<Option<Document>, StoreError> {
    let Some(realisation) = realisation else {
        return Ok(None);
    };
    let Some(digest) = realisation.outputs.get(OUTPUT) else {
        return Ok(None);
    };
    // Its bytes may have been lost since: then it is made again.
    let Ok(bytes) = store.read(digest) else {
        return Ok(None);
    };
    Ok(serde_json::from_slice(&bytes).ok())
}

/// Adds a document to what `batch` will commit, in place of an earlier one. Gives the
/// object that it is, which a root may keep.
pub(crate) fn remember(
    batch: &mut Batch<'_>,
    recipe: &Recipe,
    document: &impl Serialize,
) -> Result<Option<ObjectDigest>, StoreError> {
    // A document of ours always has a JSON form; without one, nothing is remembered.
    let Ok(bytes) = serde_json::to_vec(document) else {
        return Ok(None);
    };
    let digest = batch.put(&bytes)?.digest;
    let outputs = BTreeMap::from([(OUTPUT.to_owned(), digest)]);
    batch.realise(&recipe.key(), &Realisation { outputs })?;
    Ok(Some(digest))
}
