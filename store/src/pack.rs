//! The pack file: the small objects and the records of one batch, in one file
//! with one sync.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use tempfile::TempPath;

use crate::bytes::{take, take_u64};
use crate::durable::StagedFile;
use crate::object::ObjectInfo;
use crate::{ObjectDigest, Sha256Digest, StoreError};

/// What opens a pack: 12 bytes, then the version as a little-endian u32.
const HEADER: [u8; HEADER_SIZE as usize] = *b"forebay-pack\x01\0\0\0";
const HEADER_SIZE: u64 = 16;
const MAGIC: &[u8] = b"forebay-pack";
/// What the index of a pack says of one entry, in bytes.
pub(crate) const ENTRY_SIZE: u64 = 81;
const FOOTER_SIZE: u64 = 48;

/// What an entry of a pack is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EntryKind {
    Object,
    Record,
}

impl EntryKind {
    const fn to_byte(self) -> u8 {
        match self {
            Self::Object => 1,
            Self::Record => 2,
        }
    }

    const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Object),
            2 => Some(Self::Record),
            _ => None,
        }
    }
}

/// One entry of a pack's index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) kind: EntryKind,
    pub(crate) info: ObjectInfo,
    /// Where its bytes begin in the file.
    pub(crate) offset: u64,
}

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

/// The index and the first two fields of the footer; and the digest that ends the footer.
pub(crate) fn encode_index(entries: &[Entry], index_offset: u64) -> (Vec<u8>, ObjectDigest) {
    let mut bytes = Vec::with_capacity(entries.len() * ENTRY_SIZE as usize + 16);
    for entry in entries {
        bytes.push(entry.kind.to_byte());
        bytes.extend_from_slice(entry.info.digest.as_bytes());
        bytes.extend_from_slice(entry.info.sha256.as_bytes());
        bytes.extend_from_slice(&entry.offset.to_le_bytes());
        bytes.extend_from_slice(&entry.info.size.to_le_bytes());
    }
    bytes.extend_from_slice(&index_offset.to_le_bytes());
    bytes.extend_from_slice(&(entries.len() as u64).to_le_bytes());
    let name = name_of(&bytes);
    (bytes, name)
}

/// A pack of these bodies and entries, whether or not they fit each other.
#[cfg(any(test, fuzzing))]
pub(crate) fn assemble(bodies: &[u8], entries: &[u8]) -> Vec<u8> {
    let mut index = entries.to_vec();
    index.extend_from_slice(&(HEADER_SIZE + bodies.len() as u64).to_le_bytes());
    index.extend_from_slice(&(entries.len() as u64 / ENTRY_SIZE).to_le_bytes());
    [&HEADER, bodies, &index, name_of(&index).as_bytes()].concat()
}

fn name_of(index: &[u8]) -> ObjectDigest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&HEADER);
    hasher.update(index);
    ObjectDigest::from_bytes(*hasher.finalize().as_bytes())
}

/// A pack's index, read and checked. The bodies are not.
#[derive(Debug)]
pub(crate) struct Pack {
    pub(crate) name: ObjectDigest,
    pub(crate) entries: Vec<Entry>,
    file: File,
}

impl Pack {
    /// Opens the pack at `path`.
    ///
    /// # Errors
    /// [`StoreError::Pack`] if it is not a whole pack, [`StoreError::NewerPack`] if it is one
    /// of another version.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_with(path, |_| true)
    }

    /// [`Pack::open`] that shows every entry to `wanted`, and remembers only those for which it
    /// says so.
    pub(crate) fn open_with(
        path: &Path,
        wanted: impl FnMut(&Entry) -> bool,
    ) -> Result<Self, StoreError> {
        let mut file = File::open(path).map_err(StoreError::io("open", path))?;
        let (name, entries) = read_index(&mut file, wanted)
            .map_err(StoreError::io("read", path))?
            .map_err(|problem| match problem {
                Problem::Newer => StoreError::NewerPack {
                    path: path.to_owned(),
                },
                Problem::Damage(problem) => StoreError::Pack {
                    path: path.to_owned(),
                    problem,
                },
            })?;
        Ok(Self {
            name,
            entries,
            file,
        })
    }

    /// Whether the bytes of `entry` are what its digest says. Its SHA-256 is believed:
    /// the pack's name covers it.
    pub(crate) fn is_intact(&self, entry: &Entry) -> io::Result<bool> {
        Ok(self.intact_start(entry, 0)?.is_some())
    }

    /// The first bytes of `entry`, `limit` at most, if all of them are what its digest says.
    pub(crate) fn intact_start(&self, entry: &Entry, limit: usize) -> io::Result<Option<Vec<u8>>> {
        let mut start = Vec::new();
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; entry.info.size.min(256 * 1024) as usize];
        let mut done = 0;
        while done < entry.info.size {
            let wanted = (entry.info.size - done).min(buffer.len() as u64) as usize;
            let (part, _) = buffer.split_at_mut(wanted);
            self.file.read_exact_at(part, entry.offset + done)?;
            hasher.update(part);
            if done == 0 {
                start.extend_from_slice(part.get(..limit).unwrap_or(part));
            }
            done += wanted as u64;
        }
        let is_intact = hasher.finalize().as_bytes() == entry.info.digest.as_bytes();
        Ok(is_intact.then_some(start))
    }

    /// The bytes of `entry`, whatever they are.
    pub(crate) fn bytes(&self, entry: &Entry) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; entry.info.size as usize];
        self.file.read_exact_at(&mut bytes, entry.offset)?;
        Ok(bytes)
    }
}

