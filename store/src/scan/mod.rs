//! Scanning a directory without reading again what has not changed.
//!
//! The stat cache follows git's ("racy git" in git's technical documentation):
//! a file whose size, modification and change times, inode and device are those
//! of the last scan is not read, unless one of the times is not older than that
//! scan. Such a file could have been edited after it was read, within one tick
//! of the file system's clock. Where the clock has been set back since, every file
//! is read: its times may come a second time.

mod read;
pub(crate) mod record;
mod stat;
mod tree;
mod walk;

use std::cmp::Ordering;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

pub use tree::{Tree, TreeEntry, TreeEntryKind};

use crate::inner::Inner;
use crate::{ObjectDigest, StoreError};
use record::{KnownFile, ScanRecord};
use stat::Time;
use walk::FoundFile;

/// How far a scan is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScanStep {
    /// The folder is listed; files with so many bytes have to be read.
    Listed {
        /// Their sizes, added up.
        bytes: u64,
    },
    /// A file was read.
    Read {
        /// Its size.
        bytes: u64,
    },
}

/// See [`crate::Store::scan_watched`].
pub(crate) fn scan(
    store: &Inner,
    directory: &Path,
    skip: &dyn Fn(&str, bool) -> bool,
    watch: &(dyn Fn(ScanStep) + Sync),
) -> Result<Tree, StoreError> {
    let directory = fs::canonicalize(directory).map_err(StoreError::io("scan", directory))?;
    let walked = walk::walk(&directory, skip)?;
    let path = store
        .layout
        .trees()
        .join(record::name(&directory).to_string());
    let mut last = ScanRecord::load(&path, &directory);
    if last.time > Time::now() {
        last = ScanRecord::default();
    }
    let Matched {
        digests,
        kept,
        gone,
    } = match_files(&walked.files, &walked.skipped, &last);

    let to_read: Vec<&FoundFile> = walked
        .files
        .iter()
        .zip(&digests)
        .filter(|(_, digest)| digest.is_none())
        .map(|(file, _)| file)
        .collect();
    let time = if to_read.is_empty() {
        last.time
    } else {
        time_to_read(store, &to_read)?
    };
    if !to_read.is_empty() {
        let bytes = to_read.iter().map(|file| file.stat.size).sum();
        watch(ScanStep::Listed { bytes });
    }
    let read = read::read_all(&directory, &to_read, watch)?;
    let read_again = read.len();

    // Of what is all known there is nothing to write down.
    let is_to_be_saved = read_again > 0 || gone;
    let mut read = read.into_iter();
    let mut known = Vec::new();
    if is_to_be_saved {
        known.reserve(walked.files.len() + kept.len());
    }
    let mut entries = walked.symlinks;
    entries.reserve(walked.files.len());
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
        if is_to_be_saved {
            known.push(KnownFile {
                path: found.path.clone(),
                stat: found.stat,
                digest,
            });
        }
        entries.push(TreeEntry {
            path: found.path,
            kind: TreeEntryKind::File {
                digest,
                size: found.stat.size,
                executable: found.executable,
            },
        });
    }
    entries.sort_unstable_by(|one, other| one.path.cmp(&other.path));

    if is_to_be_saved {
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
    let metadata = fs::metadata(file.path()).map_err(StoreError::io("read", file.path()))?;
    Ok(Time::modified(&metadata))
}

/// Replaces the record. It is not synced: a torn one does not have the digest that ends it.
fn save(store: &Inner, path: &Path, record: &[u8]) -> Result<(), StoreError> {
    let mut staged = store.staged_file()?;
    staged.append(record)?;
    staged
        .into_temp_path()
        .persist(path)
        .map_err(|refused| StoreError::io("write", path)(refused.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use stat::Stat;

    const SCANNED: Time = Time {
        seconds: 100,
        nanoseconds: 0,
    };

    fn stat(seconds: i64) -> Stat {
        let time = Time {
            seconds,
            nanoseconds: 1,
        };
        Stat {
            size: 1,
            modified: time,
            changed: time,
            inode: 1,
            device: 1,
        }
    }

    fn found(path: &str, seconds: i64) -> FoundFile {
        FoundFile {
            path: path.to_owned(),
            stat: stat(seconds),
            executable: false,
        }
    }

    fn record(files: &[(&str, i64)]) -> ScanRecord {
        let files = files
            .iter()
            .map(|(path, seconds)| KnownFile {
                path: (*path).to_owned(),
                stat: stat(*seconds),
                digest: ObjectDigest::of(path.as_bytes()),
            })
            .collect();
        ScanRecord {
            time: SCANNED,
            files,
        }
    }

    #[test]
    fn a_file_is_known_if_nothing_differs_and_it_is_older_than_the_scan() {
        let last = record(&[("a", 99), ("b", 99), ("racy", 100), ("z", 99)]);
        let now = [
            found("a", 99),
            found("b", 98),
            found("new", 99),
            found("racy", 100),
            found("z", 99),
        ];
        let matched = match_files(&now, &[], &last);
        let known = |path: &str| Some(ObjectDigest::of(path.as_bytes()));
        assert_eq!(matched.digests, [known("a"), None, None, None, known("z")]);
        assert!(!matched.gone);
    }

    #[test]
    fn what_is_skipped_stays_known_unless_it_is_racy_or_gone() {
        let last = record(&[
            ("a", 99),
            ("lib/old", 99),
            ("lib/racy", 100),
            ("lib.py", 99),
        ]);
        let skipped = ["lib".to_owned()];
        let matched = match_files(&[found("a", 99)], &skipped, &last);
        let kept: Vec<_> = matched.kept.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(kept, ["lib/old"]);
        assert!(matched.gone);
        let last = record(&[("a", 99), ("lib/old", 99)]);
        assert!(!match_files(&[found("a", 99)], &skipped, &last).gone);
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let directory = Path::new("/some/where");
        let record = record(&[("a", 1), ("a/b/c", 2), ("a/b/é", -3), ("b", 4)]);
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(&file, record.encode(directory)).unwrap();
        assert_eq!(ScanRecord::load(file.path(), directory), record);
        // Another directory's record, under a name that collides.
        let other = ScanRecord::load(file.path(), Path::new("/else"));
        assert_eq!(other, ScanRecord::default());
    }
}
