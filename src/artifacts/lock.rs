//! `forebay.lock`: which digest the Dockerfile's base image had when it was
//! first asked for, so that every later build uses the same, without a request.

use std::io::Write;
use std::path::{Path, PathBuf};

use forebay_store::Sha256Digest;
use serde::{Deserialize, Serialize};

/// Why the lock file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// It is not what this program writes.
    #[error("{} is not a valid lock file", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What TOML says.
        source: Box<toml::de::Error>,
    },
    /// A later program wrote it.
    #[error("{} has version {version}, and this program knows version {}", path.display(), LockFile::VERSION)]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// It cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
}

/// The lock file of one project, in TOML:
///
/// ```toml
/// version = 1
///
/// [[base]]
/// image = "python:3.11-slim"      # as the Dockerfile writes it
/// platform = "linux/amd64"
/// digest = "sha256:…"             # of the manifest for that platform
///
/// [[container]]                   # lines that ran in a container, and were published
/// inputs = "…"                    # the key of everything that decides what they do
/// image = "HOST/NAME@sha256:…"    # which has their layers
/// layers = ["sha256:…"]           # the diff ids of those
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockFile {
    path: PathBuf,
    bases: Vec<LockedBase>,
    containers: Vec<LockedContainer>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    #[serde(default, rename = "base", skip_serializing_if = "Vec::is_empty")]
    bases: Vec<LockedBase>,
    #[serde(default, rename = "container", skip_serializing_if = "Vec::is_empty")]
    containers: Vec<LockedContainer>,
}

/// What lines that ran in a container came to, and where that was published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LockedContainer {
    /// The recipe key of the lines.
    pub(super) inputs: String,
    /// The image that has the layers, by digest.
    pub(super) image: String,
    /// The diff ids of the layers, in order.
    pub(super) layers: Vec<Sha256Digest>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LockedBase {
    image: String,
    platform: String,
    digest: Sha256Digest,
}

impl LockFile {
    /// The file's name, beside the project's other files.
    pub const NAME: &'static str = "forebay.lock";
    const VERSION: u32 = 1;
    const HEADER: &'static str = "# Written by forebay. Commit it: every build then stands on the same base image.\n\
                                  # `forebay image lock` asks the registry again.\n\n";

    /// Reads the project's lock file; an absent one is empty.
    ///
    /// # Errors
    /// A file that is there but cannot be understood is an error, never overwritten.
    pub fn read(project_directory: &Path) -> Result<Self, LockError> {
        let path = project_directory.join(Self::NAME);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self {
                    path,
                    bases: Vec::new(),
                    containers: Vec::new(),
                });
            }
            Err(source) => return Err(LockError::Read { path, source }),
        };
        // The version is read first: a newer file may have members that are unknown here.
        #[derive(Deserialize)]
        struct VersionOnly {
            version: u32,
        }
        let parse_error = |source| LockError::Parse {
            path: path.clone(),
            source: Box::new(source),
        };
        let VersionOnly { version } = toml::from_str(&text).map_err(parse_error)?;
        if version > Self::VERSION {
            return Err(LockError::Newer { path, version });
        }
        let document: Document = toml::from_str(&text).map_err(parse_error)?;
        Ok(Self {
            path,
            bases: document.bases,
            containers: document.containers,
        })
    }

    /// The digest that `image` is pinned to for `platform`.
    pub fn base(&self, image: &str, platform: &str) -> Option<Sha256Digest> {
        self.bases
            .iter()
            .find(|base| base.image == image && base.platform == platform)
            .map(|base| base.digest)
    }

    /// Pins `image`; the file changes with [`LockFile::write`].
    pub fn pin_base(&mut self, image: &str, platform: &str, digest: Sha256Digest) {
        self.bases
            .retain(|base| base.image != image || base.platform != platform);
        self.bases.push(LockedBase {
            image: image.to_owned(),
            platform: platform.to_owned(),
            digest,
        });
        self.bases
            .sort_by(|a, b| (&a.image, &a.platform).cmp(&(&b.image, &b.platform)));
    }

    /// What the lines with the recipe key `inputs` came to where they ran.
    pub(super) fn container(&self, inputs: &str) -> Option<&LockedContainer> {
        self.containers.iter().find(|one| one.inputs == inputs)
    }

    /// Puts `containers` in the place of what was published before.
    pub(super) fn pin_containers(&mut self, containers: Vec<LockedContainer>) {
        self.containers = containers;
    }

    /// Writes the file beside itself and moves it into place.
    ///
    /// # Errors
    /// [`LockError::Write`]; the old file is then untouched.
    pub fn write(&self) -> Result<(), LockError> {
        let document = Document {
            version: Self::VERSION,
            bases: self.bases.clone(),
            containers: self.containers.clone(),
        };
        let write = || -> std::io::Result<()> {
            let body = toml::to_string(&document).map_err(std::io::Error::other)?;
            let directory = self.path.parent().unwrap_or(Path::new("."));
            let mut file = tempfile::Builder::new()
                .permissions(permissions_of_new_files())
                .tempfile_in(directory)?;
            file.write_all(Self::HEADER.as_bytes())?;
            file.write_all(body.as_bytes())?;
            file.as_file().sync_all()?;
            file.persist(&self.path)?;
            Ok(())
        };
        write().map_err(|source| LockError::Write {
            path: self.path.clone(),
            source,
        })
    }
}

/// Temporary files are private by default; a file to be committed should not be.
fn permissions_of_new_files() -> std::fs::Permissions {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::Permissions::from_mode(0o666)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_read_back_and_replaced() {
        let project = tempfile::tempdir().unwrap();
        let mut lock = LockFile::read(project.path()).unwrap();
        assert_eq!(lock.base("python:3.11", "linux/amd64"), None);
        lock.pin_base("python:3.11", "linux/amd64", Sha256Digest::of(b"old"));
        lock.pin_base("python:3.11", "linux/arm64", Sha256Digest::of(b"arm"));
        lock.pin_base("python:3.11", "linux/amd64", Sha256Digest::of(b"new"));
        lock.write().unwrap();

        let lock = LockFile::read(project.path()).unwrap();
        assert_eq!(
            lock.base("python:3.11", "linux/amd64"),
            Some(Sha256Digest::of(b"new"))
        );
        assert_eq!(
            lock.base("python:3.11", "linux/arm64"),
            Some(Sha256Digest::of(b"arm"))
        );
    }

    #[test]
    fn a_file_that_is_not_understood_is_an_error() {
        let project = tempfile::tempdir().unwrap();
        let path = project.path().join(LockFile::NAME);
        std::fs::write(&path, "version = 2\nnew = true\n").unwrap();
        assert!(matches!(
            LockFile::read(project.path()),
            Err(LockError::Newer { version: 2, .. })
        ));
        for text in ["", "version = 1\nbase = 3\n", "version = 1\nunknown = 1\n"] {
            std::fs::write(&path, text).unwrap();
            assert!(matches!(
                LockFile::read(project.path()),
                Err(LockError::Parse { .. })
            ));
        }
    }
}
