//! A plain directory as a bucket: for trying things out, for tests, and for
//! an Airflow that reads its DAGs from a disk.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;

use super::{
    Bucket, BucketError, BucketLocation, Checksums, Listing, ObjectKey, ReadObject,
    StorageGeneration, StoredObject, WriteCondition,
};

/// A directory whose files are the objects; it is created by the first write.
///
/// Writers exclude each other by a lock on `.forebay-lock` in the directory's
/// root; a file appears complete, by a rename of `.forebay-write` in its own
/// folder, which may be a mount or a link to another file system. Both names
/// are hidden from listings. The "server's clock" is this machine's.
///
/// A file's generation is a digest of its inode, modification time and
/// content, so that a rewrite is seen even within one tick of the clock
/// unless it writes the same bytes.
#[derive(Debug, Clone)]
pub struct DirectoryBucket {
    root: PathBuf,
    location: BucketLocation,
}

const LOCK: &str = ".forebay-lock";
const STAGED: &str = ".forebay-write";

impl DirectoryBucket {
    /// Touches nothing yet.
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            location: BucketLocation::Directory {
                path: root.to_owned(),
            },
        }
    }

    /// Runs blocking work off the async threads.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, BucketError> + Send + 'static,
    ) -> Result<T, BucketError> {
        let this = self.clone();
        tokio::task::spawn_blocking(move || work(&this))
            .await
            .unwrap_or_else(|error| {
                Err(BucketError::Io {
                    action: format!("working in {}", self.root.display()),
                    source: io::Error::other(error),
                })
            })
    }

    /// Held while an object is checked and changed; released when dropped.
    fn lock(&self) -> Result<File, BucketError> {
        create_folder(&self.root)?;
        let path = self.root.join(LOCK);
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(during("opening", &path))?;
        file.lock().map_err(during("locking", &path))?;
        Ok(file)
    }

    fn condition_failed(&self, key: &ObjectKey) -> BucketError {
        BucketError::ConditionFailed {
            bucket: self.location.to_string(),
            key: key.to_string(),
        }
    }

    fn list_blocking(&self, prefix: &str) -> Result<Listing, BucketError> {
        let server_time = Timestamp::now();
        // Whole folders of the prefix need no look at their siblings.
        let start = prefix.rsplit_once('/').map_or("", |(folder, _)| folder);
        let mut objects = Vec::new();
        let start = self.root.join(start);
        if !start.starts_with(&self.root) || !start.exists() {
            return Ok(Listing {
                objects,
                server_time,
            });
        }
        for entry in walkdir::WalkDir::new(&start) {
            let entry = entry.map_err(|error| BucketError::Io {
                action: format!("listing {}", start.display()),
                source: error.into(),
            })?;
            let Ok(relative) = entry.path().strip_prefix(&self.root) else {
                continue;
            };
            let key = relative.to_string_lossy();
            if entry.file_type().is_dir()
                || key == LOCK
                || entry.file_name() == STAGED
                || !key.starts_with(prefix)
            {
                continue;
            }
            if let Some((object, _)) = inspect(entry.path(), &key)? {
                objects.push(object);
            }
        }
        objects.sort_by(|one, other| one.key.cmp(&other.key));
        Ok(Listing {
            objects,
            server_time,
        })
    }

    fn write_blocking(
        &self,
        key: &ObjectKey,
        bytes: &[u8],
        condition: WriteCondition,
    ) -> Result<StoredObject, BucketError> {
        let _lock = self.lock()?;
        let path = self.root.join(key.as_str());
        let holds = match (condition, inspect(&path, key.as_str())?) {
            // Something that is not a file, such as a dangling link, is not absent either.
            (WriteCondition::Absent, None) => path.symlink_metadata().is_err(),
            (WriteCondition::Unchanged(seen), Some((object, _))) => object.generation == seen,
            _ => false,
        };
        if !holds {
            return Err(self.condition_failed(key));
        }
        let folder = path.parent().unwrap_or(&self.root);
        create_folder(folder)?;
        let staged = folder.join(STAGED);
        // The lock is ours: what lies there is left of a writer that died.
        match fs::remove_file(&staged) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(during("removing", &staged)(error));
            }
            _ => {}
        }
        File::create_new(&staged)
            .and_then(|mut file| {
                file.write_all(bytes)?;
                file.sync_all()
            })
            .map_err(during("writing", &staged))?;
        fs::rename(&staged, &path).map_err(during("writing", &path))?;
        sync_folder(folder)?;
        inspect(&path, key.as_str())?
            .map(|(object, _)| object)
            .ok_or_else(|| self.condition_failed(key))
    }

    fn delete_blocking(
        &self,
        key: &ObjectKey,
        generation: StorageGeneration,
    ) -> Result<(), BucketError> {
        let path = self.root.join(key.as_str());
        if path.symlink_metadata().is_err() {
            return Ok(());
        }
        let _lock = self.lock()?;
        match inspect(&path, key.as_str())? {
            None => Ok(()),
            Some((object, _)) if object.generation == generation => {
                fs::remove_file(&path).map_err(during("deleting", &path))?;
                sync_folder(path.parent().unwrap_or(&self.root))
            }
            Some(_) => Err(self.condition_failed(key)),
        }
    }
}

