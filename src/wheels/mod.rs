//! The wheels that an image's requirements come to: resolved by pip, kept in
//! the store, read down to their compressed streams, and installed on paper.
//!
//! The store has every wheel as an object under its digest, so that nothing is
//! downloaded or built a second time, and layers can be spliced from them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use forebay_store::{ObjectDigest, ObjectFile, Sha256Digest, Store, StoreError};
use serde::{Deserialize, Serialize};

mod archive;
mod archive_writer;
mod download;
mod entry_points;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod inflate;
mod install;
mod keep;
mod layout;
mod lock;
mod name;
mod pip;
mod record;
mod requirements;
mod resolve;
mod scheme;
mod surroundings;
mod target;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod uv;
mod uv_configuration;

pub use archive::{Archive, ArchiveError, Entry, Method, ReadAt};
pub use archive_writer::ArchiveWriter;
pub use entry_points::script_for;
pub use inflate::EntryReader;
pub use install::{Content, Installation, InstalledFile, parents};
pub use layout::lay_out;
pub use lock::{LockedDistribution, LockedSource};
pub use name::{DistributionName, WheelFileName};
pub use record::{add_unhashed, relative_path, write_record};
pub use requirements::{Requirements, has_credentials, strip_credentials};
pub use resolve::{Resolution, ResolveRequest, lock_inputs, resolve};
pub use scheme::InstallScheme;
pub use target::{Platform, TargetPython, UnknownPlatform};

/// A wheel that is in the store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LockedWheel {
    /// Its file name, which says what it is and what it fits.
    pub file_name: WheelFileName,
    /// Its name in the store.
    pub object: ObjectDigest,
    /// Its name in lock files and indexes.
    pub sha256: Sha256Digest,
    /// Its size in bytes.
    pub size: u64,
}

impl LockedWheel {
    /// Opens the wheel's archive.
    ///
    /// # Errors
    /// A wheel that is not in the store, or an archive that is refused.
    pub fn open(&self, store: &Store) -> Result<Archive<ObjectFile>, WheelError> {
        Archive::open(store.file(&self.object)?).map_err(|source| self.refused(source))
    }

    /// Opens the wheel and decides where its files go.
    ///
    /// # Errors
    /// See [`LockedWheel::open`] and [`Installation::plan`].
    pub fn plan_installation(
        &self,
        store: &Store,
        scheme: &InstallScheme,
    ) -> Result<(Archive<ObjectFile>, Installation), WheelError> {
        let archive = self.open(store)?;
        let installation = Installation::plan(&archive, &self.file_name, scheme)
            .map_err(|source| self.refused(source))?;
        Ok((archive, installation))
    }

    fn refused(&self, source: ArchiveError) -> WheelError {
        WheelError::Refused {
            wheel: self.file_name.to_string(),
            source,
        }
    }
}

/// The wheels of one image, sorted by normalised name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WheelSet {
    /// The wheels, one a distribution.
    pub wheels: Vec<LockedWheel>,
}

impl WheelSet {
    /// Sorts the wheels.
    ///
    /// # Errors
    /// Two wheels of one distribution.
    pub fn new(wheels: Vec<LockedWheel>) -> Result<Self, WheelError> {
        let mut sorted = BTreeMap::new();
        for wheel in wheels {
            let name = wheel.file_name.distribution();
            let file = wheel.file_name.to_string();
            if let Some(other) = sorted.insert(name.clone(), wheel) {
                return Err(WheelError::TwoWheels {
                    distribution: name.to_string(),
                    first: other.file_name.to_string(),
                    second: file,
                });
            }
        }
        Ok(Self {
            wheels: sorted.into_values().collect(),
        })
    }

    /// Has the store's source bring those wheels that are not here, all at the same time.
    ///
    /// # Errors
    /// The store's.
    pub fn bring(&self, store: &Store) -> Result<(), WheelError> {
        let objects: Vec<ObjectDigest> = self.wheels.iter().map(|wheel| wheel.object).collect();
        Ok(store.bring(&objects)?)
    }

