//! The calls by which the store changes its files, as a trait: what a power cut,
//! a full disk or a kill at any of them does can then be tried in one process.
//!
//! Reading is not among them: whatever is read is verified. Neither is what SQLite
//! does: it syncs its log before it writes that into its file, and its file before
//! it forgets the log (`synchronous=NORMAL`). The syncs that make a transaction
//! durable are ours.

use std::fmt::Debug;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use tempfile::{NamedTempFile, PathPersistError, TempPath};

/// What a store asks of the file system when it writes.
///
/// Callers repeat what was interrupted by a signal ([`io::ErrorKind::Interrupted`]).
pub(crate) trait FileSystem: Debug + Send + Sync {
    /// A new file in `directory`, which vanishes when it is dropped.
    fn create_staged(&self, directory: &Path) -> io::Result<NamedTempFile>;

    /// Appends some of `bytes`; how many.
    fn write(&self, staged: &mut NamedTempFile, bytes: &[u8]) -> io::Result<usize>;

    /// Makes a file read-only, then its bytes and mode durable.
    fn seal(&self, staged: &NamedTempFile) -> io::Result<()>;

    /// Gives a staged file its final name, unless that name is taken.
    fn rename_new(&self, staged: TempPath, target: &Path) -> Result<(), PathPersistError>;

    /// Makes the names in `directory` durable.
    fn sync_directory(&self, directory: &Path) -> io::Result<()>;

    /// Makes the bytes of the file at `path` durable, whoever wrote them.
    fn sync_file(&self, path: &Path) -> io::Result<()>;

    /// Creates `directory`.
    fn create_directory(&self, directory: &Path) -> io::Result<()>;

    /// Removes the file at `path`.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
}

/// The machine's own.
#[derive(Debug)]
pub(crate) struct RealFileSystem;

impl FileSystem for RealFileSystem {
    fn create_staged(&self, directory: &Path) -> io::Result<NamedTempFile> {
        NamedTempFile::new_in(directory)
    }

    fn write(&self, staged: &mut NamedTempFile, bytes: &[u8]) -> io::Result<usize> {
        io::Write::write(staged.as_file_mut(), bytes)
    }

    fn seal(&self, staged: &NamedTempFile) -> io::Result<()> {
        let file = staged.as_file();
        file.set_permissions(Permissions::from_mode(0o444))?;
        file.sync_all()
    }

    fn rename_new(&self, staged: TempPath, target: &Path) -> Result<(), PathPersistError> {
        staged.persist_noclobber(target)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        File::open(directory)?.sync_all()
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_data()
    }

    fn create_directory(&self, directory: &Path) -> io::Result<()> {
        fs::create_dir(directory)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }
}
