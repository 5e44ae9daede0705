//! A local content-addressed store: immutable objects named by their BLAKE3
//! digest, and the recorded results ("realisations") of the recipes that made
//! them.
//!
//! The crate knows nothing of workflows, images or clouds, so that it can be
//! tested, and trusted, alone.
//!
//! What it promises:
//!
//! - What a [`Batch`] has committed survives a power cut, whole; what it has
//!   not committed is not there.
//! - Bytes that are read are the object's, or the read fails. What was damaged
//!   is moved aside and forgotten, and heals when it is put again.
//! - The SQLite index can be lost: objects and records make it anew.
//! - Any number of processes may use one store at the same time.

mod archive;
mod batch;
mod bytes;
mod collect;
mod digest;
mod durable;
mod error;
mod explain;
#[cfg(test)]
mod faults;
mod file_system;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod index;
mod inner;
mod layout;
mod object;
mod open;
mod pack;
mod rebuild;
mod recipe;
mod record;
mod scan;
mod source;
mod staging;
mod store;
mod verify;

pub use archive::{ArchiveReport, Artifact};
pub use batch::Batch;
pub use collect::{CollectOptions, CollectReport, CollectedObject};
pub use digest::{Digesting, ObjectDigest, ParseDigestError, Sha256Digest};
pub use error::StoreError;
pub use explain::{Explanation, ListedObject, NamedOutput, Stats};
pub use object::{ObjectFile, ObjectInfo, ObjectReader};
pub use rebuild::RebuildReport;
pub use recipe::{Recipe, RecipeKey};
pub use record::{ParseRootNameError, Realisation, Root, RootName};
pub use scan::{ScanStep, Tree, TreeEntry, TreeEntryKind};
pub use source::Source;
pub use store::Store;
pub use verify::{VerifyOptions, VerifyReport};
