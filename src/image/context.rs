//! The project's files as layers take them: from the disk, proved to be what
//! the scan saw.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

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
