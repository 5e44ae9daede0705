//! A file system that fails or ends the process at a numbered call, and knows what a power
//! cut would undo.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tempfile::{NamedTempFile, PathPersistError, TempDir, TempPath};

use super::EINTR;
use crate::file_system::{FileSystem, RealFileSystem};

/// What happens at the chosen call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Fault {
    /// That call fails, later ones do not.
    Once(i32),
    /// That call and every later one fail: the process is as good as dead.
    FromThenOn(i32),
    /// The process ends, without any clean-up.
    Abort,
}

/// Does what it is asked on the real file system, and remembers what a power cut would undo.
#[derive(Debug)]
pub(crate) struct FaultyFileSystem {
    fault: Option<(usize, Fault)>,
    graveyard: tempfile::TempDir,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    calls: Vec<String>,
    /// Inodes of files whose bytes are not durable.
    unsynced: BTreeSet<u64>,
    /// How long the index's log was when it was last synced, and whether its name is durable.
    synced_log: u64,
    is_log_named: bool,
    /// Changes of names that are not durable, by directory.
    names: HashMap<PathBuf, Vec<NameChange>>,
}

#[derive(Debug)]
enum NameChange {
    Added(PathBuf),
    Directory(PathBuf),
    Removed { path: PathBuf, kept: PathBuf },
}

impl FaultyFileSystem {
    /// One with a fault at the call with that number, counted from 0.
    pub(crate) fn new(fault: Option<(usize, Fault)>) -> Arc<Self> {
        // Beside the stores of the tests, because what is removed is linked into it.
        Arc::new(Self {
            fault,
            graveyard: tempfile::tempdir().unwrap(),
            state: Mutex::default(),
        })
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        self.state.lock().unwrap().calls.clone()
    }

    fn call(&self, name: &str, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        let number = state.calls.len();
        state.calls.push(format!("{name} {}", path.display()));
        match self.fault {
            Some((at, Fault::Once(code))) if number == at => {
                Err(io::Error::from_raw_os_error(code))
            }
            Some((at, Fault::FromThenOn(code))) if number >= at => {
                Err(io::Error::from_raw_os_error(code))
            }
            Some((at, Fault::Abort)) if number == at => std::process::abort(),
            _ => Ok(()),
        }
    }

    fn change(&self, change: NameChange) {
        let (NameChange::Added(path)
        | NameChange::Directory(path)
        | NameChange::Removed { path, .. }) = &change;
        let parent = path.parent().unwrap().to_owned();
        let mut state = self.state.lock().unwrap();
        state.names.entry(parent).or_default().push(change);
    }

    /// How long the index's log was when it was last synced.
    pub(crate) fn synced_log(&self) -> u64 {
        self.state.lock().unwrap().synced_log
    }

    /// The store at `root` as a disk has it after a power cut now. Bytes that were not synced
    /// are lost; a disk may have written the rest of its own accord, in any order.
    pub(crate) fn cut_power(&self, root: &Path, lost: Lost) -> TempDir {
        let state = self.state.lock().unwrap();
        let disk = tempfile::tempdir().unwrap();
        copy_synced(root, disk.path(), &state.unsynced);
        let index = |suffix: &str| disk.path().join(format!("index.sqlite{suffix}"));
        let _ = fs::remove_file(index("-shm"));
        if lost.log {
            let log = OpenOptions::new().write(true).open(index("-wal"));
            log.unwrap().set_len(state.synced_log).unwrap();
        }
        if lost.names {
            // Nobody syncs that mark.
            let _ = fs::remove_file(index("-damaged"));
            if !state.is_log_named {
                let _ = fs::remove_file(index("-wal"));
            }
            let there = |path: &Path| disk.path().join(path.strip_prefix(root).unwrap());
            let changes: Vec<_> = state.names.values().flatten().collect();
            for change in changes.into_iter().rev() {
                let _ = match change {
                    NameChange::Added(path) => fs::remove_file(there(path)),
                    NameChange::Directory(path) => fs::remove_dir_all(there(path)),
                    NameChange::Removed { path, kept } => fs::copy(kept, there(path)).map(|_| ()),
                };
            }
        }
        disk
    }
}

