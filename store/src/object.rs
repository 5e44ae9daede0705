//! Reading objects: verified whenever bytes leave the store, and what happens
//! to those that are damaged.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use crate::staging::is_file_at;
use crate::store::Inner;
use crate::{ObjectDigest, Sha256Digest, StoreError};

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
    fn offset(&self) -> u64 {
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
    fn path_of(&self, located: &Located) -> PathBuf {
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
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
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
                self.index.forget(&located)?;
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
        let digest = object.located.info.digest;
        let moved_to = self.layout.corrupt().join(digest.to_string());
        let moved = match object.located.place {
            // Unless somebody has put it again since it was opened.
            Place::File if is_file_at(&object.file, &object.path) => {
                fs::rename(&object.path, &moved_to).map_err(StoreError::io("move", &object.path))
            }
            Place::File => Ok(()),
            Place::Pack { offset, .. } => copy_range(object, offset, &moved_to)
                .map_err(StoreError::io("copy damaged bytes to", &moved_to)),
        };
        match moved.and_then(|()| self.index.forget(&object.located)) {
            Ok(()) => StoreError::Damaged {
                digest,
                path: object.path.clone(),
                moved_to,
            },
            Err(error) => error,
        }
    }
}

fn copy_range(object: &ObjectFile, offset: u64, target: &std::path::Path) -> io::Result<()> {
    use std::io::{Seek as _, SeekFrom};

    let mut source = object.file.try_clone()?;
    source.seek(SeekFrom::Start(offset))?;
    let mut target = File::create(target)?;
    io::copy(&mut source.take(object.located.info.size), &mut target)?;
    Ok(())
}
