//! Layers of saved images: checked against the configuration, and compressed if they are not.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use flate2::{Compression, GzBuilder};
use forebay_store::{Recipe, Store};
use sha2::Digest as _;

use super::SavedImageError;
use super::members::Member;
use crate::image::decompress::{Compressed, decompressed};
use crate::image::file_layer::ENCODER;
use crate::image::guard::MAX_LAYER;
use crate::image::layer::{self, Layer, StoredLayer};
use crate::oci::{BlobSource, Descriptor, Sha256Digest};

/// What is refused however right its digests are.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes that one layer may unpack to.
    pub layer: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { layer: MAX_LAYER }
    }
}

/// A layer that is sent as it lies in its file.
pub(super) struct AsItIs {
    pub(super) descriptor: Descriptor,
    pub(super) member: Member,
}

impl BlobSource for AsItIs {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(self.member.open()?))
    }
}

/// A blob that may be read from a temporary folder.
pub(super) struct Kept {
    pub(super) blob: Arc<dyn BlobSource>,
    pub(super) _folder: Arc<tempfile::TempDir>,
}

impl BlobSource for Kept {
    fn descriptor(&self) -> &Descriptor {
        self.blob.descriptor()
    }

    fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        self.blob.open()
    }
}

/// Makes blobs of layers whose compressed form is not known, several at a time.
pub(super) fn compressed(
    layers: &[(Member, Sha256Digest)],
    store: &Arc<Store>,
    limits: &Limits,
) -> Result<Vec<Arc<dyn BlobSource>>, SavedImageError> {
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..workers.min(layers.len()) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some((member, diff_id)) = layers.get(index) else {
                        return;
                    };
                    let layer = one(member, diff_id, store, limits);
                    if layer.is_err() {
                        // Nobody needs the rest.
                        next.store(layers.len(), Ordering::Relaxed);
                    }
                    let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                    done.push((index, layer));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(index, _)| *index);
    (done.into_iter())
        .map(|(_, layer)| {
            let Layer {
                descriptor, source, ..
            } = layer?;
            Ok(Arc::new(StoredLayer {
                store: Arc::clone(store),
                descriptor,
                source,
            }) as Arc<dyn BlobSource>)
        })
        .collect()
}

/// The compressed form of a layer: the one that the store remembers, or else a new one.
/// Its digest is kept, because another version of the encoder would give another.
fn one(
    member: &Member,
    diff_id: &Sha256Digest,
    store: &Store,
    limits: &Limits,
) -> Result<Layer, SavedImageError> {
    let key = Recipe::new("saved-layer", 1, &(ENCODER, diff_id.to_string()))?.key();
    if let Some(layer) = layer::realised(store, &key)?
        && let Some(object) = layer.object()
        && store.info(&object)?.is_some()
    {
        return Ok(layer);
    }
    let unreadable = |source| SavedImageError::Read { source };
    let layer = LayerArchive {
        member,
        diff_id,
        limit: limits.layer,
    };
    let mut batch = store.begin()?;
    let info = match member.compressed()? {
        Compressed::Gzip => {
            layer.copy(&mut io::sink())?;
            batch.put_reader(&mut member.open().map_err(unreadable)?)?
        }
        Compressed::Zstd => {
            return Err(SavedImageError::malformed(format!(
                "its layer {diff_id} is compressed with zstd, which no tool that saves images does"
            )));
        }
        Compressed::No => {
            let archive = layer.open()?;
            let mut encoder = GzBuilder::new()
                .operating_system(255)
                .read(archive, Compression::new(6));
            let put = batch.put_reader(&mut encoder);
            let archive = encoder.into_inner();
            match put {
                Ok(info) => {
                    archive.judge(diff_id)?;
                    info
                }
                Err(error) => return Err(archive.refusal().unwrap_or_else(|| error.into())),
            }
        }
    };
    let layer = layer::object_layer(&info, *diff_id, "");
    let outputs = [("object".to_owned(), info.digest)];
    layer::realise(&mut batch, &key, &layer, outputs)?;
    batch.commit()?;
    Ok(layer)
}

