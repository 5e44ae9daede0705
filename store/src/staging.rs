//! Where a process writes before it publishes, and how what a dead process
//! left there is reclaimed.
//!
//! Each handle that stages has a directory `staging/<owner>/` and holds a lock
//! on `staging/<owner>.lock`. The system drops the lock with the process,
//! however it ends; so a lock that can be had belongs to nobody alive. Age
//! proves nothing: a process may be suspended for days.
//!
//! The lock file is also the handle's lease. Its bytes are the digests, 32 bytes
//! each, of the objects that the handle has put or looked up: while the lock is
//! held, no collection deletes them.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::durable::StagedFile;
use crate::file_system::FileSystem;
use crate::{ObjectDigest, StoreError};

/// One handle's staging directory; removed when dropped.
#[derive(Debug)]
pub(crate) struct Staging {
    directory: PathBuf,
    lock_path: PathBuf,
    lock: File,
    /// How many bytes the lease has.
    length: u64,
    /// What is in the lease.
    held: HashSet<ObjectDigest>,
    /// What of it was looked for in vain.
    absent: HashSet<ObjectDigest>,
}

impl Staging {
    /// A new one under `parent`.
    pub(crate) fn create(parent: &Path) -> Result<Self, StoreError> {
        loop {
            let (lock, lock_path) = tempfile::Builder::new()
                .prefix("")
                .suffix(".lock")
                .rand_bytes(16)
                .tempfile_in(parent)
                .and_then(|file| file.keep().map_err(io::Error::from))
                .map_err(StoreError::io("create a file in", parent))?;
            lock.lock().map_err(StoreError::io("lock", &lock_path))?;
            // Whoever reclaims may have had the lock, and removed the file, before us.
            if !is_file_at(&lock, &lock_path) {
                continue;
            }
            let directory = lock_path.with_extension("");
            fs::create_dir(&directory).map_err(StoreError::io("create", &directory))?;
            return Ok(Self {
                directory,
                lock_path,
                lock,
                length: 0,
                held: HashSet::new(),
                absent: HashSet::new(),
            });
        }
    }

    /// Adds objects to the lease.
    pub(crate) fn hold(
        &mut self,
        digests: impl IntoIterator<Item = ObjectDigest>,
    ) -> Result<(), StoreError> {
        let mut bytes = Vec::new();
        let mut new = Vec::new();
        for digest in digests {
            if !self.held.contains(&digest) {
                bytes.extend_from_slice(digest.as_bytes());
                new.push(digest);
            } else if !self.absent.is_empty() {
                self.absent.remove(&digest);
            }
        }
        if new.is_empty() {
            return Ok(());
        }
        // What an earlier write has left half-done is overwritten.
        self.lock
            .write_all_at(&bytes, self.length)
            .map_err(StoreError::io("write", &self.lock_path))?;
        self.length += bytes.len() as u64;
        self.held.extend(new);
        Ok(())
    }

    /// Says that an object of the lease is not in the store.
    pub(crate) fn note_absent(&mut self, digest: ObjectDigest) {
        self.absent.insert(digest);
    }

    /// What is in the lease, and in the store.
    pub(crate) fn used(&self) -> impl Iterator<Item = &ObjectDigest> {
        self.held.difference(&self.absent)
    }

    /// A new file in it, which vanishes unless it is published.
    pub(crate) fn file(&self, file_system: &Arc<dyn FileSystem>) -> Result<StagedFile, StoreError> {
        StagedFile::create(&self.directory, Arc::clone(file_system))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // What stays behind is reclaimed by the next open.
        let _ = fs::remove_dir_all(&self.directory);
        let _ = fs::remove_file(&self.lock_path);
    }
}

/// The objects in the leases of all live handles, this process's own included.
pub(crate) fn live_leases(parent: &Path) -> Result<HashSet<ObjectDigest>, StoreError> {
    let entries = fs::read_dir(parent).map_err(StoreError::io("list", parent))?;
    let mut held = HashSet::new();
    for entry in entries {
        let path = entry.map_err(StoreError::io("list", parent))?.path();
        if path.extension().is_none_or(|extension| extension != "lock") {
            continue;
        }
        let lock = match File::open(&path) {
            Ok(lock) => lock,
            // Its owner has just ended.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(StoreError::io("open", &path)(error)),
        };
        if lock.try_lock_shared().is_ok() {
            continue;
        }
        let bytes = fs::read(&path).or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(Vec::new()),
            _ => Err(StoreError::io("read", &path)(error)),
        })?;
        // What is half-written is not relied on yet.
        let (digests, _) = bytes.as_chunks::<32>();
        held.extend(digests.iter().copied().map(ObjectDigest::from_bytes));
    }
    Ok(held)
}

/// Removes what dead processes left in `parent`. What cannot be removed now is left for later.
pub(crate) fn reclaim(parent: &Path) -> Result<(), StoreError> {
    let entries = fs::read_dir(parent).map_err(StoreError::io("list", parent))?;
    for entry in entries.flatten() {
        // Either the lock or, after a power cut, the directory may be there alone.
        let directory = entry.path().with_extension("");
        let lock_path = directory.with_extension("lock");
        let Ok(lock) = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
        else {
            continue;
        };
        match lock.try_lock() {
            Ok(()) if is_file_at(&lock, &lock_path) => {
                // The lock goes last: while the directory is there, somebody can find it.
                if !directory.exists() || fs::remove_dir_all(&directory).is_ok() {
                    let _ = fs::remove_file(&lock_path);
                }
            }
            Ok(()) | Err(TryLockError::WouldBlock | TryLockError::Error(_)) => {}
        }
    }
    Ok(())
}

/// Whether `path` still names the open `file`.
fn is_file_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn what_a_dead_process_left_is_reclaimed_and_what_a_live_one_has_is_not() {
        let parent = tempfile::tempdir().unwrap();
        let live = Staging::create(parent.path()).unwrap();
        let real: Arc<dyn FileSystem> = Arc::new(crate::file_system::RealFileSystem);
        let mut staged = live.file(&real).unwrap();
        staged.write_all(b"live").unwrap();
        // A process that was killed: both are there, nobody holds the lock.
        fs::create_dir(parent.path().join("dead")).unwrap();
        fs::write(parent.path().join("dead/half"), b"half").unwrap();
        fs::write(parent.path().join("dead.lock"), b"").unwrap();
        // Only one of the two reached the disk.
        fs::create_dir(parent.path().join("alone")).unwrap();
        fs::write(parent.path().join("single.lock"), b"").unwrap();

        reclaim(parent.path()).unwrap();
        assert_eq!(names(parent.path()).len(), 2);
        assert!(staged.path().exists());

        drop(staged);
        drop(live);
        assert!(names(parent.path()).is_empty());
    }
}
