//! `forebay.lock`: what names and requirements meant when they were first looked up, so
//! that every later build, on any machine, is made of the same, without asking again.

use std::io::Write;
use std::path::{Path, PathBuf};

use forebay_store::{ObjectDigest, Sha256Digest};
use serde::{Deserialize, Serialize};

use crate::image::BasePython;
use crate::python::Fingerprint;
use crate::wheels::{LockedDistribution, TargetPython};

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
/// [[python]]                      # where the Python of a base looks for packages
/// base = "sha256:…"               # if the base's environment does not say it
/// found = { … }
///
/// [[container]]                   # lines that ran in a container, and were published
/// inputs = "…"                    # the key of everything that decides what they do
/// image = "HOST/NAME@sha256:…"    # which has their layers
/// layers = ["sha256:…"]           # the diff ids of those
///
/// [[requirements]]                # what requirements came to
/// inputs = "…"                    # the digest of what the requirements files say
/// python = "3.11"
/// platform = "linux/amd64"
///
/// [[requirements.wheel]]
/// file = "six-1.17.0-py2.py3-none-any.whl"
/// sha256 = "sha256:…"
/// source = { file = "…", sha256 = "sha256:…" }    # if it was built
/// [[bytecode]]
/// python = "3.11"                 # the image's
/// compiler = "def6cf84…"          # what it makes of a known source (BLAKE3), or "none"
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockFile {
    path: PathBuf,
    bases: Vec<LockedBase>,
    pythons: Vec<LockedPython>,
    containers: Vec<LockedContainer>,
    requirements: Vec<LockedRequirements>,
    bytecode: Vec<LockedBytecode>,
}

/// Whose bytecode images get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockedCompiler {
    /// That of compilers with this fingerprint.
    Compiler(Fingerprint),
    /// Nobody's: there was no compiler when the image was first built.
    None,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    #[serde(default, rename = "base", skip_serializing_if = "Vec::is_empty")]
    bases: Vec<LockedBase>,
    #[serde(default, rename = "python", skip_serializing_if = "Vec::is_empty")]
    pythons: Vec<LockedPython>,
    #[serde(default, rename = "container", skip_serializing_if = "Vec::is_empty")]
    containers: Vec<LockedContainer>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    requirements: Vec<LockedRequirements>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    bytecode: Vec<LockedBytecode>,
}

/// The Python that was found in a base's layers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LockedPython {
    base: Sha256Digest,
    found: BasePython,
}

/// What requirements came to, for one Python and platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LockedRequirements {
    inputs: String,
    python: String,
    platform: String,
    #[serde(rename = "wheel")]
    wheels: Vec<LockedDistribution>,
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
struct LockedBytecode {
    python: String,
    #[serde(with = "compiler")]
    compiler: LockedCompiler,
}

