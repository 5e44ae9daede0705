//! Layers that are spliced from wheels instead of compressed.
//!
//! A wheel is a zip archive of raw DEFLATE streams, each with its CRC-32 and
//! size; a gzip file may consist of many members; a tar archive may be cut
//! anywhere. So a layer is, for every file, one member with the tar header
//! (stored) and one member whose DEFLATE stream is the wheel's own, verbatim.
//!
//! The store keeps the wheels and a recipe of the layer, about a hundredth of
//! its size; [`SplicedReader`] makes the bytes as they are sent.

use std::io::{self, Read, Write};

use forebay_store::{ObjectDigest, ObjectFile, Store};
use sha2::Digest as _;

use super::gzip;
use super::tar::{self, FileTree, Node};
use crate::oci::Sha256Digest;
use crate::wheels::{Archive, EntryReader, Method, ReadAt};

/// What a file of a spliced layer consists of.
#[derive(Debug, Clone)]
pub(super) enum Piece {
    /// Bytes that are in no wheel.
    Bytes(Vec<u8>),
    /// An entry of a wheel.
    Entry {
        /// Index into the wheels of the layer.
        wheel: usize,
        /// Index into the archive's entries.
        entry: usize,
        /// The SHA-256 that the inflated bytes must have.
        sha256: Option<Sha256Digest>,
    },
}

/// First bytes of a recipe; the digit is the version of its format.
const MAGIC: &[u8] = b"forebay spliced layer 1\n";
const LITERAL: u8 = 0;
const STORED: u8 = 1;
const DEFLATED: u8 = 2;

/// One part of a layer.
///
/// A recipe is the magic line, the number of wheels (u32), their object
/// digests (32 bytes each), and then one raw DEFLATE stream of segments. A segment is
/// a tag byte and, for a literal (0), a u32 length and the bytes; for a wheel's
/// stored (1) or deflated (2) entry, the wheel's index (u32), offset, compressed size
/// and size (u64 each) and CRC-32 (u32). Numbers are little-endian.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Literal(Vec<u8>),
    Entry {
        method: Method,
        wheel: u32,
        offset: u64,
        compressed_size: u64,
        size: u64,
        crc32: u32,
    },
}

impl Segment {
    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        match self {
            Self::Literal(bytes) => {
                let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
                out.write_all(&[LITERAL])?;
                out.write_all(&length.to_le_bytes())?;
                out.write_all(bytes)
            }
            Self::Entry {
                method,
                wheel,
                offset,
                compressed_size,
                size,
                crc32,
            } => {
                let tag = match method {
                    Method::Stored => STORED,
                    Method::Deflated => DEFLATED,
                };
                out.write_all(&[tag])?;
                out.write_all(&wheel.to_le_bytes())?;
                out.write_all(&offset.to_le_bytes())?;
                out.write_all(&compressed_size.to_le_bytes())?;
                out.write_all(&size.to_le_bytes())?;
                out.write_all(&crc32.to_le_bytes())
            }
        }
    }

    /// The next segment, or `None` at the end of the stream.
    fn read(input: &mut impl Read) -> io::Result<Option<Self>> {
        let mut tag = [0];
        if input.read(&mut tag)? == 0 {
            return Ok(None);
        }
        let method = match tag {
            [LITERAL] => {
                let length = u64::from(read_u32(input)?);
                let mut bytes = Vec::new();
                input.take(length).read_to_end(&mut bytes)?;
                if bytes.len() as u64 != length {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                return Ok(Some(Self::Literal(bytes)));
            }
            [STORED] => Method::Stored,
            [DEFLATED] => Method::Deflated,
            _ => return Err(damaged("a segment of an unknown kind")),
        };
        Ok(Some(Self::Entry {
            method,
            wheel: read_u32(input)?,
            offset: read_u64(input)?,
            compressed_size: read_u64(input)?,
            size: read_u64(input)?,
            crc32: read_u32(input)?,
        }))
    }
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("a layer's recipe has {what}"),
    )
}

fn read_u32(input: &mut impl Read) -> io::Result<u32> {
    let mut bytes = [0; 4];
    input.read_exact(&mut bytes)?;
    Ok(u32::from_le_bytes(bytes))
}

fn read_u64(input: &mut impl Read) -> io::Result<u64> {
    let mut bytes = [0; 8];
    input.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

/// What splicing gives: the recipe, and what is known of the layer it makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spliced {
    /// The recipe's bytes.
    pub recipe: Vec<u8>,
    /// SHA-256 of the layer as it is sent.
    pub digest: Sha256Digest,
    /// Its size in bytes.
    pub size: u64,
    /// SHA-256 of the tar archive inside (OCI image specification, `DiffID`).
    pub diff_id: Sha256Digest,
}

