//! Reading objects: verified whenever bytes leave the store, and what happens
//! to those that are damaged.

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Seek as _, SeekFrom};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::inner::Inner;
use crate::{Digesting, ObjectDigest, Sha256Digest, StoreError};

/// An object's names and size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ObjectInfo {
    /// BLAKE3: its name in the store.
    pub digest: ObjectDigest,
    /// SHA-256: its name in registries.
    pub sha256: Sha256Digest,
    /// Its size in bytes.
    pub size: u64,
}

impl ObjectInfo {
    /// The names and size that `bytes` have as an object, whether or not a store has it.
    pub fn of(bytes: &[u8]) -> Self {
        let mut digesting = Digesting::new();
        digesting.update(bytes);
        digesting.into()
    }
}

impl From<Digesting> for ObjectInfo {
    fn from(digesting: Digesting) -> Self {
        let (digest, sha256, size) = digesting.finish();
        Self {
            digest,
            sha256,
            size,
        }
    }
}

/// Where an object's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// A file of its own.
    File,
    /// From `offset` on in the pack with that name.
    Pack { name: ObjectDigest, offset: u64 },
}

/// What the index says of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Located {
    pub(crate) info: ObjectInfo,
    pub(crate) place: Place,
}

impl Located {
    /// Where the object's bytes begin in its file.
    pub(crate) fn offset(&self) -> u64 {
        match self.place {
            Place::File => 0,
            Place::Pack { offset, .. } => offset,
        }
    }

    /// Whether a file of that length can hold it.
    fn fits(&self, length: u64) -> bool {
        match self.place {
            Place::File => length == self.info.size,
            Place::Pack { offset, .. } => offset
                .checked_add(self.info.size)
                .is_some_and(|end| end <= length),
        }
    }
}

/// An object's bytes for reading at any offset, by several threads at once.
///
/// **Not verified**: the caller verifies what it makes of them.
#[derive(Debug)]
pub struct ObjectFile {
    located: Located,
    path: PathBuf,
    file: File,
}

impl ObjectFile {
    /// The object's names and size.
    pub fn info(&self) -> &ObjectInfo {
        &self.located.info
    }

    /// Fills `buffer` from `offset` (in bytes from the object's start) on.
    ///
    /// # Errors
    /// [`StoreError::OutOfRange`] if the object ends before; [`StoreError::Io`] from the system.
    pub fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), StoreError> {
        let size = self.located.info.size;
        let length = buffer.len() as u64;
        if offset.checked_add(length).is_none_or(|end| end > size) {
            return Err(StoreError::OutOfRange {
                digest: self.located.info.digest,
                path: self.path.clone(),
                offset,
                length,
                size,
            });
        }
        self.file
            .read_exact_at(buffer, self.located.offset() + offset)
            .map_err(StoreError::io("read", &self.path))
    }
}

/// An object's bytes from the first to the last, verified: the read that would
/// give the last byte fails if the bytes are not the object's.
#[derive(Debug)]
pub struct ObjectReader {
    store: Arc<Inner>,
    object: ObjectFile,
    position: u64,
    hasher: blake3::Hasher,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Reading,
    Verified,
    Failed,
}

impl ObjectReader {
    pub(crate) fn new(store: Arc<Inner>, object: ObjectFile) -> Self {
        Self {
            store,
            object,
            position: 0,
            hasher: blake3::Hasher::new(),
            state: State::Reading,
        }
    }

    /// The object's names and size.
    pub fn info(&self) -> &ObjectInfo {
        self.object.info()
    }

    /// Reads all, and verifies it.
    pub(crate) fn read_all(mut self) -> Result<Vec<u8>, StoreError> {
        // The file is at least as long, so that a wrong size cannot ask for more than there is.
        let mut bytes = vec![0; self.object.info().size as usize];
        let mut done = 0;
        while let Some(rest) = bytes.get_mut(done..) {
            match self.read_verified(rest)? {
                0 => break,
                read => done += read,
            }
        }
        Ok(bytes)
    }

    /// Reads all and keeps nothing: whether it is intact.
    pub(crate) fn verify(mut self) -> Result<(), StoreError> {
        let mut buffer = vec![0; self.object.info().size.clamp(1, 256 * 1024) as usize];
        while self.read_verified(&mut buffer)? > 0 {}
        Ok(())
    }

    fn read_verified(&mut self, buffer: &mut [u8]) -> Result<usize, StoreError> {
        let left = self.object.info().size - self.position;
        let wanted = left.min(buffer.len() as u64) as usize;
        let (part, _) = buffer.split_at_mut(wanted);
        if self.state == State::Failed {
            return Err(self.damaged());
        }
        if wanted > 0 {
            match self.object.read_exact_at(part, self.position) {
                Ok(()) => {}
                // It has been cut off since it was opened.
                Err(StoreError::Io { source, .. })
                    if source.kind() == io::ErrorKind::UnexpectedEof =>
                {
                    self.state = State::Failed;
                    return Err(self.damaged());
                }
                Err(error) => return Err(error),
            }
            self.hasher.update(part);
            self.position += wanted as u64;
        }
        if self.position == self.object.info().size && self.state == State::Reading {
            if self.hasher.finalize().as_bytes() != self.object.info().digest.as_bytes() {
                self.state = State::Failed;
                return Err(self.damaged());
            }
            self.state = State::Verified;
        }
        Ok(wanted)
    }