/// The archive of one layer, uncompressed.
pub(in crate::image) struct LayerArchive<'a> {
    pub(super) member: &'a Member,
    pub(super) diff_id: &'a Sha256Digest,
    /// Bytes that it may have.
    pub(super) limit: u64,
}

impl LayerArchive<'_> {
    /// Copies it to `out`; then it was what the configuration says.
    ///
    /// # Errors
    /// It is not, cannot be unpacked, or is too big.
    pub(in crate::image) fn copy(&self, out: &mut dyn io::Write) -> Result<(), SavedImageError> {
        let mut archive = self.open()?;
        io::copy(&mut archive, out).map_err(|error| archive.explain(error))?;
        archive.judge(self.diff_id)
    }

    /// Has it read to its end by `reader`; then it was what the configuration says.
    ///
    /// # Errors
    /// It is not, or what `reader` says.
    pub(in crate::image) fn read<T>(
        &self,
        reader: impl FnOnce(&mut dyn Read) -> io::Result<T>,
    ) -> Result<T, SavedImageError> {
        let mut archive = self.open()?;
        let read = reader(&mut archive).map_err(|error| archive.explain(error))?;
        archive.judge(self.diff_id)?;
        Ok(read)
    }

    fn open(&self) -> Result<Measured<Box<dyn Read>>, SavedImageError> {
        let opened = self.member.open().and_then(decompressed);
        let opened = opened.map_err(|source| SavedImageError::Read { source })?;
        Ok(Measured::new(opened, self.limit))
    }
}

impl Member {
    fn compressed(&self) -> Result<Compressed, SavedImageError> {
        let mut start = Vec::new();
        (self.open())
            .and_then(|reader| reader.take(4).read_to_end(&mut start))
            .map_err(|source| SavedImageError::Read { source })?;
        Ok(Compressed::of(&start))
    }
}

/// A layer's archive, hashed and measured as it is read.
struct Measured<R> {
    reader: R,
    hasher: sha2::Sha256,
    left: u64,
    limit: u64,
    beyond: bool,
}

impl<R: Read> Measured<R> {
    fn new(reader: R, limit: u64) -> Self {
        Self {
            reader,
            hasher: sha2::Sha256::new(),
            left: limit,
            limit,
            beyond: false,
        }
    }

    fn refusal(&self) -> Option<SavedImageError> {
        self.beyond.then(|| {
            SavedImageError::malformed(format!(
                "one of its layers unpacks to more than {} bytes",
                self.limit
            ))
        })
    }

    fn explain(&self, error: io::Error) -> SavedImageError {
        self.refusal().unwrap_or_else(|| {
            SavedImageError::malformed(format!("one of its layers cannot be unpacked: {error}"))
        })
    }

    fn judge(self, diff_id: &Sha256Digest) -> Result<(), SavedImageError> {
        let actual = Sha256Digest::from_bytes(self.hasher.finalize().into());
        if actual == *diff_id {
            return Ok(());
        }
        Err(SavedImageError::Damaged {
            what: "one of its layers".to_owned(),
            expected: diff_id.to_string(),
            actual: actual.to_string(),
        })
    }
}

impl<R: Read> Read for Measured<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let amount = self.reader.read(buffer)?;
        self.left = match self.left.checked_sub(amount as u64) {
            Some(left) => left,
            None => {
                self.beyond = true;
                return Err(io::Error::other("more than a layer may have"));
            }
        };
        let (bytes, _) = buffer.split_at(amount);
        self.hasher.update(bytes);
        Ok(amount)
    }
}

/// A whole archive that somebody has compressed is told of as such.
pub(super) fn refuse_compressed(path: &Path) -> Result<(), SavedImageError> {
    let mut start = Vec::new();
    File::open(path)
        .and_then(|file| file.take(4).read_to_end(&mut start))
        .map_err(|source| SavedImageError::Read { source })?;
    match Compressed::of(&start) != Compressed::No {
        true => Err(SavedImageError::malformed(
            "it is compressed as a whole; unpack it with gunzip or zstd -d first",
        )),
        false => Ok(()),
    }
}
