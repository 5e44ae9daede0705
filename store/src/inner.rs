//! What a handle and its readers share: the layout, the index, the lease, the locks between
//! processes.

use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};

use crate::durable::{self, StagedFile};
use crate::file_system::FileSystem;
use crate::index::Index;
use crate::layout::Layout;
use crate::object::Located;
use crate::staging::{self, Staging};
use crate::{ObjectDigest, StoreError, open};

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

impl Inner {
    /// The store in that layout, which is made if it is absent.
    pub(crate) fn open(
        layout: Layout,
        file_system: Arc<dyn FileSystem>,
    ) -> Result<Self, StoreError> {
        let (index, lock) = open::open_index(&layout, &file_system)?;
        staging::reclaim(&layout.staging())?;
        Ok(Self {
            layout,
            index,
            file_system,
            staging: Mutex::new(None),
            _lock: lock,
        })
    }

    /// Does `work` with this handle's staging directory and lease.
    fn with_staging<T>(
        &self,
        work: impl FnOnce(&mut Staging) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut staging = self.staging.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *staging {
            Some(staging) => work(staging),
            none => work(none.insert(Staging::create(&self.layout.staging())?)),
        }
    }

    /// Adds objects to this handle's lease.
    pub(crate) fn hold(
        &self,
        digests: impl IntoIterator<Item = ObjectDigest>,
    ) -> Result<(), StoreError> {
        self.with_staging(|staging| staging.hold(digests))
    }

    /// What this handle has put or found, sorted.
    pub(crate) fn used(&self) -> Vec<ObjectDigest> {
        let staging = self.staging.lock().unwrap_or_else(PoisonError::into_inner);
        let mut used: Vec<_> = staging.iter().flat_map(Staging::used).copied().collect();
        used.sort_unstable();
        used
    }

    /// Where the object is; from now on no collection deletes it while this handle lives.
    ///
    /// The lease is written first, whether or not the object is there. A row that is seen,
    /// and not condemned, after that is safe: whoever condemns it later begins after the
    /// lease, and reads it before deleting anything.
    pub(crate) fn locate(&self, digest: &ObjectDigest) -> Result<Option<Located>, StoreError> {
        self.hold([*digest])?;
        let found = match self.index.locate(digest)? {
            Some((_, true)) => self.index.revive(digest)?,
            found => found.map(|(located, _)| located),
        };
        if found.is_none() {
            self.with_staging(|staging| {
                staging.note_absent(*digest);
                Ok(())
            })?;
        }
        Ok(found)
    }

    /// [`Inner::locate`] of what is probably not there: nothing is written for that.
    pub(crate) fn locate_unlikely(
        &self,
        digest: &ObjectDigest,
    ) -> Result<Option<Located>, StoreError> {
        match self.index.locate(digest)? {
            Some(_) => self.locate(digest),
            None => Ok(None),
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
        self.with_staging(|staging| staging.file(&self.file_system))
    }
}
