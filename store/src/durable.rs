//! The few file-system calls on which durability rests, each with its path in the error.

use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use tempfile::{NamedTempFile, TempPath};

use crate::StoreError;

/// Makes the names in `directory` durable.
pub(crate) fn sync_directory(directory: &Path) -> Result<(), StoreError> {
    File::open(directory)
        .and_then(|handle| handle.sync_all())
        .map_err(StoreError::io("sync", directory))
}

/// Makes a finished file read-only, then its bytes and mode durable.
pub(crate) fn seal(file: &File, path: &Path) -> Result<(), StoreError> {
    file.set_permissions(Permissions::from_mode(0o444))
        .and_then(|()| file.sync_all())
        .map_err(StoreError::io("sync", path))
}

/// Gives a sealed staged file its final name, unless that name is taken.
///
/// Gives back the staged file if it is.
pub(crate) fn publish(staged: TempPath, target: &Path) -> Result<Option<TempPath>, StoreError> {
    match staged.persist_noclobber(target) {
        Ok(()) => Ok(None),
        Err(refused) if refused.error.kind() == io::ErrorKind::AlreadyExists => {
            Ok(Some(refused.path))
        }
        Err(refused) => Err(StoreError::io("create", target)(refused.error)),
    }
}

/// Creates `directory` if it is absent; true if it was.
pub(crate) fn create_directory(directory: &Path) -> Result<bool, StoreError> {
    match fs::create_dir(directory) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(StoreError::io("create", directory)(error)),
    }
}

/// Appends to a staged file.
pub(crate) fn write(staged: &mut NamedTempFile, bytes: &[u8]) -> Result<(), StoreError> {
    staged.as_file_mut().write_all(bytes).map_err(|source| {
        let path = staged.path();
        StoreError::io("write", path)(source)
    })
}
