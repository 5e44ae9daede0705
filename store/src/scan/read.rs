//! Reading the files that have, or may have, changed.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::ScanStep;
use super::stat::Stat;
use super::walk::{FoundFile, is_executable, is_gone};
use crate::{ObjectDigest, StoreError};

/// How often a file that changes under the reader is read anew.
const ATTEMPTS: usize = 5;
/// From this many files on, another thread is worth starting.
const FILES_PER_THREAD: usize = 64;

/// What a file was when its bytes had that digest: its metadata, whether it is executable.
pub(super) type ReadFile = (Stat, bool, ObjectDigest);

/// Reads all `files` under `directory`, on several threads if they are many. Gives
/// none for a file that is gone.
pub(super) fn read_all(
    directory: &Path,
    files: &[&FoundFile],
    watch: &(dyn Fn(ScanStep) + Sync),
) -> Result<Vec<Option<ReadFile>>, StoreError> {
    let threads = thread::available_parallelism()
        .map_or(1, usize::from)
        .min(files.len() / FILES_PER_THREAD + 1);
    let next = AtomicUsize::new(0);
    let work = || {
        let mut buffer = vec![0; 128 * 1024];
        let mut done = Vec::new();
        loop {
            let position = next.fetch_add(1, Ordering::Relaxed);
            let Some(file) = files.get(position) else {
                return Ok(done);
            };
            done.push((position, read(directory, file, &mut buffer)?));
            watch(ScanStep::Read {
                bytes: file.stat.size,
            });
        }
    };
    let mut results = Vec::with_capacity(files.len());
    if threads == 1 {
        results = work()?;
    } else {
        thread::scope(|scope| {
            let handles: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            for handle in handles {
                match handle.join() {
                    Ok(done) => results.extend(done?),
                    Err(panicked) => std::panic::resume_unwind(panicked),
                }
            }
            Ok(())
        })?;
    }
    results.sort_unstable_by_key(|(position, _)| *position);
    Ok(results.into_iter().map(|(_, read)| read).collect())
}

fn read(
    directory: &Path,
    found: &FoundFile,
    buffer: &mut [u8],
) -> Result<Option<ReadFile>, StoreError> {
    let path = directory.join(&found.path);
    for _ in 0..ATTEMPTS {
        match read_once(&path, found, buffer) {
            Ok(Some(read)) => return Ok(Some(read)),
            Ok(None) => {}
            Err(error) if is_gone(&error) => return Ok(None),
            Err(error) => return Err(StoreError::io("read", &path)(error)),
        }
    }
    Err(StoreError::Changing { path })
}

/// None if the file was not the same before and after.
fn read_once(path: &Path, found: &FoundFile, buffer: &mut [u8]) -> io::Result<Option<ReadFile>> {
    let mut file = File::open(path)?;
    if let Some(digest) = read_all_of(&mut file, found.stat.size, buffer)?
        && Stat::of(&file.metadata()?) == found.stat
    {
        // It was listed, opened and read with the same metadata: no need to look before, too.
        return Ok(Some((found.stat, found.executable, digest)));
    }
    let mut file = File::open(path)?;
    let before = file.metadata()?;
    let identity = (before.dev(), before.ino());
    if identity != (found.stat.device, found.stat.inode) {
        // Replaced since it was listed; by a symbolic link, perhaps, that has been followed.
        let named = fs::symlink_metadata(path)?;
        if !before.is_file() || identity != (named.dev(), named.ino()) {
            return Ok(None);
        }
    }
    let stat = Stat::of(&before);
    let Some(digest) = read_all_of(&mut file, stat.size, buffer)? else {
        return Ok(None);
    };
    if Stat::of(&file.metadata()?) != stat {
        return Ok(None);
    }
    Ok(Some((stat, is_executable(before.mode()), digest)))
}

/// The digest of the file's first `size` bytes; none if it has fewer. Whether more came
/// behind is seen from the metadata, without another read.
fn read_all_of(file: &mut File, size: u64, buffer: &mut [u8]) -> io::Result<Option<ObjectDigest>> {
    let mut hasher = blake3::Hasher::new();
    let mut done = 0;
    while done < size {
        match file.read(buffer) {
            Ok(0) => return Ok(None),
            Ok(read) => {
                hasher.update(buffer.get(..read).unwrap_or_default());
                done += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let digest = ObjectDigest::from_bytes(*hasher.finalize().as_bytes());
    Ok((done == size).then_some(digest))
}
