//! Opening a store, and asking it.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::collect::{self, CollectOptions, CollectReport};
use crate::durable::StagedFile;
use crate::file_system::{FileSystem, RealFileSystem};
use crate::index::Index;
use crate::layout::Layout;
use crate::object::{Located, ObjectFile, ObjectInfo, ObjectReader};
use crate::rebuild::{self, Survey};
use crate::scan::{self, Tree};
use crate::source::Source;
use crate::staging::{self, Staging};
use crate::{
    ArchiveReport, Artifact, Batch, Explanation, ListedObject, ObjectDigest, Realisation,
    RebuildReport, RecipeKey, Root, RootName, ScanStep, Sha256Digest, Stats, StoreError,
    VerifyOptions, VerifyReport, archive, durable, explain, verify,
};

/// How long an open waits for others to create, rebuild or let go of the index.
const OPEN_TIMEOUT: Duration = Duration::from_secs(60);

/// A store: immutable objects, realisations and roots under one directory.
///
/// Any number of processes and threads may use the same directory.
#[derive(Debug)]
pub struct Store {
    inner: Arc<Inner>,
    /// Where to look for what is not here.
    source: OnceLock<Arc<dyn Source>>,
    /// What another machine would ask for too.
    shared: Mutex<BTreeSet<RecipeKey>>,
}

/// What readers keep alive.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) layout: Layout,
    pub(crate) index: Index,
    pub(crate) file_system: Arc<dyn FileSystem>,
    /// Created by the first write.
    staging: Mutex<Option<Staging>>,
    /// Held shared: as long as it is, nobody replaces the index file.
    _lock: File,
}

