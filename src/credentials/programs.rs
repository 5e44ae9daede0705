//! Other programs that know logins.

use std::ffi::OsStr;
use std::path::PathBuf;

/// The directories that programs are sought in.
pub(super) fn path_of_process() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        // An empty entry means the current directory, which may be anybody's.
        .filter(|directory| directory.is_absolute())
        .collect()
}

/// The first program of this name.
pub(super) fn find(directories: &[PathBuf], name: impl AsRef<OsStr>) -> Option<PathBuf> {
    (directories.iter())
        .map(|directory| directory.join(name.as_ref()))
        .find(|candidate| candidate.is_file())
}

/// A script in a directory of its own.
#[cfg(test)]
#[cfg(unix)]
pub(super) fn script(name: &str, text: &str) -> (tempfile::TempDir, PathBuf) {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join(name);
    std::fs::write(&file, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).unwrap();
    (directory, file)
}