pub(crate) type Checked<T> = Result<T, Problem>;

/// Why a file is not a pack that can be read.
pub(crate) enum Problem {
    Newer,
    Damage(&'static str),
}

/// How many entries are read at a time.
const CHUNK: usize = 512;

/// The pack's name, and the entries that are wanted.
pub(crate) fn read_index(
    file: &mut (impl Read + Seek),
    mut wanted: impl FnMut(&Entry) -> bool,
) -> io::Result<Checked<(ObjectDigest, Vec<Entry>)>> {
    let length = file.seek(SeekFrom::End(0))?;
    file.rewind()?;
    if length < HEADER_SIZE + FOOTER_SIZE {
        return Ok(Err(Problem::Damage("it is too short")));
    }
    let mut header = [0; HEADER_SIZE as usize];
    file.read_exact(&mut header)?;
    if header != HEADER {
        return Ok(Err(if header.starts_with(MAGIC) {
            Problem::Newer
        } else {
            Problem::Damage("it does not begin as a pack")
        }));
    }
    file.seek(SeekFrom::Start(length - FOOTER_SIZE))?;
    let mut footer = [0; FOOTER_SIZE as usize];
    file.read_exact(&mut footer)?;
    let mut rest = footer.as_slice();
    let (Some(index_offset), Some(count), Some(name)) =
        (take_u64(&mut rest), take_u64(&mut rest), take(&mut rest))
    else {
        return Ok(Err(Problem::Damage("it is too short")));
    };
    let expected_length = count
        .checked_mul(ENTRY_SIZE)
        .and_then(|size| size.checked_add(index_offset))
        .and_then(|size| size.checked_add(FOOTER_SIZE));
    if index_offset < HEADER_SIZE || expected_length != Some(length) {
        return Ok(Err(Problem::Damage("its footer does not fit its length")));
    }
    file.seek(SeekFrom::Start(index_offset))?;
    let mut hasher = blake3::Hasher::new();
    hasher.update(&HEADER);
    let mut entries = Vec::new();
    let mut is_possible = true;
    let mut buffer = [0; ENTRY_SIZE as usize * CHUNK];
    let mut left = count as usize;
    while left > 0 {
        let (part, _) = buffer.split_at_mut(left.min(CHUNK) * ENTRY_SIZE as usize);
        file.read_exact(part)?;
        hasher.update(part);
        let mut rest = &*part;
        while !rest.is_empty() {
            match take_entry(&mut rest, index_offset) {
                Some(entry) if wanted(&entry) => entries.push(entry),
                Some(_) => {}
                None => {
                    is_possible = false;
                    break;
                }
            }
        }
        left -= left.min(CHUNK);
    }
    let (numbers, _) = footer.split_at(FOOTER_SIZE as usize - 32);
    hasher.update(numbers);
    if hasher.finalize().as_bytes() != &name {
        return Ok(Err(Problem::Damage(
            "its index does not have the digest that ends it",
        )));
    }
    if !is_possible {
        return Ok(Err(Problem::Damage("its index has an impossible entry")));
    }
    Ok(Ok((ObjectDigest::from_bytes(name), entries)))
}

fn take_entry(rest: &mut &[u8], index_offset: u64) -> Option<Entry> {
    let [kind] = take(rest)?;
    let entry = Entry {
        kind: EntryKind::from_byte(kind)?,
        info: ObjectInfo {
            digest: ObjectDigest::from_bytes(take(rest)?),
            sha256: Sha256Digest::from_bytes(take(rest)?),
            size: 0,
        },
        offset: take_u64(rest)?,
    };
    let size = take_u64(rest)?;
    let end = entry.offset.checked_add(size)?;
    (entry.offset >= HEADER_SIZE && end <= index_offset).then_some(Entry {
        info: ObjectInfo { size, ..entry.info },
        ..entry
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn write(bodies: &[(bool, Vec<u8>)]) -> (tempfile::TempDir, SealedPack) {
        let directory = tempfile::tempdir().unwrap();
        let staged = StagedFile::create(
            directory.path(),
            std::sync::Arc::new(crate::file_system::RealFileSystem),
        )
        .unwrap();
        let mut writer = PackWriter::new(staged).unwrap();
        for (is_record, body) in bodies {
            let kind = if *is_record {
                EntryKind::Record
            } else {
                EntryKind::Object
            };
            writer.append(kind, ObjectInfo::of(body), body).unwrap();
        }
        (directory, writer.seal().unwrap())
    }

    fn bodies() -> impl Strategy<Value = Vec<(bool, Vec<u8>)>> {
        let body = proptest::collection::vec(any::<u8>(), 0..200);
        proptest::collection::vec((any::<bool>(), body), 0..8)
    }

    /// What can be had from the file at `path` must be what was written.
    fn assert_nothing_wrong(path: &Path, sealed: &SealedPack, bodies: &[(bool, Vec<u8>)]) -> usize {
        let pack = match Pack::open(path) {
            Ok(pack) => pack,
            Err(StoreError::Pack { .. } | StoreError::NewerPack { .. }) => return 0,
            Err(other) => panic!("{other}"),
        };
        assert_eq!((pack.name, &pack.entries), (sealed.name, &sealed.entries));
        let mut intact = 0;
        for (entry, (_, body)) in pack.entries.iter().zip(bodies) {
            if pack.is_intact(entry).unwrap() {
                assert_eq!(&pack.bytes(entry).unwrap(), body);
                intact += 1;
            }
        }
        intact
    }

    #[test]
    fn the_layout_is_the_documented_one() {
        let (_directory, sealed) = write(&[(false, b"body".to_vec())]);
        let bytes = std::fs::read(&sealed.path).unwrap();
        let mut expected = b"forebay-pack\x01\0\0\0body\x01".to_vec();
        expected.extend_from_slice(blake3::hash(b"body").as_bytes());
        expected.extend_from_slice(Sha256Digest::of(b"body").as_bytes());
        for number in [16_u64, 4, 20, 1] {
            expected.extend_from_slice(&number.to_le_bytes());
        }
        let mut covered = expected.get(..16).unwrap().to_vec();
        covered.extend_from_slice(expected.get(20..).unwrap());
        expected.extend_from_slice(blake3::hash(&covered).as_bytes());
        assert_eq!(bytes, expected);
        assert_eq!(sealed.name, ObjectDigest::of(&covered));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_was_written_is_read(bodies in bodies()) {
            let (_directory, sealed) = write(&bodies);
            prop_assert_eq!(assert_nothing_wrong(&sealed.path, &sealed, &bodies), bodies.len());
        }

        #[test]
        fn damage_never_gives_wrong_bytes(
            bodies in bodies(),
            at in any::<proptest::sample::Index>(),
            bit in 0..8u8,
            truncate in any::<bool>(),
        ) {
            let (directory, sealed) = write(&bodies);
            let mut bytes = std::fs::read(&sealed.path).unwrap();
            let position = at.index(bytes.len());
            if truncate {
                bytes.truncate(position);
            } else {
                bytes[position] ^= 1u8 << bit;
            }
            let damaged = directory.path().join("damaged");
            std::fs::write(&damaged, bytes).unwrap();
            let intact = assert_nothing_wrong(&damaged, &sealed, &bodies);
            prop_assert!(intact < bodies.len() || bodies.is_empty());
        }

        #[test]
        fn any_bytes_are_a_pack_or_an_error(tail in proptest::collection::vec(any::<u8>(), 0..400)) {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("pack");
            std::fs::write(&path, [HEADER.as_slice(), &tail].concat()).unwrap();
            let _ = Pack::open(&path).map(|pack| {
                for entry in &pack.entries {
                    let _ = pack.bytes(entry);
                }
            });
        }
    }
}
