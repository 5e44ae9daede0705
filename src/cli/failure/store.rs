//! The store on this machine failed.

use crate::ui::{CommandError, Exit};
use forebay_store::StoreError;

impl From<StoreError> for CommandError {
    fn from(error: StoreError) -> Self {
        Self::from_error(store_exit(&error), &error).next(store_next(&error))
    }
}

pub(super) fn store_exit(error: &StoreError) -> Exit {
    match error {
        StoreError::NoArtifact { .. }
        | StoreError::NotFound { .. }
        | StoreError::Input { .. }
        | StoreError::NotUtf8 { .. }
        | StoreError::SpecialFile { .. } => Exit::Usage,
        StoreError::Io { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
            Exit::Denied
        }
        _ => Exit::Failed,
    }
}

pub(super) fn store_next(error: &StoreError) -> &'static str {
    match error {
        StoreError::NotFound { .. } => {
            "look with `forebay store ls`; what was collected comes back with the next build"
        }
        StoreError::NoArtifact { .. } => {
            "look with `forebay store why DIGEST`: it names roots and recipes"
        }
        StoreError::Lost { .. } | StoreError::Damaged { .. } => {
            "run the command again: what is lost is fetched or built anew; `forebay store verify` looks for more"
        }
        StoreError::IndexDamaged { .. } => "run the command again: it makes the index anew",
        StoreError::IndexNotKept { .. } => {
            "look at the disk (`dmesg` may name it), or set FOREBAY_STORE to a folder on another one"
        }
        StoreError::InUse { .. } => {
            "wait until the other forebay commands are done, then run this one again"
        }
        StoreError::NewerSchema { .. } | StoreError::NewerPack { .. } => {
            "update forebay, or set FOREBAY_STORE to another folder"
        }
        StoreError::Pack { .. } => {
            "if it is an archive, export it again; if it is in the store, run `forebay store verify`"
        }
        StoreError::Changing { .. } => "run the command again when nobody writes to the file",
        StoreError::NotUtf8 { .. } | StoreError::SpecialFile { .. } => "rename or remove the file",
        _ => {
            "check that the folder of the store (FOREBAY_STORE) can be written and has room, then run the command again"
        }
    }
}
