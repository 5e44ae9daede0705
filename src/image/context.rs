//! The project's files as layers take them: from the disk, proved to be what
//! the scan saw.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use forebay_store::{Digesting, ObjectDigest, Tree, TreeEntryKind};

use super::ImageError;

/// A project's directory with the scan of it.
#[derive(Debug, Clone, Copy)]
pub struct BuildContext<'a> {
    /// The directory.
    pub directory: &'a Path,
    /// Its files.
    pub tree: &'a Tree,
}

/// A regular file of the context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ContextFile {
    /// Relative to the context's directory.
    pub(super) path: String,
    pub(super) digest: ObjectDigest,
    pub(super) size: u64,
    pub(super) executable: bool,
}

/// When files are dated that are copied, since [`UNIX_EPOCH`]: 1980-01-01T00:00:01Z.
const TIME: Duration = Duration::from_secs(315_532_801);
/// Links that are followed, one after another, at most.
const MAX_LINKS: usize = 16;

impl BuildContext<'_> {
    /// The file at `path`; links within the context are followed.
    pub(super) fn file(&self, path: &str) -> Result<ContextFile, ImageError> {
        let mut current = path.to_owned();
        let mut last_link = None;
        for _ in 0..MAX_LINKS {
            match self.tree.get(&current).map(|entry| &entry.kind) {
                Some(TreeEntryKind::File {
                    digest,
                    size,
                    executable,
                }) => {
                    return Ok(ContextFile {
                        path: current,
                        digest: *digest,
                        size: *size,
                        executable: *executable,
                    });
                }
                Some(TreeEntryKind::Symlink { target }) => {
                    last_link = Some((current.clone(), target.clone()));
                    if target.starts_with('/') {
                        break;
                    }
                    let parent = current.rsplit_once('/').map_or("", |(parent, _)| parent);
                    current = super::run::resolve_path(parent, target);
                }
                _ => break,
            }
        }
        Err(match last_link {
            Some((path, target)) => ImageError::Link {
                is_absolute: target.starts_with('/'),
                path,
                target,
            },
            None => ImageError::NotInContext {
                path: path.to_owned(),
            },
        })
    }

    /// The files below `directory`, with what follows it in their paths.
    pub(super) fn below<'t>(&'t self, directory: &str) -> impl Iterator<Item = (&'t str, &'t str)> {
        let prefix = if directory.is_empty() {
            String::new()
        } else {
            format!("{}/", directory.trim_end_matches('/'))
        };
        self.tree.entries.iter().filter_map(move |entry| {
            let rest = entry.path.strip_prefix(prefix.as_str())?;
            Some((entry.path.as_str(), rest))
        })
    }

    /// Opens a file; the reader fails at its end if the bytes are not those that were scanned.
    pub(super) fn open(&self, file: &ContextFile) -> Result<VerifiedFile, ImageError> {
        let path = self.directory.join(&file.path);
        let opened =
            File::open(&path).map_err(ImageError::io(format!("cannot read {}", path.display())))?;
        Ok(VerifiedFile {
            inner: opened.take(file.size + 1),
            path: file.path.clone(),
            expected: file.digest,
            digesting: Some(Digesting::new()),
        })
    }

    /// The bytes of a small file.
    pub(super) fn read(&self, file: &ContextFile) -> Result<Vec<u8>, ImageError> {
        let mut bytes = Vec::new();
        self.open(file)?
            .read_to_end(&mut bytes)
            .map_err(ImageError::io(format!("cannot read {}", file.path)))?;
        Ok(bytes)
    }

    /// Copies files and links into `directory`, with the times and modes of layers.
    pub(super) fn copy<'p>(
        &self,
        paths: impl Iterator<Item = &'p str>,
        directory: &Path,
    ) -> Result<(), ImageError> {
        let cannot = || ImageError::io("cannot copy the project's files");
        fs::create_dir_all(directory).map_err(cannot())?;
        for path in paths {
            let target = directory.join(path);
            if let Some(parent) = target.parent() {
                fs::create_dir_all(parent).map_err(cannot())?;
            }
            if let Some(TreeEntryKind::Symlink { target: to }) =
                self.tree.get(path).map(|entry| &entry.kind)
            {
                symlink(to, &target).map_err(cannot())?;
                continue;
            }
            let file = self.file(path)?;
            let mut out = File::create(&target).map_err(cannot())?;
            io::copy(&mut self.open(&file)?, &mut out).map_err(cannot())?;
            let mode = if file.executable { 0o755 } else { 0o644 };
            fs::set_permissions(&target, fs::Permissions::from_mode(mode)).map_err(cannot())?;
            // Its time is no content.
            out.set_modified(UNIX_EPOCH + TIME).map_err(cannot())?;
        }
        Ok(())
    }

    /// Copies all of the project into `directory`, which need not be there.
    ///
    /// # Errors
    /// A file that cannot be read or written, or has changed since the scan.
    pub fn copy_all(&self, directory: &Path) -> Result<(), ImageError> {
        let paths = self.tree.entries.iter().map(|entry| entry.path.as_str());
        self.copy(paths, directory)
    }
}

/// See [`BuildContext::open`].
pub(super) struct VerifiedFile {
    inner: io::Take<File>,
    path: String,
    expected: ObjectDigest,
    digesting: Option<Digesting>,
}

impl Read for VerifiedFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        if length > 0 {
            if let Some(digesting) = &mut self.digesting {
                digesting.update(buffer.get(..length).unwrap_or_default());
            }
        } else if !buffer.is_empty()
            && let Some(digesting) = self.digesting.take()
            && digesting.finish().0 != self.expected
        {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{} was changed while it was read: build again", self.path),
            ));
        }
        Ok(length)
    }
}
