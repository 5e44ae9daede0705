//! Listing a directory tree.

use std::fs::{self, DirEntry, FileType};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use super::stat::Stat;
use super::{TreeEntry, TreeEntryKind};
use crate::StoreError;

/// A regular file, not read yet.
#[derive(Debug, Clone)]
pub(super) struct FoundFile {
    /// Relative, with `/`.
    pub(super) path: String,
    pub(super) stat: Stat,
    pub(super) executable: bool,
}

/// All that is under a directory; each list sorted by path.
#[derive(Debug, Default)]
pub(super) struct Walked {
    pub(super) files: Vec<FoundFile>,
    pub(super) symlinks: Vec<TreeEntry>,
    pub(super) skipped: Vec<String>,
}

/// Lists what is under `directory`, without what `skip` says.
///
/// What is deleted meanwhile is not listed.
pub(super) fn walk(
    directory: &Path,
    skip: &dyn Fn(&str, bool) -> bool,
) -> Result<Walked, StoreError> {
    let mut walked = Walked::default();
    // Absolute path, and the relative one with a `/` behind it.
    let mut pending = vec![(directory.to_owned(), String::new())];
    while let Some((absolute, relative)) = pending.pop() {
        let entries = match fs::read_dir(&absolute) {
            Err(error) if is_gone(&error) && !relative.is_empty() => continue,
            listed => listed.map_err(StoreError::io("list", &absolute))?,
        };
        for entry in entries {
            let entry = entry.map_err(StoreError::io("list", &absolute))?;
            if let Some(directory) = visit(&entry, &relative, skip, &mut walked)? {
                pending.push(directory);
            }
        }
    }
    walked
        .files
        .sort_unstable_by(|one, other| one.path.cmp(&other.path));
    walked.skipped.sort_unstable();
    Ok(walked)
}

/// Notes one entry; gives it back if it is a directory to be listed.
fn visit(
    entry: &DirEntry,
    parent: &str,
    skip: &dyn Fn(&str, bool) -> bool,
    walked: &mut Walked,
) -> Result<Option<(PathBuf, String)>, StoreError> {
    let file_type = match entry.file_type() {
        Err(error) if is_gone(&error) => return Ok(None),
        found => found.map_err(StoreError::io("read", &entry.path()))?,
    };
    let name = entry.file_name();
    let mut path = String::with_capacity(parent.len() + name.len() + 1);
    path.push_str(parent);
    path.push_str(&name.to_string_lossy());
    if skip(&path, file_type.is_dir()) {
        walked.skipped.push(path);
        return Ok(None);
    }
    if name.to_str().is_none() {
        return Err(StoreError::NotUtf8 { path: entry.path() });
    }
    if file_type.is_dir() {
        path.push('/');
        return Ok(Some((entry.path(), path)));
    }
    if file_type.is_symlink() {
        let target = match fs::read_link(entry.path()) {
            Err(error) if is_gone(&error) => return Ok(None),
            read => read.map_err(StoreError::io("read", &entry.path()))?,
        };
        let target = target
            .into_os_string()
            .into_string()
            .map_err(|_| StoreError::NotUtf8 { path: entry.path() })?;
        walked.symlinks.push(TreeEntry {
            path,
            kind: TreeEntryKind::Symlink { target },
        });
        return Ok(None);
    }
    if !file_type.is_file() {
        return Err(StoreError::SpecialFile {
            path: entry.path(),
            kind: kind_of(file_type),
        });
    }
    let metadata = match entry.metadata() {
        Err(error) if is_gone(&error) => return Ok(None),
        found => found.map_err(StoreError::io("read", &entry.path()))?,
    };
    walked.files.push(FoundFile {
        path,
        stat: Stat::of(&metadata),
        executable: is_executable(metadata.mode()),
    });
    Ok(None)
}

/// Whether the owner may execute a file of that mode.
pub(super) fn is_executable(mode: u32) -> bool {
    mode & 0o100 != 0
}

pub(super) fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

pub(super) fn kind_of(file_type: FileType) -> &'static str {
    if file_type.is_socket() {
        "socket"
    } else if file_type.is_fifo() {
        "named pipe"
    } else {
        "device"
    }
}