/// Collects segments and the diff id.
struct Recipe<W: Write> {
    out: W,
    pending: Vec<u8>,
    diff_id: sha2::Sha256,
}

impl<W: Write> Recipe<W> {
    fn literal(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.diff_id.update(bytes);
        self.pending.extend_from_slice(bytes);
        Ok(())
    }

    fn flush_literal(&mut self) -> io::Result<()> {
        if !self.pending.is_empty() {
            Segment::Literal(std::mem::take(&mut self.pending)).write(&mut self.out)?;
        }
        Ok(())
    }

    /// Inflates an entry once: for the diff id, and to prove its hash, size and CRC-32.
    fn prove<S: ReadAt>(
        &mut self,
        mut reader: EntryReader<'_, S>,
        sha256: Option<&Sha256Digest>,
        path: &str,
    ) -> io::Result<()> {
        let mut buffer = vec![0; 64 << 10];
        let mut hash = sha2::Sha256::new();
        loop {
            let length = reader.read(&mut buffer)?;
            let bytes = buffer.get(..length).unwrap_or_default();
            if bytes.is_empty() {
                break;
            }
            self.diff_id.update(bytes);
            hash.update(bytes);
        }
        let actual = Sha256Digest::from_bytes(hash.finalize().into());
        if sha256.is_some_and(|expected| *expected != actual) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{path:?} is not what RECORD says"),
            ));
        }
        Ok(())
    }
}

/// Makes the recipe of the layer that has the files of `tree`.
///
/// Every entry is inflated once, so that its hash is proved before the layer has
/// a digest. `open` gives the wheels again, for the bytes that are sent.
///
/// # Errors
/// An entry whose bytes are not what its archive or RECORD says, or a failure to read.
pub(super) fn splice<S: ReadAt>(
    tree: &FileTree<Piece>,
    wheels: &[(ObjectDigest, &Archive<S>)],
    open: impl FnOnce() -> io::Result<Vec<S>>,
) -> io::Result<Spliced> {
    let mut recipe = MAGIC.to_vec();
    let count = u32::try_from(wheels.len()).map_err(io::Error::other)?;
    recipe.extend_from_slice(&count.to_le_bytes());
    for (digest, _) in wheels {
        recipe.extend_from_slice(digest.as_bytes());
    }
    let encoder = flate2::write::DeflateEncoder::new(recipe, flate2::Compression::new(6));
    let mut recipe = Recipe {
        out: encoder,
        pending: Vec::new(),
        diff_id: sha2::Sha256::new(),
    };
    for (path, node) in tree.iter() {
        let mut header = Vec::new();
        tar::write_header(&mut header, path, node);
        recipe.literal(&header)?;
        let Node::File { content, size, .. } = node else {
            continue;
        };
        match content {
            Piece::Bytes(bytes) => recipe.literal(bytes)?,
            Piece::Entry {
                wheel,
                entry,
                sha256,
            } => {
                let (Some((_, archive)), Ok(index)) = (wheels.get(*wheel), u32::try_from(*wheel))
                else {
                    return Err(damaged("a wheel that is not there"));
                };
                let Some(entry) = archive.entries().get(*entry) else {
                    return Err(damaged("an entry that is not there"));
                };
                let segment = Segment::Entry {
                    method: entry.method,
                    wheel: index,
                    offset: entry.offset,
                    compressed_size: entry.compressed_size,
                    size: entry.size,
                    crc32: entry.crc32,
                };
                recipe.prove(archive.reader(entry), sha256.as_ref(), path)?;
                if entry.size > 0 {
                    recipe.flush_literal()?;
                    segment.write(&mut recipe.out)?;
                }
            }
        }
        recipe.literal(tar::END.get(..tar::padding(*size)).unwrap_or_default())?;
    }
    recipe.literal(&tar::END)?;
    recipe.flush_literal()?;
    let diff_id = Sha256Digest::from_bytes(recipe.diff_id.finalize().into());
    let recipe = recipe.out.finish()?;

    // The very reader that a push uses says what the layer's digest is.
    let mut reader = SplicedReader::new(io::Cursor::new(recipe.as_slice()), |_| open())?;
    let mut hash = sha2::Sha256::new();
    let mut size = 0;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = reader.read(&mut buffer)?;
        if length == 0 {
            break;
        }
        hash.update(buffer.get(..length).unwrap_or_default());
        size += length as u64;
    }
    Ok(Spliced {
        digest: Sha256Digest::from_bytes(hash.finalize().into()),
        size,
        diff_id,
        recipe,
    })
}

