//! The file-system calls on which durability rests: repeated if a signal
//! interrupts them, and each with its path in the error.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use tempfile::{NamedTempFile, TempPath};

use crate::StoreError;
use crate::file_system::FileSystem;

/// A file that is being written, and has no final name yet. Dropped, it vanishes.
#[derive(Debug)]
pub(crate) struct StagedFile {
    file: NamedTempFile,
    file_system: Arc<dyn FileSystem>,
}

impl StagedFile {
    /// A new one in `directory`.
    pub(crate) fn create(
        directory: &Path,
        file_system: Arc<dyn FileSystem>,
    ) -> Result<Self, StoreError> {
        let file = uninterrupted(|| file_system.create_staged(directory))
            .map_err(StoreError::io("create a file in", directory))?;
        Ok(Self { file, file_system })
    }

    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    /// Appends all of `bytes`.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.write_all(bytes)
            .map_err(|source| StoreError::io("write", self.path())(source))
    }

    /// Makes it read-only, then its bytes and mode durable.
    pub(crate) fn seal(self) -> Result<TempPath, StoreError> {
        uninterrupted(|| self.file_system.seal(&self.file))
            .map_err(StoreError::io("sync", self.path()))?;
        Ok(self.file.into_temp_path())
    }

    /// Gives up the handle without any promise of durability.
    pub(crate) fn into_temp_path(self) -> TempPath {
        self.file.into_temp_path()
    }
}

impl Write for StagedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file_system.write(&mut self.file, bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Makes the names in `directory` durable.
pub(crate) fn sync_directory(fs: &dyn FileSystem, directory: &Path) -> Result<(), StoreError> {
    uninterrupted(|| fs.sync_directory(directory)).map_err(StoreError::io("sync", directory))
}

/// Makes the bytes of the file at `path` durable; a file that is not there has none.
pub(crate) fn sync_file(fs: &dyn FileSystem, path: &Path) -> Result<(), StoreError> {
    match uninterrupted(|| fs.sync_file(path)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(StoreError::io("sync", path)(error))
        }
        _ => Ok(()),
    }
}

/// Opens the file, which is made if need be, and locks it; the lock goes with the returned handle.
pub(crate) fn lock_file(
    path: &Path,
    lock: impl Fn(&File) -> io::Result<()>,
) -> Result<File, StoreError> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(StoreError::io("open", path))?;
    uninterrupted(|| lock(&file)).map_err(StoreError::io("lock", path))?;
    Ok(file)
}

/// Gives a sealed staged file its final name, unless that name is taken.
///
/// Gives back the staged file if it is.
pub(crate) fn publish(
    fs: &dyn FileSystem,
    mut staged: TempPath,
    target: &Path,
) -> Result<Option<TempPath>, StoreError> {
    loop {
        match fs.rename_new(staged, target) {
            Ok(()) => return Ok(None),
            Err(refused) => match refused.error.kind() {
                io::ErrorKind::AlreadyExists => return Ok(Some(refused.path)),
                io::ErrorKind::Interrupted => staged = refused.path,
                _ => return Err(StoreError::io("create", target)(refused.error)),
            },
        }
    }
}

/// Creates `directory` if it is absent.
pub(crate) fn create_directory(fs: &dyn FileSystem, directory: &Path) -> Result<(), StoreError> {
    match uninterrupted(|| fs.create_directory(directory)) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(StoreError::io("create", directory)(error))
        }
        _ => Ok(()),
    }
}

/// Removes the file at `path` if it is there.
pub(crate) fn remove_file(fs: &dyn FileSystem, path: &Path) -> Result<(), StoreError> {
    match uninterrupted(|| fs.remove_file(path)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(StoreError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