    /// Names the set by what is in it.
    pub fn digest(&self) -> ObjectDigest {
        let names: String = self
            .wheels
            .iter()
            .map(|wheel| format!("{} {}\n", wheel.object, wheel.file_name))
            .collect();
        ObjectDigest::of(names.as_bytes())
    }
}

impl ReadAt for ObjectFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<()> {
        self.read_exact_at(buffer, offset)
            .map_err(std::io::Error::other)
    }

    fn size(&self) -> u64 {
        self.info().size
    }
}

/// Refuses two wheels that would install different files at one path.
///
/// # Errors
/// [`WheelError::Conflict`] with the path and both names.
pub fn check_conflicts<'a>(
    installations: impl Iterator<Item = &'a Installation>,
) -> Result<(), WheelError> {
    let mut owners: BTreeMap<&str, (&DistributionName, &InstalledFile)> = BTreeMap::new();
    let mut directories: BTreeMap<&str, &DistributionName> = BTreeMap::new();
    for installation in installations {
        let name = &installation.distribution;
        for file in &installation.files {
            let conflict = |path: &str, first: &DistributionName| WheelError::Conflict {
                path: path.to_owned(),
                first: first.to_string(),
                second: name.to_string(),
            };
            for parent in parents(&file.path) {
                if let Some((owner, _)) = owners.get(parent) {
                    return Err(conflict(parent, owner));
                }
                directories.insert(parent, name);
            }
            if let Some(owner) = directories.get(file.path.as_str()) {
                return Err(conflict(&file.path, owner));
            }
            match owners.insert(&file.path, (name, file)) {
                Some((owner, other))
                    if other.sha256 != file.sha256 || other.executable != file.executable =>
                {
                    return Err(conflict(&file.path, owner));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// Why wheels could not be had, read or installed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WheelError {
    /// A text that is no wheel's file name.
    #[error("{name:?} is not a wheel's file name (NAME-VERSION-PYTHON-ABI-PLATFORM.whl)")]
    FileName {
        /// The text.
        name: String,
    },
    /// An archive that breaks the format or a rule.
    #[error("the wheel {wheel} is refused: {source}")]
    Refused {
        /// Its file name.
        wheel: String,
        /// Why.
        source: ArchiveError,
    },
    /// Two wheels of one distribution in a set.
    #[error("{distribution} is there twice: {first} and {second}")]
    TwoWheels {
        /// The normalised name.
        distribution: String,
        /// One file name.
        first: String,
        /// The other.
        second: String,
    },
    /// Two wheels that install different files at one path.
    #[error("{first} and {second} both install {path}, with different contents")]
    Conflict {
        /// The path.
        path: String,
        /// One distribution.
        first: String,
        /// The other.
        second: String,
    },
    /// A requirements file that cannot be read or used.
    #[error("{}{}: {problem}", path.display(), line.map(|line| format!(", line {line}")).unwrap_or_default())]
    Requirements {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: Option<usize>,
        /// What is wrong.
        problem: String,
    },
    /// Distributions that exist only as sources, or for other platforms.
    #[error("no wheel for {target}: {}", distributions.join(", "))]
    NoWheel {
        /// What was wanted, as the requirements name it.
        distributions: Vec<String>,
        /// The image's Python.
        target: String,
    },
    /// pip failed; its own last words.
    #[error("{command} failed ({status}):\n{output}")]
    Pip {
        /// Which command, without its options.
        command: String,
        /// How it ended.
        status: String,
        /// The relevant lines, without credentials.
        output: String,
    },
    /// The interpreter has no pip, and there is no uv that could lend one.
    #[error("{} has no pip, and uv is not there either", executable.display())]
    NoPip {
        /// The interpreter.
        executable: PathBuf,
    },
    /// A file could not be read or written, or a process not started.
    #[error("{action}")]
    Io {
        /// What was being done, with the path.
        action: String,
        /// The operating system's error.
        #[source]
        source: std::io::Error,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl WheelError {
    fn io(action: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let action = action.into();
        move |source| Self::Io { action, source }
    }
}
