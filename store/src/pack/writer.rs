//! Writing a pack; its layout.

use std::io::{self, BufWriter, Write as _};

use tempfile::TempPath;

use super::{Entry, EntryKind, HEADER, encode_index};
use crate::durable::StagedFile;
use crate::object::ObjectInfo;
use crate::{ObjectDigest, StoreError};

/// Writes a pack, streaming.
///
/// All numbers are little-endian:
///
/// ```text
/// header   "forebay-pack", version u32 = 1
/// bodies   the entries' bytes, one after the other
/// index    for each entry:
///            kind u8: 1 object, 2 record (JSON)
///            BLAKE3 of the body, 32 bytes
///            SHA-256 of the body, 32 bytes
///            offset of the body in the file u64, its size u64
/// footer   offset of the index u64, number of entries u64,
///          BLAKE3 of header, index and the two numbers before, 32 bytes
/// ```
///
/// That last digest is the pack's name: it covers, through the digests in the
/// index, every byte of the file.
#[derive(Debug)]
pub(crate) struct PackWriter {
    file: BufWriter<StagedFile>,
    offset: u64,
    entries: Vec<Entry>,
    /// Whether a write failed: nobody knows how much of it is in the file.
    broken: bool,
}

/// A pack whose bytes are durable, but which has no final name yet.
pub(crate) struct SealedPack {
    pub(crate) name: ObjectDigest,
    pub(crate) path: TempPath,
    pub(crate) entries: Vec<Entry>,
}

impl PackWriter {
    pub(crate) fn new(staged: StagedFile) -> Result<Self, StoreError> {
        let mut writer = Self {
            file: BufWriter::with_capacity(256 * 1024, staged),
            offset: 0,
            entries: Vec::new(),
            broken: false,
        };
        writer.write(&HEADER)?;
        Ok(writer)
    }

    /// Appends `bytes`, whose digests are `info`; where they begin.
    pub(crate) fn append(
        &mut self,
        kind: EntryKind,
        info: ObjectInfo,
        bytes: &[u8],
    ) -> Result<u64, StoreError> {
        let offset = self.offset;
        self.write(bytes)?;
        self.entries.push(Entry { kind, info, offset });
        Ok(offset)
    }

    /// Appends what `reader` gives, streaming. The reader proves that it is what `info` says.
    pub(crate) fn append_from(
        &mut self,
        kind: EntryKind,
        info: ObjectInfo,
        reader: &mut dyn io::Read,
    ) -> Result<(), StoreError> {
        let offset = self.offset;
        let mut buffer = vec![0; info.size.clamp(1, 256 * 1024) as usize];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => self.write(buffer.get(..read).unwrap_or_default())?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(StoreError::Input { source }),
            }
        }
        self.entries.push(Entry { kind, info, offset });
        Ok(())
    }

    /// Writes index and footer, and makes the file durable.
    pub(crate) fn seal(mut self) -> Result<SealedPack, StoreError> {
        let (index, name) = encode_index(&self.entries, self.offset);
        self.write(&index)?;
        self.write(name.as_bytes())?;
        let path = self.file.get_ref().path().to_owned();
        let staged = self
            .file
            .into_inner()
            .map_err(|refused| StoreError::io("write", &path)(refused.into_error()))?;
        Ok(SealedPack {
            name,
            path: staged.seal()?,
            entries: self.entries,
        })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let written = if self.broken {
            Err(io::Error::other("an earlier write to it failed"))
        } else {
            self.file.write_all(bytes)
        };
        written.map_err(|source| {
            self.broken = true;
            StoreError::io("write", self.file.get_ref().path())(source)
        })?;
        self.offset += bytes.len() as u64;
        Ok(())
    }
}
