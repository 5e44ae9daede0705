//! Bytes that can be sent to a registry, and sent again after a failure.

use std::io::{self, Cursor, Read};

use bytes::Bytes;

use super::{Descriptor, MediaType, Repository};

/// A blob whose digest and size are known before its bytes are produced.
///
/// A registry client opens it once for every attempt, so an implementation
/// must give the same bytes each time; the client verifies them against the
/// descriptor as they pass.
pub trait BlobSource: Send + Sync {
    /// Media type, digest and size in bytes.
    fn descriptor(&self) -> &Descriptor;

    /// Opens the bytes from their start. Opening and reading may block: call both
    /// off the async threads.
    ///
    /// # Errors
    /// What the underlying file or store says.
    fn open(&self) -> io::Result<Box<dyn Read + Send>>;

    /// A repository that has this blob, so that a registry can mount it from there.
    fn origin(&self) -> Option<&Repository> {
        None
    }
}

/// A small blob in memory: a configuration, a test's layer.
#[derive(Debug, Clone)]
pub struct BytesBlob {
    descriptor: Descriptor,
    bytes: Bytes,
}

impl BytesBlob {
    /// Wraps `bytes`, computing their digest.
    pub fn new(media_type: MediaType, bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self {
            descriptor: Descriptor::of(media_type, &bytes),
            bytes,
        }
    }

    /// The bytes themselves.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

impl BlobSource for BytesBlob {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(Cursor::new(self.bytes.clone())))
    }
}
