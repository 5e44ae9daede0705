//! Opening the index of a store, and making it if it is missing or damaged.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::file_system::{FileSystem, RealFileSystem};
use crate::index::Index;
use crate::layout::Layout;
use crate::rebuild::Survey;
use crate::{StoreError, durable};

/// How long an open waits for others to create, rebuild or let go of the index.
const OPEN_TIMEOUT: Duration = Duration::from_secs(60);

/// Opens the index and the lock that keeps it in place; first makes both if need be.
pub(crate) fn open_index(
    layout: &Layout,
    file_system: &Arc<dyn FileSystem>,
) -> Result<(Index, File), StoreError> {
    let lock_path = layout.lock();
    let deadline = Instant::now() + OPEN_TIMEOUT;
    let mut made = false;
    loop {
        let lock = open_lock(layout, &lock_path)?;
        lock.lock_shared()
            .map_err(StoreError::io("lock", &lock_path))?;
        if let Some(index) = Index::open(layout, file_system)? {
            return Ok((index, lock));
        }
        lock.unlock()
            .map_err(StoreError::io("unlock", &lock_path))?;
        // Another process may be about to do the same; whoever comes second finds it done.
        match lock.try_lock() {
            Ok(()) if Index::open(layout, file_system)?.is_some() => {}
            // Once more would only fill `corrupt/`.
            Ok(()) if made => {
                return Err(StoreError::IndexNotKept {
                    path: layout.index(),
                });
            }
            Ok(()) => {
                create_index(layout)?;
                made = true;
            }
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(5));
            }
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::InUse {
                    path: layout.index(),
                });
            }
            Err(TryLockError::Error(error)) => {
                return Err(StoreError::io("lock", &lock_path)(error));
            }
        }
    }
}

fn open_lock(layout: &Layout, lock_path: &Path) -> Result<File, StoreError> {
    let open = || {
        OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(lock_path)
    };
    match open() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            fs::create_dir_all(layout.root()).map_err(StoreError::io("create", layout.root()))?;
            open()
        }
        opened => opened,
    }
    .map_err(StoreError::io("open", lock_path))
}

/// Makes the directories and the index. The caller holds the lock exclusively.
fn create_index(layout: &Layout) -> Result<(), StoreError> {
    for directory in layout.directories() {
        durable::create_directory(&RealFileSystem, &directory)?;
    }
    move_index_aside(layout)?;
    let mut survey = Survey::default();
    survey.extend(layout)?;
    Index::create(layout, &survey.additions())?;
    // The directories' names, and the index's.
    durable::sync_directory(&RealFileSystem, layout.root())?;
    match layout.root().parent() {
        Some(parent) => durable::sync_directory(&RealFileSystem, parent),
        None => Ok(()),
    }
}

/// Keeps what is left of an index that cannot be used, for people to look at.
fn move_index_aside(layout: &Layout) -> Result<(), StoreError> {
    let files: Vec<PathBuf> = layout
        .index_files()
        .into_iter()
        .filter(|path| path.symlink_metadata().is_ok())
        .collect();
    if files.is_empty() {
        return Ok(());
    }
    let aside = tempfile::Builder::new()
        .prefix("index-")
        .tempdir_in(layout.corrupt())
        .map_err(StoreError::io("create a directory in", &layout.corrupt()))?
        .keep();
    for path in files {
        if let Some(name) = path.file_name() {
            fs::rename(&path, aside.join(name)).map_err(StoreError::io("move", &path))?;
        }
    }
    Ok(())
}
