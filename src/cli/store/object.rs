//! One object: how it is named on the command line, and what is printed of it.

use clap::Args;
use forebay_store::{ObjectDigest, ObjectInfo, Sha256Digest, Store, StoreError};
use serde::Serialize;

use crate::ui::{CommandError, Exit};

/// One object.
#[derive(Debug, Args)]
pub(in crate::cli) struct ObjectArgument {
    /// The object's BLAKE3 (64 digits), or sha256:… as registries name it
    pub(super) digest: String,
}

/// One object, as `put`, `cat` and `ls` print it (`schema/store-put.schema.json`, …).
#[derive(Debug, Serialize)]
pub(super) struct ObjectDocument {
    pub(super) digest: ObjectDigest,
    pub(super) sha256: Sha256Digest,
    pub(super) size: u64,
}

impl From<ObjectInfo> for ObjectDocument {
    fn from(info: ObjectInfo) -> Self {
        Self {
            digest: info.digest,
            sha256: info.sha256,
            size: info.size,
        }
    }
}

pub(super) fn digest_of(
    store: &Store,
    object: &ObjectArgument,
) -> Result<ObjectDigest, CommandError> {
    let text = &object.digest;
    if text.starts_with("sha256:") {
        let sha256: Sha256Digest = text.parse().map_err(|error| bad_digest(&error))?;
        let info = store.info_by_sha256(&sha256)?.ok_or_else(|| {
            CommandError::new(Exit::Usage, format!("object {sha256} is not in the store"))
                .next("look with `forebay store ls --json`")
        })?;
        return Ok(info.digest);
    }
    text.parse().map_err(|error| bad_digest(&error))
}

fn bad_digest(error: &dyn std::error::Error) -> CommandError {
    CommandError::new(Exit::Usage, error.to_string())
        .next("write 64 lower-case hexadecimal digits, or sha256: and as many")
}

pub(super) fn find(store: &Store, object: &ObjectArgument) -> Result<ObjectInfo, CommandError> {
    let digest = digest_of(store, object)?;
    Ok(store
        .info(&digest)?
        .ok_or_else(|| not_found(store, digest))?)
}

pub(super) fn not_found(store: &Store, digest: ObjectDigest) -> StoreError {
    StoreError::NotFound {
        digest,
        root: store.root().to_owned(),
    }
}