    fn damaged(&self) -> StoreError {
        self.store.quarantine(&self.object)
    }
}

impl Read for ObjectReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(self.read_verified(buffer)?)
    }
}

impl Inner {
    /// The file that holds the object.
    pub(crate) fn path_of(&self, located: &Located) -> PathBuf {
        match located.place {
            Place::File => self.layout.object(&located.info.digest),
            Place::Pack { name, .. } => self.layout.pack(&name),
        }
    }

    /// Whether the object's file is there and long enough. Its bytes are not looked at.
    pub(crate) fn is_present(&self, located: &Located) -> Result<bool, StoreError> {
        let path = self.path_of(located);
        match fs::metadata(&path) {
            Ok(metadata) => Ok(located.fits(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // A collection may have moved it to another pack since it was looked up.
                match self.index.locate(&located.info.digest)? {
                    Some((now, _)) if now != *located => self.is_present(&now),
                    _ => Ok(false),
                }
            }
            Err(error) => Err(StoreError::io("read", &path)(error)),
        }
    }

    /// Opens an object's file; forgets the object if the file is gone.
    pub(crate) fn open_object(&self, located: Located) -> Result<ObjectFile, StoreError> {
        let path = self.path_of(&located);
        let lost = |path| StoreError::Lost {
            digest: located.info.digest,
            path,
        };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // A collection may have moved it to another pack since it was looked up.
                match self.index.locate(&located.info.digest)? {
                    Some((now, _)) if now != located => return self.open_object(now),
                    None => return Err(self.not_found(&located.info.digest)),
                    Some(_) => {}
                }
                self.index
                    .forget_if(&located, || Ok(named(&path)?.is_none()))?;
                return Err(lost(path));
            }
            Err(error) => return Err(StoreError::io("open", &path)(error)),
        };
        let length = file
            .metadata()
            .map_err(StoreError::io("read", &path))?
            .len();
        let object = ObjectFile {
            located,
            path,
            file,
        };
        if located.fits(length) {
            Ok(object)
        } else {
            Err(self.quarantine(&object))
        }
    }

    /// Whether an object that the index knows is really there. If not, the index forgets it.
    pub(crate) fn is_intact(self: &Arc<Self>, located: Located) -> Result<bool, StoreError> {
        let verified = self
            .open_object(located)
            .and_then(|object| ObjectReader::new(Arc::clone(self), object).verify());
        match verified {
            Ok(()) => Ok(true),
            Err(StoreError::Lost { .. } | StoreError::Damaged { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Moves the bytes of a damaged object to `corrupt/` and forgets the object.
    /// Gives the error that says so, or the one that prevented it.
    fn quarantine(&self, object: &ObjectFile) -> StoreError {
        match self.move_aside(object) {
            Ok(moved_to) => StoreError::Damaged {
                digest: object.located.info.digest,
                path: object.path.clone(),
                moved_to,
            },
            Err(error) => error,
        }
    }

    fn move_aside(&self, object: &ObjectFile) -> Result<PathBuf, StoreError> {
        let path = &object.path;
        let target = self
            .layout
            .corrupt()
            .join(object.located.info.digest.to_string());
        if let Place::Pack { offset, .. } = object.located.place {
            copy_range(object, offset, &target)
                .map_err(StoreError::io("copy damaged bytes to", &target))?;
        }
        let opened = object
            .file
            .metadata()
            .map_err(StoreError::io("read", path))?;
        self.index
            .forget_if(&object.located, || match named(path)? {
                // Somebody else has moved it.
                None => Ok(true),
                Some(now) if (now.dev(), now.ino()) == (opened.dev(), opened.ino()) => {
                    if object.located.place == Place::File {
                        // Nobody can have replaced it since: publishing replaces nothing.
                        fs::rename(path, &target).map_err(StoreError::io("move", path))?;
                    }
                    Ok(true)
                }
                // Somebody has put it again.
                Some(_) => Ok(false),
            })?;
        Ok(target)
    }
}

/// What is at `path` now.
fn named(path: &Path) -> Result<Option<Metadata>, StoreError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::io("read", path)(error)),
    }
}

fn copy_range(object: &ObjectFile, offset: u64, target: &Path) -> io::Result<()> {
    let mut source = object.file.try_clone()?;
    source.seek(SeekFrom::Start(offset))?;
    let mut target = File::create(target)?;
    io::copy(&mut source.take(object.located.info.size), &mut target)?;
    Ok(())
}
