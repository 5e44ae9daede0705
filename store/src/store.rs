//! Opening a store, and asking it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::collect::{self, CollectOptions, CollectReport};
use crate::file_system::{FileSystem, RealFileSystem};
use crate::inner::Inner;
use crate::layout::Layout;
use crate::object::{ObjectFile, ObjectInfo, ObjectReader};
use crate::scan::{self, Tree};
use crate::source::Source;
use crate::{
    ArchiveReport, Artifact, Batch, Explanation, ListedObject, ObjectDigest, Realisation,
    RebuildReport, RecipeKey, Root, RootName, ScanStep, Sha256Digest, Stats, StoreError,
    VerifyOptions, VerifyReport, archive, explain, rebuild, verify,
};

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
        Ok(Self {
            inner: Arc::new(Inner::open(Layout::new(root), file_system)?),
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
        self.inner.hold(digests.iter().copied())?;
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
        // All of them by one write.
        self.inner.hold(realisation.outputs.values().copied())?;
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
        self.inner.used()
    }
}
