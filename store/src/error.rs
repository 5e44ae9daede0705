//! What can go wrong in a store.

use std::io;
use std::path::{Path, PathBuf};

use crate::ObjectDigest;

/// Why a store could not do what was asked. Every variant names the file or object.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The file system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried, as a verb: "read", "sync".
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The SQLite index refused.
    #[error("the store's index {} failed", path.display())]
    Index {
        /// The index file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// The index turned out to be damaged while it was used. The next open makes it anew.
    #[error(
        "the store's index {} is damaged; it will be made anew when the store is next opened",
        path.display()
    )]
    IndexDamaged {
        /// The index file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// The index was written by a newer program.
    #[error(
        "the store's index {} has schema version {found}, but this program knows only up to {supported}; use the newer program, or another store",
        path.display()
    )]
    NewerSchema {
        /// The index file.
        path: PathBuf,
        /// The version in the file.
        found: i64,
        /// The newest version that is understood here.
        supported: i64,
    },
    /// The index has to be replaced, but other processes have the store open.
    #[error(
        "the store's index {} is missing or damaged, and cannot be rebuilt while another process has the store open",
        path.display()
    )]
    InUse {
        /// The index file.
        path: PathBuf,
    },
    /// The index was made anew, and what was read back is not what was written.
    #[error(
        "the store's index {} was made anew, but does not read as it was written; look at the disk, or use another store",
        path.display()
    )]
    IndexNotKept {
        /// The index file.
        path: PathBuf,
    },
    /// The object was never put, or has been dropped.
    #[error("object {digest} is not in the store {}", root.display())]
    NotFound {
        /// The object asked for.
        digest: ObjectDigest,
        /// The store's root.
        root: PathBuf,
    },
    /// There is no such root or realisation.
    #[error("there is no {what} in the store {}", root.display())]
    NoArtifact {
        /// What was asked for: "root build/shop/dev/everything".
        what: String,
        /// The store's root.
        root: PathBuf,
    },
    /// The index knew the object, but its file is gone. The index has forgotten it now.
    #[error("object {digest} is lost: {} is gone or too short", path.display())]
    Lost {
        /// The object asked for.
        digest: ObjectDigest,
        /// Where it should have been.
        path: PathBuf,
    },
    /// The stored bytes are not the object's. They were moved aside and the index has forgotten them.
    #[error(
        "object {digest} is damaged in {}; the damaged bytes are now {}",
        path.display(),
        moved_to.display()
    )]
    Damaged {
        /// The object asked for.
        digest: ObjectDigest,
        /// The file that holds, or held, the damaged bytes.
        path: PathBuf,
        /// Where a copy of them is.
        moved_to: PathBuf,
    },
    /// A read past the end of an object.
    #[error("cannot read {length} bytes at {offset} of object {digest}, which has {size} bytes ({})", path.display())]
    OutOfRange {
        /// The object.
        digest: ObjectDigest,
        /// The file that holds it.
        path: PathBuf,
        /// Where the read began, in bytes.
        offset: u64,
        /// How many bytes were wanted.
        length: u64,
        /// The object's size in bytes.
        size: u64,
    },
    /// A pack file is not one, or is damaged.
    #[error("pack {} is damaged: {problem}", path.display())]
    Pack {
        /// The pack file.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A pack has a version, or a record, that is not known here.
    #[error("pack {} was written by a newer program; use that, or another store", path.display())]
    NewerPack {
        /// The pack file.
        path: PathBuf,
    },
    /// What was to be put could not be read. Says no path: the reader's error should.
    #[error("cannot read what is to be put into the store")]
    Input {
        /// What the reader said.
        source: io::Error,
    },
    /// The inputs of a recipe cannot be written as JSON.
    #[error("the inputs of the recipe {kind:?} cannot be written as JSON")]
    Recipe {
        /// The recipe's kind.
        kind: String,
        /// What the serialiser said.
        source: serde_json::Error,
    },
    /// A file name or the target of a symbolic link is not UTF-8.
    #[error("{} is not UTF-8, so it cannot be part of a deployment", path.display())]
    NotUtf8 {
        /// The file, or the symbolic link.
        path: PathBuf,
    },
    /// Neither file, directory nor symbolic link.
    #[error("{} is a {kind}, which cannot be part of a deployment", path.display())]
    SpecialFile {
        /// The file.
        path: PathBuf,
        /// "socket", "named pipe", "device".
        kind: &'static str,
    },
    /// A file was being written to whenever it was read.
    #[error("{} changes while it is being read", path.display())]
    Changing {
        /// The file.
        path: PathBuf,
    },
}

impl StoreError {
    /// For `map_err`: a record that cannot be written.
    pub(crate) fn record(source: serde_json::Error) -> Self {
        Self::Recipe {
            kind: "record".to_owned(),
            source,
        }
    }

    /// For `map_err`: an I/O error while doing `action` to `path`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}

/// So that readers that must speak `io::Error` lose nothing.
impl From<StoreError> for io::Error {
    fn from(error: StoreError) -> Self {
        let kind = match &error {
            StoreError::Io { source, .. } => source.kind(),
            StoreError::NotFound { .. } | StoreError::Lost { .. } => io::ErrorKind::NotFound,
            StoreError::Damaged { .. }
            | StoreError::Pack { .. }
            | StoreError::IndexDamaged { .. } => io::ErrorKind::InvalidData,
            StoreError::OutOfRange { .. } => io::ErrorKind::UnexpectedEof,
            _ => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}