/// A fingerprint, or `none`.
mod compiler {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer, de};

    use super::LockedCompiler;

    pub(super) fn serialize<S: Serializer>(
        compiler: &LockedCompiler,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match compiler {
            LockedCompiler::Compiler(fingerprint) => fingerprint.to_string(),
            LockedCompiler::None => "none".to_owned(),
        }
        .serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<LockedCompiler, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == "none" {
            return Ok(LockedCompiler::None);
        }
        text.parse().map(LockedCompiler::Compiler).map_err(|_| {
            de::Error::custom(format!("{text:?} is neither a BLAKE3 digest nor \"none\""))
        })
    }
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
    const HEADER: &'static str = "# Written by forebay. Commit it: every build is then made of the same base image and packages.\n\
                                  # `forebay image lock` asks registry and package index again.\n\n";

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
                    pythons: Vec::new(),
                    containers: Vec::new(),
                    requirements: Vec::new(),
                    bytecode: Vec::new(),
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
            pythons: document.pythons,
            containers: document.containers,
            requirements: document.requirements,
            bytecode: document.bytecode,
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

    /// The Python that was found in the layers of `base`.
    pub fn python(&self, base: &Sha256Digest) -> Option<&BasePython> {
        let found = self.pythons.iter().find(|python| python.base == *base);
        found.map(|python| &python.found)
    }

    /// Notes which Python was found in the layers of `base`. Bases that no name is pinned to
    /// are forgotten.
    pub fn pin_python(&mut self, base: &Sha256Digest, found: BasePython) {
        let is_pinned = |digest| self.bases.iter().any(|base| base.digest == digest);
        self.pythons
            .retain(|python| python.base != *base && is_pinned(python.base));
        self.pythons.push(LockedPython { base: *base, found });
        self.pythons.sort_by_key(|python| python.base.to_string());
    }

    /// What the lines with the recipe key `inputs` came to where they ran.
    pub(super) fn container(&self, inputs: &str) -> Option<&LockedContainer> {
        self.containers.iter().find(|one| one.inputs == inputs)
    }

    /// Puts `containers` in the place of what was published before.
    pub(super) fn pin_containers(&mut self, containers: Vec<LockedContainer>) {
        self.containers = containers;
    }

    /// What the requirements named `inputs` come to for a Python.
    pub fn requirements(
        &self,
        inputs: &ObjectDigest,
        target: &TargetPython,
    ) -> Option<&[LockedDistribution]> {
        let (inputs, python) = (inputs.to_string(), python_of(target));
        let platform = target.platform.to_string();
        let found = self
            .requirements
            .iter()
            .find(|one| one.inputs == inputs && one.python == python && one.platform == platform);
        found.map(|one| one.wheels.as_slice())
    }

    /// Pins what requirements come to, in the place of what others for the same Python came to.
    pub fn pin_requirements(
        &mut self,
        inputs: &ObjectDigest,
        target: &TargetPython,
        wheels: Vec<LockedDistribution>,
    ) {
        let (python, platform) = (python_of(target), target.platform.to_string());
        self.requirements
            .retain(|one| one.python != python || one.platform != platform);
        self.requirements.push(LockedRequirements {
            inputs: inputs.to_string(),
            python,
            platform,
            wheels,
        });
        self.requirements
            .sort_by(|a, b| (&a.python, &a.platform).cmp(&(&b.python, &b.platform)));
    }

    /// Whose bytecode images with this Python get; `None` if that was not decided.
    pub fn compiler(&self, (major, minor): (u8, u8)) -> Option<LockedCompiler> {
        let python = format!("{major}.{minor}");
        self.bytecode
            .iter()
            .find(|bytecode| bytecode.python == python)
            .map(|bytecode| bytecode.compiler)
    }

    /// Decides whose bytecode images with this Python get, or with `None` that it is to be
    /// decided anew; the file changes with [`LockFile::write`].
    pub fn pin_compiler(&mut self, (major, minor): (u8, u8), compiler: Option<LockedCompiler>) {
        let python = format!("{major}.{minor}");
        self.bytecode.retain(|bytecode| bytecode.python != python);
        self.bytecode
            .extend(compiler.map(|compiler| LockedBytecode { python, compiler }));
        self.bytecode.sort_by(|a, b| a.python.cmp(&b.python));
    }

    /// Writes the file beside itself and moves it into place.
    ///
    /// # Errors
    /// [`LockError::Write`]; the old file is then untouched.
    pub fn write(&self) -> Result<(), LockError> {
        let document = Document {
            version: Self::VERSION,
            bases: self.bases.clone(),
            pythons: self.pythons.clone(),
            containers: self.containers.clone(),
            requirements: self.requirements.clone(),
            bytecode: self.bytecode.clone(),
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

fn python_of(target: &TargetPython) -> String {
    format!("{}.{}", target.major, target.minor)
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
        lock.pin_compiler((3, 9), Some(LockedCompiler::None));
        let fingerprint = Fingerprint::of(b"bytecode");
        lock.pin_compiler((3, 11), Some(LockedCompiler::Compiler(fingerprint)));
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
        assert_eq!(lock.compiler((3, 9)), Some(LockedCompiler::None));
        let locked = lock.compiler((3, 11));
        assert_eq!(locked, Some(LockedCompiler::Compiler(fingerprint)));
        assert_eq!(lock.compiler((3, 10)), None);
    }

    #[test]
    fn requirements_are_pinned_for_each_python() {
        let project = tempfile::tempdir().unwrap();
        let mut lock = LockFile::read(project.path()).unwrap();
        let target = |minor| TargetPython {
            major: 3,
            minor,
            platform: crate::wheels::Platform::LinuxAmd64,
        };
        let wheel = |file: &str, source: Option<&str>| LockedDistribution {
            file: file.parse().unwrap(),
            sha256: Sha256Digest::of(file.as_bytes()),
            source: source.map(|source| crate::wheels::LockedSource {
                file: source.to_owned(),
                sha256: Sha256Digest::of(source.as_bytes()),
            }),
        };
        let built = vec![
            wheel("a-1-py3-none-any.whl", None),
            wheel("b-1-py3-none-any.whl", Some("b-1.tar.gz")),
        ];
        let (old, new) = (ObjectDigest::of(b"old"), ObjectDigest::of(b"new"));
        lock.pin_requirements(&old, &target(11), Vec::new());
        lock.pin_requirements(&old, &target(8), built.clone());
        lock.pin_requirements(&new, &target(11), built.clone());
        lock.pin_base("x", "linux/amd64", Sha256Digest::of(b"x"));
        let (base, gone) = (Sha256Digest::of(b"x"), Sha256Digest::of(b"y"));
        lock.pin_python(&gone, BasePython::official(3, 8));
        lock.pin_python(&base, BasePython::official(3, 11));
        lock.write().unwrap();
        let lock = LockFile::read(project.path()).unwrap();
        assert_eq!(lock.requirements(&old, &target(11)), None);
        assert_eq!(lock.python(&base), Some(&BasePython::official(3, 11)));
        assert_eq!(lock.python(&gone), None);
        for (inputs, minor) in [(new, 11), (old, 8)] {
            assert_eq!(
                lock.requirements(&inputs, &target(minor)),
                Some(built.as_slice())
            );
        }
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