/// The rest of an entry that is being copied.
struct Copying {
    wheel: usize,
    offset: u64,
    left: u64,
    /// Stored entries get a block header for every block.
    stored: bool,
    trailer: [u8; 8],
}

/// Makes a layer's bytes from its recipe. It holds one segment's literal bytes
/// and one buffer of a wheel at a time.
///
/// The wheels' bytes are not verified here: whoever sends a layer compares the
/// whole with its digest.
pub(super) struct SplicedReader<R: Read, S> {
    segments: flate2::bufread::DeflateDecoder<io::BufReader<R>>,
    wheels: Vec<S>,
    out: Vec<u8>,
    out_at: usize,
    copying: Option<Copying>,
}

impl<R: Read, S: ReadAt> SplicedReader<R, S> {
    /// Starts on `recipe`; `open` gives the wheels that it names, in its order.
    ///
    /// # Errors
    /// A recipe of another format, or what `open` says.
    pub(super) fn new(
        recipe: R,
        open: impl FnOnce(&[ObjectDigest]) -> io::Result<Vec<S>>,
    ) -> io::Result<Self> {
        let mut recipe = io::BufReader::new(recipe);
        let mut magic = [0; MAGIC.len()];
        recipe.read_exact(&mut magic)?;
        if magic != MAGIC {
            return Err(damaged("an unknown format"));
        }
        let count = read_u32(&mut recipe)?;
        let mut digests = Vec::new();
        for _ in 0..count {
            let mut digest = [0; 32];
            recipe.read_exact(&mut digest)?;
            digests.push(ObjectDigest::from_bytes(digest));
        }
        Ok(Self {
            wheels: open(&digests)?,
            segments: flate2::bufread::DeflateDecoder::new(recipe),
            out: Vec::new(),
            out_at: 0,
            copying: None,
        })
    }

    /// Puts the next bytes into `out`; it stays empty at the layer's end.
    fn produce(&mut self) -> io::Result<()> {
        self.out.clear();
        self.out_at = 0;
        if let Some(copying) = &mut self.copying {
            let block = gzip::STORED_BLOCK;
            let length = usize::try_from(copying.left).map_or(block, |left| left.min(block));
            let last = length as u64 == copying.left;
            if copying.stored {
                self.out
                    .extend_from_slice(&gzip::stored_block_header(length, last));
            }
            let start = self.out.len();
            self.out.resize(start + length, 0);
            let wheel = self
                .wheels
                .get(copying.wheel)
                .ok_or_else(|| damaged("a wheel that is not there"))?;
            wheel.read_exact_at(
                self.out.get_mut(start..).unwrap_or_default(),
                copying.offset,
            )?;
            copying.offset += length as u64;
            copying.left -= length as u64;
            if last {
                self.out.extend_from_slice(&copying.trailer);
                self.copying = None;
            }
            return Ok(());
        }
        match Segment::read(&mut self.segments)? {
            None => {}
            Some(Segment::Literal(bytes)) => gzip::write_stored_member(&mut self.out, &bytes),
            Some(Segment::Entry {
                method,
                wheel,
                offset,
                compressed_size,
                size,
                crc32,
            }) => {
                self.out.extend_from_slice(&gzip::HEADER);
                self.copying = Some(Copying {
                    wheel: usize::try_from(wheel).unwrap_or(usize::MAX),
                    offset,
                    left: compressed_size,
                    stored: method == Method::Stored,
                    trailer: gzip::trailer(crc32, size),
                });
            }
        }
        Ok(())
    }
}

impl<R: Read, S: ReadAt> Read for SplicedReader<R, S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.out_at == self.out.len() {
            self.produce()?;
        }
        let ready = self.out.get(self.out_at..).unwrap_or_default();
        let length = ready.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..length), ready.get(..length)) {
            to.copy_from_slice(from);
        }
        self.out_at += length;
        Ok(length)
    }
}

/// Opens the layer whose recipe is the object `recipe`.
///
/// # Errors
/// A recipe or wheel that is not in the store, or cannot be read.
pub(super) fn open(
    store: &Store,
    recipe: &ObjectDigest,
) -> io::Result<SplicedReader<impl Read + Send + use<>, ObjectFile>> {
    let reader = store.reader(recipe).map_err(io::Error::other)?;
    SplicedReader::new(reader, |wheels| {
        store.bring(wheels).map_err(io::Error::other)?;
        wheels
            .iter()
            .map(|wheel| store.file(wheel).map_err(io::Error::other))
            .collect()
    })
}