fn during(action: &str, path: &Path) -> impl FnOnce(io::Error) -> BucketError {
    let action = format!("{action} {}", path.display());
    move |source| BucketError::Io { action, source }
}

/// Creates a folder with its parents, each durably.
fn create_folder(folder: &Path) -> Result<(), BucketError> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = match folder.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    create_folder(parent)?;
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists || !folder.is_dir() => {
            Err(during("creating", folder)(error))
        }
        // Somebody else may have been faster, and not have synced it yet.
        _ => sync_folder(parent),
    }
}

fn sync_folder(folder: &Path) -> Result<(), BucketError> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(during("syncing", folder))
}

/// Reads a file; `None` if there is none. Links are followed.
fn inspect(path: &Path, key: &str) -> Result<Option<(StoredObject, Vec<u8>)>, BucketError> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Ok(None),
        _ => Err(during("reading", path)(error)),
    };
    let metadata = match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => metadata,
        Ok(_) => return Ok(None),
        Err(error) => return failed(error),
    };
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) => return failed(error),
    };
    let checksums = Checksums::of(&bytes);
    let mut hasher = blake3::Hasher::new();
    hasher.update(&metadata.ino().to_le_bytes());
    hasher.update(&metadata.mtime().to_le_bytes());
    hasher.update(&metadata.mtime_nsec().to_le_bytes());
    hasher.update(&bytes);
    let mut generation = [0; 8];
    hasher.finalize_xof().fill(&mut generation);
    let updated = Timestamp::new(
        metadata.mtime(),
        i32::try_from(metadata.mtime_nsec()).unwrap_or_default(),
    )
    .unwrap_or_default();
    let object = StoredObject {
        key: key.to_owned(),
        size: checksums.size,
        generation: StorageGeneration(u64::from_le_bytes(generation)),
        crc32c: Some(checksums.crc32c),
        md5: Some(checksums.md5),
        updated,
    };
    Ok(Some((object, bytes)))
}

#[async_trait]
impl Bucket for DirectoryBucket {
    fn location(&self) -> &BucketLocation {
        &self.location
    }

    async fn list(&self, prefix: &str) -> Result<Listing, BucketError> {
        let prefix = prefix.to_owned();
        self.run(move |this| this.list_blocking(&prefix)).await
    }

    async fn read(&self, key: &ObjectKey) -> Result<Option<ReadObject>, BucketError> {
        let key = key.clone();
        self.run(move |this| {
            let server_time = Timestamp::now();
            let found = inspect(&this.root.join(key.as_str()), key.as_str())?;
            Ok(found.map(|(object, bytes)| ReadObject {
                object,
                bytes: bytes.into(),
                server_time,
            }))
        })
        .await
    }

    async fn write(
        &self,
        key: &ObjectKey,
        bytes: Bytes,
        condition: WriteCondition,
    ) -> Result<StoredObject, BucketError> {
        let key = key.clone();
        self.run(move |this| this.write_blocking(&key, &bytes, condition))
            .await
    }

    async fn delete(
        &self,
        key: &ObjectKey,
        generation: StorageGeneration,
    ) -> Result<(), BucketError> {
        let key = key.clone();
        self.run(move |this| this.delete_blocking(&key, generation))
            .await
    }
}
