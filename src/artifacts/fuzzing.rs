//! See [`crate::fuzzing`].
#![allow(clippy::unwrap_used, missing_docs)]

use super::LockFile;

/// `forebay.lock` is refused, or the same when it is written and read again.
pub fn lock_file(bytes: &[u8]) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(LockFile::NAME);
    std::fs::write(&path, bytes).unwrap();
    if let Ok(lock) = LockFile::read(directory.path()) {
        lock.write().unwrap();
        let written = std::fs::read(&path).unwrap();
        LockFile::read(directory.path()).unwrap().write().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), written);
    }
}
