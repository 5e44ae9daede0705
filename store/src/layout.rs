//! Where everything lies under a store's root.
//!
//! ```text
//! lock                     shared by every open handle, exclusive to whoever replaces the index
//! publish.lock             shared from a batch's first final name to its rows, exclusive to deleting
//! publish-gate.lock        passed through on the way to publish.lock, so that nobody starves
//! verify-progress          how far an interrupted verification came
//! collect.lock             held by whoever collects or rebuilds the index
//! index.sqlite             what is where; rebuilt from the rest when it is lost
//! index.sqlite-new         the index while it is being made
//! index.lock               held by the process that writes to the index
//! index.sqlite-damaged     is there if somebody found the index damaged while using it
//! objects/ab/<digest>      one large object, mode 0444
//! packs/<name>.pack        the small objects and the records of one batch, mode 0444
//! staging/<owner>/         what a live process is writing; beside it <owner>.lock, which it holds, and which is its lease
//! trees/<digest>           what the last scan of one directory saw
//! corrupt/                 damaged bytes, for people to look at
//! scratch/                 what programs make of objects for their own use; nothing in it is an object
//! ```

use std::path::{Path, PathBuf};

use crate::ObjectDigest;

/// The paths under one store's root.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    pub(crate) fn publish_lock(&self) -> PathBuf {
        self.root.join("publish.lock")
    }

    pub(crate) fn publish_gate(&self) -> PathBuf {
        self.root.join("publish-gate.lock")
    }

    pub(crate) fn verify_progress(&self) -> PathBuf {
        self.root.join("verify-progress")
    }

    pub(crate) fn collect_lock(&self) -> PathBuf {
        self.root.join("collect.lock")
    }

    pub(crate) fn index(&self) -> PathBuf {
        self.root.join("index.sqlite")
    }

    pub(crate) fn new_index(&self) -> PathBuf {
        self.root.join("index.sqlite-new")
    }

    pub(crate) fn index_lock(&self) -> PathBuf {
        self.root.join("index.lock")
    }

    /// What SQLite has not yet written into the index.
    pub(crate) fn index_log(&self) -> PathBuf {
        self.root.join("index.sqlite-wal")
    }

    /// The index, what SQLite keeps beside it, and the mark that it is damaged.
    pub(crate) fn index_files(&self) -> [PathBuf; 4] {
        ["", "-wal", "-shm", "-damaged"]
            .map(|suffix| self.root.join(format!("index.sqlite{suffix}")))
    }

    pub(crate) fn objects(&self) -> PathBuf {
        self.root.join("objects")
    }

    /// The directory of the large objects whose digest begins as this one's does.
    pub(crate) fn object_directory(&self, digest: &ObjectDigest) -> PathBuf {
        let [first, ..] = digest.as_bytes();
        self.objects().join(format!("{first:02x}"))
    }

    pub(crate) fn object(&self, digest: &ObjectDigest) -> PathBuf {
        self.object_directory(digest).join(digest.to_string())
    }

    pub(crate) fn packs(&self) -> PathBuf {
        self.root.join("packs")
    }

    pub(crate) fn pack(&self, name: &ObjectDigest) -> PathBuf {
        self.packs().join(format!("{name}.pack"))
    }

    pub(crate) fn staging(&self) -> PathBuf {
        self.root.join("staging")
    }

    pub(crate) fn trees(&self) -> PathBuf {
        self.root.join("trees")
    }

    pub(crate) fn corrupt(&self) -> PathBuf {
        self.root.join("corrupt")
    }

    pub(crate) fn scratch(&self) -> PathBuf {
        self.root.join("scratch")
    }

    /// Every directory that exists in an opened store. Whoever needs `scratch/` makes it.
    pub(crate) fn directories(&self) -> [PathBuf; 5] {
        [
            self.objects(),
            self.packs(),
            self.staging(),
            self.trees(),
            self.corrupt(),
        ]
    }
}