impl Store {
    /// Opens the store in the directory `root`; creates it if it is absent. An
    /// index that is missing or damaged is rebuilt. What processes that died
    /// were writing is removed.
    ///
    /// # Errors
    /// [`StoreError::NewerSchema`] if a newer program wrote the index,
    /// [`StoreError::InUse`] if it must be rebuilt while others use the store,
    /// [`StoreError::Io`] and [`StoreError::Index`] from the system.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        Self::open_with(root, Arc::new(RealFileSystem))
    }

    /// [`Store::open`] on another file system.
    pub(crate) fn open_with(
        root: &Path,
        file_system: Arc<dyn FileSystem>,
    ) -> Result<Self, StoreError> {
        let root = std::path::absolute(root).map_err(StoreError::io("open", root))?;
        let layout = Layout::new(root);
        let (index, lock) = open_index(&layout, &file_system)?;
        staging::reclaim(&layout.staging())?;
        Ok(Self {
            inner: Arc::new(Inner {
                layout,
                index,
                file_system,
                staging: Mutex::new(None),
                _lock: lock,
            }),
            source: OnceLock::new(),
            shared: Mutex::default(),
        })
    }

    /// From now on, what this handle does not find here is looked for there. The first
    /// source stays.
    pub fn set_source(&self, source: Arc<dyn Source>) {
        let _ = self.source.set(source);
    }

    /// The directory that the store is.
    pub fn root(&self) -> &Path {
        self.inner.layout.root()
    }

    /// A directory for what can be made anew from the store's objects at any time, such as
    /// wheels that are laid out for an interpreter. It is the callers' to make and to clear:
    /// nothing in it is an object, and no collection looks there.
    pub fn scratch(&self) -> PathBuf {
        self.inner.layout.scratch()
    }

    /// Begins a batch. Nothing is written until something is put.
    ///
    /// # Errors
    /// None at present: what fails, fails in the batch.
    pub fn begin(&self) -> Result<Batch<'_>, StoreError> {
        Ok(Batch::new(self))
    }

    /// The names and size of an object; none if it is neither in the store nor promised by
    /// its source.
    ///
    /// # Errors
    /// From the index or the file system.
    pub fn info(&self, digest: &ObjectDigest) -> Result<Option<ObjectInfo>, StoreError> {
        match self.local_info(digest)? {
            None => Ok(self.source.get().and_then(|source| source.info(digest))),
            found => Ok(found),
        }
    }

    /// [`Store::info`] of what is in the store itself.
    ///
    /// # Errors
    /// From the index or the file system.
    pub fn local_info(&self, digest: &ObjectDigest) -> Result<Option<ObjectInfo>, StoreError> {
        match self.inner.locate(digest)? {
            Some(located) if self.inner.is_present(&located)? => Ok(Some(located.info)),
            _ => Ok(None),
        }
    }

    /// Has the source bring objects that are not here, at the same time. What it cannot
    /// bring fails when it is read.
    ///
    /// # Errors
    /// From the index or the file system.
    pub fn bring(&self, digests: &[ObjectDigest]) -> Result<(), StoreError> {
        let Some(source) = self.source.get() else {
            return Ok(());
        };
        let mut absent = Vec::new();
        for digest in digests {
            if self.local_info(digest)?.is_none() {
                absent.push(*digest);
            }
        }
        source.bring(self, &absent)
    }

    /// The names and size of the object with that SHA-256; none if it is not in the store.
    ///
    /// # Errors
    /// From the index or the file system.
    pub fn info_by_sha256(&self, digest: &Sha256Digest) -> Result<Option<ObjectInfo>, StoreError> {
        match self.inner.index.locate_by_sha256(digest)? {
            Some(located) => self.info(&located.info.digest),
            None => Ok(None),
        }
    }

    /// The whole object, verified. For small ones: it is held in memory.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Lost`] and [`StoreError::Damaged`], after
    /// which the store no longer says that it has the object, until it is put again.
    pub fn read(&self, digest: &ObjectDigest) -> Result<Vec<u8>, StoreError> {
        self.reader(digest)?.read_all()
    }

    /// The object's bytes as a stream that fails at its end if they were damaged.
    ///
    /// # Errors
    /// As [`Store::read`]; damage is found by reading.
    pub fn reader(&self, digest: &ObjectDigest) -> Result<ObjectReader, StoreError> {
        Ok(ObjectReader::new(
            Arc::clone(&self.inner),
            self.file(digest)?,
        ))
    }

    /// The object's bytes at any offset, *not* verified.
    ///
    /// # Errors
    /// As [`Store::read`]; damage is not found.
    pub fn file(&self, digest: &ObjectDigest) -> Result<ObjectFile, StoreError> {
        let absent = match self.local_file(digest) {
            Err(error @ (StoreError::NotFound { .. } | StoreError::Lost { .. })) => error,
            found => return found,
        };
        match self.source.get() {
            Some(source) => source.bring(self, &[*digest])?,
            None => return Err(absent),
        }
        self.local_file(digest)
    }

    fn local_file(&self, digest: &ObjectDigest) -> Result<ObjectFile, StoreError> {
        match self.inner.locate(digest)? {
            Some(located) => self.inner.open_object(located),
            None => Err(self.inner.not_found(digest)),
        }
    }

    /// What following a recipe gave: only if every output is in the store, or promised by
    /// its source.
    ///
    /// # Errors
    /// From the index or the file system.
    pub fn realisation(&self, key: &RecipeKey) -> Result<Option<Realisation>, StoreError> {
        self.share(key);
        if let Some(known) = self.inner.index.realisation(key)?
            && self.are_all(&known, Self::info)?
        {
            return Ok(Some(known));
        }
        let elsewhere = self
            .source
            .get()
            .and_then(|source| source.realisation(self, key));
        match elsewhere {
            Some(known) if self.are_all(&known, Self::info)? => Ok(Some(known)),
            _ => Ok(None),
        }
    }

    /// What following a recipe gave, by this store alone: for recipes that no other machine
    /// could follow to the same end.
    ///
    /// # Errors
    /// From the index or the file system.
    pub fn local_realisation(&self, key: &RecipeKey) -> Result<Option<Realisation>, StoreError> {
        match self.inner.index.realisation(key)? {
            Some(known) if self.are_all(&known, Self::local_info)? => Ok(Some(known)),
            _ => Ok(None),
        }
    }

    fn are_all(
        &self,
        realisation: &Realisation,
        info: impl Fn(&Self, &ObjectDigest) -> Result<Option<ObjectInfo>, StoreError>,
    ) -> Result<bool, StoreError> {
        for digest in realisation.outputs.values() {
            if info(self, digest)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Counts a recipe among those that other machines would ask for too.
    pub fn share(&self, key: &RecipeKey) {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.insert(*key);
    }

    /// The recipes that [`Store::realisation`] was asked for through this handle, and those of
    /// [`Store::share`]: what another machine would ask for if it did the same.
    pub fn shared(&self) -> Vec<RecipeKey> {
        let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.iter().copied().collect()
    }

    /// Every root, sorted by name.
    ///
    /// # Errors
    /// From the index.
    pub fn roots(&self) -> Result<Vec<Root>, StoreError> {
        self.inner.index.roots()
    }

    /// The digests of all files under `directory`, without those for which `skip` (relative
    /// path with `/`, whether it is a directory) says true. A file is only read if its
    /// metadata say that it may have changed since the last scan.
    ///
    /// A name that is not UTF-8 is shown to `skip` with U+FFFD in place of what is not.
    ///
    /// # Errors
    /// [`StoreError::NotUtf8`], [`StoreError::SpecialFile`], [`StoreError::Changing`] for files
    /// that cannot be part of a tree; [`StoreError::Io`].
    pub fn scan(
        &self,
        directory: &Path,
        skip: &dyn Fn(&str, bool) -> bool,
    ) -> Result<Tree, StoreError> {
        self.scan_watched(directory, skip, &|_| {})
    }

    /// The same as [`Store::scan`], and tells `watch` how far it is, from several threads.
    ///
    /// # Errors
    /// As [`Store::scan`].
    pub fn scan_watched(
        &self,
        directory: &Path,
        skip: &dyn Fn(&str, bool) -> bool,
        watch: &(dyn Fn(ScanStep) + Sync),
    ) -> Result<Tree, StoreError> {
        scan::scan(&self.inner, directory, skip, watch)
    }

    /// Makes the index anew from objects and records alone, reading and verifying all of
    /// them. Others may use the store meanwhile.
    ///
    /// # Errors
    /// From the index or the file system.
    pub fn rebuild_index(&self) -> Result<RebuildReport, StoreError> {
        rebuild::rebuild(&self.inner)
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }

    /// Deletes what no root and no live process needs, or says what it would delete.
    ///
    /// Others may use the store meanwhile. Of several collections one works at a time.
    ///
    /// # Errors
    /// From the index or the file system; what is not deleted then is deleted by the next.
    pub fn collect(&self, options: &CollectOptions) -> Result<CollectReport, StoreError> {
        collect::collect(&self.inner, options)
    }

    /// Reads everything, in several threads, and says what is wrong. What is corrupt is
    /// moved aside, as by any read.
    ///
    /// # Errors
    /// From the index or the file system. An interrupted run can be resumed.
    pub fn verify(&self, options: &VerifyOptions) -> Result<VerifyReport, StoreError> {
        verify::verify(&self.inner, options)
    }

    /// Why an object is in the store; none if it is not.
    ///
    /// # Errors
    /// From the index or the file system.
    pub fn why(&self, digest: &ObjectDigest) -> Result<Option<Explanation>, StoreError> {
        explain::why(&self.inner, digest)
    }

    /// Counts and sizes.
    ///
    /// # Errors
    /// From the index or the file system.
    pub fn stats(&self) -> Result<Stats, StoreError> {
        explain::stats(&self.inner)
    }

    /// Shows every object to `each`, sorted by digest.
    ///
    /// # Errors
    /// From the index.
    pub fn list(&self, each: &mut dyn FnMut(ListedObject)) -> Result<(), StoreError> {
        explain::list(&self.inner, each)
    }

    /// Writes an artifact with all it needs to the file `target`, replacing it.
    ///
    /// # Errors
    /// [`StoreError::NoArtifact`]; those of [`Store::read`]; from the file system.
    pub fn export(&self, artifact: &Artifact, target: &Path) -> Result<ArchiveReport, StoreError> {
        archive::export(self, artifact, target)
    }

    /// Takes in what [`Store::export`] has written, and keeps it under `root`. All of it is
    /// verified; a damaged file changes nothing.
    ///
    /// # Errors
    /// [`StoreError::Pack`] if the file is none, or damaged; from the index or the file system.
    pub fn import(
        &self,
        path: &Path,
        root: Option<&RootName>,
    ) -> Result<ArchiveReport, StoreError> {
        archive::import(self, path, root)
    }

    /// Every object that this handle has put or looked up, and that is protected while the
    /// handle lives: what a program that has done its work may want to root.
    pub fn used(&self) -> Vec<ObjectDigest> {
        let lease = self.inner.lease();
        let mut used: Vec<_> = lease.iter().flat_map(Staging::held).copied().collect();
        used.sort_unstable();
        used
    }
}

impl Inner {
    fn lease(&self) -> MutexGuard<'_, Option<Staging>> {
        self.staging.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds objects to this handle's lease; false if all of them were in it.
    pub(crate) fn hold(
        &self,
        digests: impl IntoIterator<Item = ObjectDigest>,
    ) -> Result<bool, StoreError> {
        let mut staging = self.lease();
        match &mut *staging {
            Some(staging) => staging.hold(digests),
            none => none
                .insert(Staging::create(&self.layout.staging())?)
                .hold(digests),
        }
    }

    /// Where the object is; from now on no collection deletes it while this handle lives.
    ///
    /// A row that is seen, and not condemned, after the lease was written is safe: whoever
    /// condemns it later begins after the lease, and reads it before deleting anything.
    pub(crate) fn locate(&self, digest: &ObjectDigest) -> Result<Option<Located>, StoreError> {
        let found = self.index.locate(digest)?;
        if found.is_none() || !self.hold([*digest])? {
            return Ok(found.map(|(located, _)| located));
        }
        match self.index.locate(digest)? {
            Some((_, true)) => self.index.revive(digest),
            found => Ok(found.map(|(located, _)| located)),
        }
    }

    pub(crate) fn not_found(&self, digest: &ObjectDigest) -> StoreError {
        StoreError::NotFound {
            digest: *digest,
            root: self.layout.root().to_owned(),
        }
    }

    /// Held while files have names, but no rows yet.
    pub(crate) fn publishing(&self) -> Result<File, StoreError> {
        let gate = durable::lock_file(&self.layout.publish_gate(), File::lock_shared)?;
        let lock = durable::lock_file(&self.layout.publish_lock(), File::lock_shared)?;
        drop(gate);
        Ok(lock)
    }

    /// Held while files without rows are told from those of unfinished batches: there are none.
    pub(crate) fn nobody_publishes(&self) -> Result<File, StoreError> {
        let gate = durable::lock_file(&self.layout.publish_gate(), File::lock)?;
        let lock = durable::lock_file(&self.layout.publish_lock(), File::lock)?;
        drop(gate);
        Ok(lock)
    }

    /// Held by the one who collects, or makes the index anew.
    pub(crate) fn collecting(&self) -> Result<File, StoreError> {
        durable::lock_file(&self.layout.collect_lock(), File::lock)
    }

    /// A new file in the store's file system, which vanishes unless it is published.
    pub(crate) fn staged_file(&self) -> Result<StagedFile, StoreError> {
        let mut staging = self.lease();
        match &mut *staging {
            Some(staging) => staging.file(&self.file_system),
            none => none
                .insert(Staging::create(&self.layout.staging())?)
                .file(&self.file_system),
        }
    }
}

/// Opens the index and the lock that keeps it in place; first makes both if need be.
fn open_index(
    layout: &Layout,
    file_system: &Arc<dyn FileSystem>,
) -> Result<(Index, File), StoreError> {
    let lock_path = layout.lock();
    let deadline = Instant::now() + OPEN_TIMEOUT;
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
            Ok(()) if Index::open(layout, file_system)?.is_none() => create_index(layout)?,
            Ok(()) => {}
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
    durable::sync_directory(&RealFileSystem, layout.root())?;
    if let Some(parent) = layout.root().parent() {
        durable::sync_directory(&RealFileSystem, parent)?;
    }
    move_index_aside(layout)?;
    let mut survey = Survey::default();
    survey.extend(layout)?;
    Index::create(&layout.index(), &survey.additions())
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
