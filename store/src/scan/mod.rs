//! Scanning a directory without reading again what has not changed.
//!
//! The stat cache follows git's ("racy git" in git's technical documentation):
//! a file whose size, modification and change times, inode and device are those
//! of the last scan is not read, unless one of the times is not older than that
//! scan. Such a file could have been edited after it was read, within one tick
//! of the file system's clock.

mod read;
mod record;
mod stat;
mod tree;
mod walk;

use std::cmp::Ordering;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

pub use tree::{Tree, TreeEntry, TreeEntryKind};

use crate::store::Inner;
use crate::{ObjectDigest, StoreError, durable};
use record::{KnownFile, ScanRecord};
use stat::Time;
use walk::FoundFile;

/// See [`crate::Store::scan`].
pub(crate) fn scan(
    store: &Inner,
    directory: &Path,
    skip: &dyn Fn(&str, bool) -> bool,
) -> Result<Tree, StoreError> {
    let directory = fs::canonicalize(directory).map_err(StoreError::io("scan", directory))?;
    let walked = walk::walk(&directory, skip)?;
    let path = store
        .layout
        .trees()
        .join(record::name(&directory).to_string());
    let last = ScanRecord::load(&path, &directory);
    let Matched {
        digests,
        kept,
        gone,
    } = match_files(&walked.files, &walked.skipped, &last);

    let unknown: Vec<usize> = (0..digests.len())
        .filter(|position| digests.get(*position).is_some_and(Option::is_none))
        .collect();
    let to_read: Vec<&FoundFile> = unknown
        .iter()
        .filter_map(|position| walked.files.get(*position))
        .collect();
    let time = if to_read.is_empty() {
        last.time
    } else {
        time_to_read(store, &to_read)?
    };
    let read = read::read_all(&directory, &to_read)?;
    let read_again = read.len();

    let mut read = read.into_iter();
    let mut known = Vec::with_capacity(walked.files.len() + kept.len());
    let mut entries = walked.symlinks;
    for (found, digest) in walked.files.into_iter().zip(digests) {
        let (found, digest) = match digest {
            Some(digest) => (found, digest),
            None => match read.next().flatten() {
                Some((stat, executable, digest)) => {
                    let found = FoundFile {
                        stat,
                        executable,
                        ..found
                    };
                    (found, digest)
                }
                // Deleted since it was listed.
                None => continue,
            },
        };
        entries.push(TreeEntry {
            path: found.path.clone(),
            kind: TreeEntryKind::File {
                digest,
                size: found.stat.size,
                executable: found.executable,
            },
        });
        known.push(KnownFile {
            path: found.path,
            stat: found.stat,
            digest,
        });
    }
    entries.sort_unstable_by(|one, other| one.path.cmp(&other.path));

    if read_again > 0 || gone {
        known.extend(kept);
        known.sort_unstable_by(|one, other| one.path.cmp(&other.path));
        let record = ScanRecord { time, files: known };
        save(store, &path, &record.encode(&directory))?;
    }
    Ok(Tree {
        entries,
        read_again,
    })
}

struct Matched {
    /// For each file found, its digest if it is known.
    digests: Vec<Option<ObjectDigest>>,
    /// What the last scan knew of files that this one skips.
    kept: Vec<KnownFile>,
    /// Whether the record has files that are to be taken out of it.
    gone: bool,
}

/// Compares what was found with what the last scan knew. Both are sorted by path.
fn match_files(found: &[FoundFile], skipped: &[String], last: &ScanRecord) -> Matched {
    let mut matched = Matched {
        digests: Vec::with_capacity(found.len()),
        kept: Vec::new(),
        gone: false,
    };
    let mut known = last.files.iter().peekable();
    let unmatched = |file: &KnownFile, matched: &mut Matched| {
        // A racy one must be read; so it must not survive into a record of a later time.
        if is_skipped(&file.path, skipped) && !file.stat.is_racy(last.time) {
            matched.kept.push(file.clone());
        } else {
            matched.gone = true;
        }
    };
    for file in found {
        let mut digest = None;
        while let Some(next) = known.peek() {
            match next.path.cmp(&file.path) {
                Ordering::Less => unmatched(next, &mut matched),
                Ordering::Equal => {
                    if next.stat == file.stat && !next.stat.is_racy(last.time) {
                        digest = Some(next.digest);
                    }
                }
                Ordering::Greater => break,
            }
            known.next();
        }
        matched.digests.push(digest);
    }
    for file in known {
        unmatched(file, &mut matched);
    }
    matched
}

/// Whether `path` is one of the sorted `skipped` paths, or under one.
fn is_skipped(path: &str, skipped: &[String]) -> bool {
    let is_listed = |path: &str| {
        skipped
            .binary_search_by(|skipped| skipped.as_str().cmp(path))
            .is_ok()
    };
    is_listed(path)
        || path
            .match_indices('/')
            .any(|(end, _)| path.get(..end).is_some_and(is_listed))
}

/// The file system's time, taken before `files` are read.
///
/// Files that were changed within its current tick would be racy in the next
/// scan, and be read twice. A tick is some milliseconds, so it is waited for.
fn time_to_read(store: &Inner, files: &[&FoundFile]) -> Result<Time, StoreError> {
    const MAX_TICKS: usize = 20;
    let mut now = time_of_file_system(store)?;
    let latest = files
        .iter()
        .map(|file| file.stat.latest())
        .filter(|time| *time <= now)
        .max();
    for _ in 0..MAX_TICKS {
        if latest.is_none_or(|latest| latest < now) {
            break;
        }
        thread::sleep(Duration::from_millis(1));
        now = time_of_file_system(store)?;
    }
    Ok(now)
}

/// The clock that stamps files, which may lag the system's by a tick.
fn time_of_file_system(store: &Inner) -> Result<Time, StoreError> {
    let file = store.staged_file()?;
    let metadata = file
        .as_file()
        .metadata()
        .map_err(StoreError::io("read", file.path()))?;
    Ok(Time::modified(&metadata))
}

/// Replaces the record. It is not synced: a torn one does not have the digest that ends it.
fn save(store: &Inner, path: &Path, record: &[u8]) -> Result<(), StoreError> {
    let mut staged = store.staged_file()?;
    durable::write(&mut staged, record)?;
    staged
        .persist(path)
        .map_err(|refused| StoreError::io("write", path)(refused.error))?;
    Ok(())
}