/// What a power cut undoes besides the bytes of unsynced files.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lost {
    /// Names that were given or removed in folders that were not synced since.
    pub(crate) names: bool,
    /// What SQLite has appended to its log since that was synced.
    pub(crate) log: bool,
}

impl Lost {
    /// Each with and without the other.
    pub(crate) fn each() -> impl Iterator<Item = Self> {
        [false, true].into_iter().flat_map(|names| {
            [false, true]
                .into_iter()
                .map(move |log| Self { names, log })
        })
    }
}

/// Copies a directory; of files whose bytes are not durable, the names alone.
pub(crate) fn copy_synced(from: &Path, to: &Path, unsynced: &BTreeSet<u64>) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy_synced(&path, &target, unsynced);
        } else if unsynced.contains(&entry.metadata().unwrap().ino()) {
            File::create(&target).unwrap();
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}
impl FileSystem for FaultyFileSystem {
    fn create_staged(&self, directory: &Path) -> io::Result<NamedTempFile> {
        self.call("create in", directory)?;
        RealFileSystem.create_staged(directory)
    }

    fn write(&self, staged: &mut NamedTempFile, bytes: &[u8]) -> io::Result<usize> {
        let outcome = self.call("write", staged.path());
        // A full disk takes a part; and every write may be a short one.
        let part = match outcome {
            Err(_) => 1,
            Ok(()) => bytes.len().div_ceil(2),
        };
        let inode = staged.as_file().metadata()?.ino();
        self.state.lock().unwrap().unsynced.insert(inode);
        if let Err(error) = &outcome
            && error.raw_os_error() == Some(EINTR)
        {
            // The system says so only if nothing was written.
            return Err(io::Error::from_raw_os_error(EINTR));
        }
        let written = RealFileSystem.write(staged, bytes.get(..part).unwrap_or(bytes))?;
        outcome.map(|()| written)
    }

    fn seal(&self, staged: &NamedTempFile) -> io::Result<()> {
        self.call("seal", staged.path())?;
        RealFileSystem.seal(staged)?;
        let inode = staged.as_file().metadata()?.ino();
        self.state.lock().unwrap().unsynced.remove(&inode);
        Ok(())
    }

    fn rename_new(&self, staged: TempPath, target: &Path) -> Result<(), PathPersistError> {
        if let Err(error) = self.call("rename to", target) {
            return Err(PathPersistError {
                error,
                path: staged,
            });
        }
        RealFileSystem.rename_new(staged, target)?;
        self.change(NameChange::Added(target.to_owned()));
        Ok(())
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        self.call("sync", directory)?;
        RealFileSystem.sync_directory(directory)?;
        let mut state = self.state.lock().unwrap();
        state.names.remove(directory);
        state.is_log_named |= directory.join("index.sqlite-wal").exists();
        Ok(())
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        self.call("sync", path)?;
        RealFileSystem.sync_file(path)?;
        let length = fs::metadata(path)?.len();
        self.state.lock().unwrap().synced_log = length;
        Ok(())
    }

    fn create_directory(&self, directory: &Path) -> io::Result<()> {
        self.call("create", directory)?;
        RealFileSystem.create_directory(directory)?;
        self.change(NameChange::Directory(directory.to_owned()));
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.call("remove", path)?;
        let number = self.state.lock().unwrap().calls.len();
        let kept = self.graveyard.path().join(number.to_string());
        fs::hard_link(path, &kept)?;
        RealFileSystem.remove_file(path)?;
        self.change(NameChange::Removed {
            path: path.to_owned(),
            kept,
        });
        Ok(())
    }
}
