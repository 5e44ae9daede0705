//! `blobs/sha256`: files whose name is their content's digest.

use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};

use super::super::RegistryError;
use super::super::verified::{VerifiedReader, Verifier, read_some};
use crate::oci::{Descriptor, Sha256Digest};

/// The blobs of one layout.
#[derive(Debug, Clone)]
pub(super) struct BlobDirectory {
    path: PathBuf,
}

impl BlobDirectory {
    pub(super) fn new(layout: &Path) -> Self {
        Self {
            path: layout.join("blobs").join("sha256"),
        }
    }

    fn file(&self, digest: &Sha256Digest) -> PathBuf {
        self.path.join(digest.hex())
    }

    /// The blob's length, if it is there.
    pub(super) fn size(&self, digest: &Sha256Digest) -> Result<Option<u64>, RegistryError> {
        match fs::metadata(self.file(digest)) {
            Ok(metadata) => Ok(metadata.is_file().then_some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(self.read_error(digest, source)),
        }
    }

    pub(super) fn open(
        &self,
        descriptor: &Descriptor,
    ) -> Result<VerifiedReader<File>, RegistryError> {
        let file = File::open(self.file(&descriptor.digest))
            .map_err(|source| self.read_error(&descriptor.digest, source))?;
        Ok(VerifiedReader::new(file, descriptor))
    }

    /// Writes a blob that is not there: staged beside its place, verified,
    /// synced, renamed, and the directory synced.
    pub(super) fn write(
        &self,
        descriptor: &Descriptor,
        reader: &mut dyn Read,
    ) -> Result<(), RegistryError> {
        let path = self.file(&descriptor.digest);
        let failed = |source: io::Error| RegistryError::Io {
            action: format!("cannot write {}", path.display()),
            source,
        };
        fs::create_dir_all(&self.path).map_err(failed)?;
        let mut staged = staged_file(&self.path).map_err(failed)?;
        let mut verifier = Verifier::new(descriptor);
        let mut buffer = vec![0; 128 << 10];
        loop {
            let amount =
                read_some(&mut &mut *reader, &mut buffer).map_err(|source| RegistryError::Io {
                    action: format!("cannot read the blob {}", descriptor.digest),
                    source,
                })?;
            if amount == 0 {
                break;
            }
            let (bytes, _) = buffer.split_at(amount);
            verifier.update(bytes)?;
            staged.write_all(bytes).map_err(failed)?;
        }
        verifier.finish()?;
        publish(staged, &path).map_err(failed)
    }

    pub(super) fn read_error(&self, digest: &Sha256Digest, source: io::Error) -> RegistryError {
        RegistryError::Io {
            action: format!("cannot read {}", self.file(digest).display()),
            source,
        }
    }
}

/// A file that vanishes unless it is published.
pub(super) fn staged_file(directory: &Path) -> io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        // As any file that a user makes: others may be meant to read the layout.
        builder.permissions(fs::Permissions::from_mode(0o644));
    }
    builder.prefix(".writing-").tempfile_in(directory)
}

/// Makes a staged file durable, then visible, then its name durable.
pub(super) fn publish(staged: tempfile::NamedTempFile, path: &Path) -> io::Result<()> {
    staged.as_file().sync_all()?;
    staged.persist(path).map_err(|error| error.error)?;
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}
