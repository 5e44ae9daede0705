//! Reading a pack, which a disk may have damaged or a stranger made.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::{ENTRY_SIZE, Entry, EntryKind, FOOTER_SIZE, HEADER, HEADER_SIZE, MAGIC};
use crate::bytes::{take, take_u64};
use crate::object::ObjectInfo;
use crate::{ObjectDigest, Sha256Digest, StoreError};

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
