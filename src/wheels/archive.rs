//! Reads a wheel's zip archive down to its raw DEFLATE streams.
//!
//! A general zip library hides what matters here: it folds duplicate names
//! together, and it gives inflated bytes, where a spliced layer wants the
//! stream as it stands in the file (PKWARE's APPNOTE.TXT, sections 4.3 and 4.5).
//! Everything in the archive is hostile until it has been checked.

use std::collections::HashSet;
use std::io::{self, Read};

use super::inflate::EntryReader;

/// Entries that one archive may have.
const MAX_ENTRIES: u64 = 200_000;
/// Bytes that the central directory may have.
const MAX_DIRECTORY: u64 = 64 << 20;
/// Bytes that all the entries of one archive may inflate to.
const MAX_INFLATED: u64 = 16 << 30;
/// Bytes that a path may have; one component may have 255.
const MAX_PATH: usize = 1024;

const LOCAL_HEADER: u32 = 0x0403_4b50;
const CENTRAL_HEADER: u32 = 0x0201_4b50;
const END_RECORD: u32 = 0x0605_4b50;
const END_RECORD_64: u32 = 0x0606_4b50;
const END_LOCATOR_64: u32 = 0x0706_4b50;

/// Bytes that can be read at any position.
pub trait ReadAt {
    /// Fills `buffer` with the bytes from `offset` on.
    ///
    /// # Errors
    /// The device's error, or `UnexpectedEof` past the end.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// The length in bytes.
    fn size(&self) -> u64;
}

impl<B: ReadAt + ?Sized> ReadAt for &B {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        (**self).read_exact_at(buffer, offset)
    }

    fn size(&self) -> u64 {
        (**self).size()
    }
}

impl ReadAt for std::fs::File {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(self, buffer, offset)
    }

    fn size(&self) -> u64 {
        self.metadata().map_or(0, |metadata| metadata.len())
    }
}

impl ReadAt for Vec<u8> {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let bytes = start
            .checked_add(buffer.len())
            .and_then(|end| self.get(start..end))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    fn size(&self) -> u64 {
        self.len() as u64
    }
}

/// Why an archive was refused.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It could not be read.
    #[error("the archive cannot be read")]
    Io(#[from] io::Error),
    /// It breaks the format, or a rule that keeps hostile archives out.
    #[error("{0}")]
    Refused(String),
}

pub(super) fn refused<T>(problem: impl Into<String>) -> Result<T, ArchiveError> {
    Err(ArchiveError::Refused(problem.into()))
}

/// How an entry's bytes stand in the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// As they are (method 0).
    Stored,
    /// A raw DEFLATE stream (method 8, RFC 1951).
    Deflated,
}

/// One file of an archive.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its path: relative, `/` between the components, none of them `.` or `..`.
    pub path: String,
    /// How its bytes stand in the archive.
    pub method: Method,
    /// Where its (compressed) bytes start.
    pub offset: u64,
    /// How many they are.
    pub compressed_size: u64,
    /// How many they inflate to, as the archive says.
    pub size: u64,
    /// The CRC-32 of the inflated bytes, as the archive says.
    pub crc32: u32,
    /// Whether the mode has an executable bit.
    pub executable: bool,
}

/// A zip archive whose directory has been read and checked.
#[derive(Debug)]
pub struct Archive<S> {
    source: S,
    entries: Vec<Entry>,
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes
        .get(at..at + 2)
        .and_then(|b| b.try_into().ok())
        .map_or(0, u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..at + 4)
        .and_then(|b| b.try_into().ok())
        .map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes
        .get(at..at + 8)
        .and_then(|b| b.try_into().ok())
        .map_or(0, u64::from_le_bytes)
}

/// Checks that `path` stays where it is put, on every file system.
pub(crate) fn check_path(path: &str) -> Result<(), String> {
    let component_is_sound = |component: &str| {
        // In a layer, a name that begins so removes files of the layers below.
        let is_whiteout = component.starts_with(".wh.");
        !component.is_empty()
            && component != "."
            && component != ".."
            && component.len() <= 255
            && !is_whiteout
    };
    if path.len() > MAX_PATH {
        return Err(format!(
            "a path is longer than {MAX_PATH} bytes: {}…",
            path.chars().take(80).collect::<String>()
        ));
    }
    if path.chars().any(|c| c == '\\' || c.is_control()) || !path.split('/').all(component_is_sound)
    {
        return Err(format!("the path {path:?} is not allowed"));
    }
    Ok(())
}

/// The central directory's place.
struct Directory {
    offset: u64,
    size: u64,
    entries: u64,
}

fn find_directory(source: &impl ReadAt) -> Result<Directory, ArchiveError> {
    let size = source.size();
    // The end record has 22 bytes and a comment of at most 65,535.
    let tail_size = size.min(22 + 65_535);
    let tail_offset = size - tail_size;
    let mut tail = vec![0; usize::try_from(tail_size).unwrap_or(0)];
    source.read_exact_at(&mut tail, tail_offset)?;
    let end = (0..tail.len().saturating_sub(21)).rev().find(|&at| {
        u32_at(&tail, at) == END_RECORD
            && at + 22 + usize::from(u16_at(&tail, at + 20)) == tail.len()
    });
    let Some(at) = end else {
        return refused("it is not a zip archive");
    };
    if u16_at(&tail, at + 4) != 0 || u16_at(&tail, at + 6) != 0 {
        return refused("it is one part of an archive in several parts");
    }
    let mut directory = Directory {
        entries: u64::from(u16_at(&tail, at + 10)),
        size: u64::from(u32_at(&tail, at + 12)),
        offset: u64::from(u32_at(&tail, at + 16)),
    };
    let mut directory_end = tail_offset + at as u64;
    let is_zip64 = directory.entries == 0xffff
        || directory.size == 0xffff_ffff
        || directory.offset == 0xffff_ffff;
    if is_zip64 && directory_end >= 20 + 56 {
        let mut locator = [0; 20];
        source.read_exact_at(&mut locator, directory_end - 20)?;
        if u32_at(&locator, 0) == END_LOCATOR_64 {
            let record_offset = u64_at(&locator, 8);
            if record_offset > directory_end - 20 - 56 {
                return refused("its zip64 end record is out of place");
            }
            let mut record = [0; 56];
            source.read_exact_at(&mut record, record_offset)?;
            if u32_at(&record, 0) != END_RECORD_64 {
                return refused("its zip64 end record is missing");
            }
            directory.entries = u64_at(&record, 32);
            directory.size = u64_at(&record, 40);
            directory.offset = u64_at(&record, 48);
            directory_end = record_offset;
        }
    }
    if directory.entries > MAX_ENTRIES || directory.size > MAX_DIRECTORY {
        return refused(format!(
            "it has more than {MAX_ENTRIES} entries or {} MiB of directory",
            MAX_DIRECTORY >> 20
        ));
    }
    if directory.offset.checked_add(directory.size) != Some(directory_end) {
        return refused("its directory is not where its end record says");
    }
    Ok(directory)
}

/// Sizes and offset of a header, replaced by those of its zip64 extra field where they overflow.
fn widen(
    extra: &[u8],
    size: &mut u64,
    compressed: &mut u64,
    offset: &mut u64,
) -> Result<(), ArchiveError> {
    let mut rest = extra;
    while rest.len() >= 4 {
        let length = usize::from(u16_at(rest, 2));
        let Some(field) = rest.get(4..4 + length) else {
            break;
        };
        if u16_at(rest, 0) == 1 {
            let mut at = 0;
            for value in [size, compressed, offset] {
                if *value == 0xffff_ffff {
                    if at + 8 > field.len() {
                        return refused("a zip64 field is too short");
                    }
                    *value = u64_at(field, at);
                    at += 8;
                }
            }
            return Ok(());
        }
        rest = rest.get(4 + length..).unwrap_or_default();
    }
    Ok(())
}

impl<S: ReadAt> Archive<S> {
    /// Reads the directory and checks every entry against its local header.
    ///
    /// # Errors
    /// [`ArchiveError::Refused`] for whatever a wheel has no business to have:
    /// unsafe, duplicate or case-colliding paths, links, devices, encryption,
    /// unknown methods, overlapping or misplaced data, sizes beyond the caps.
    pub fn open(source: S) -> Result<Self, ArchiveError> {
        let place = find_directory(&source)?;
        let mut directory = vec![0; usize::try_from(place.size).unwrap_or(0)];
        source.read_exact_at(&mut directory, place.offset)?;

        let mut entries = Vec::new();
        let mut spans = Vec::new();
        let mut names = HashSet::new();
        let mut inflated: u64 = 0;
        let mut rest = directory.as_slice();
        for _ in 0..place.entries {
            if rest.len() < 46 || u32_at(rest, 0) != CENTRAL_HEADER {
                return refused("its directory is damaged");
            }
            let name_end = 46 + usize::from(u16_at(rest, 28));
            let extra_end = name_end + usize::from(u16_at(rest, 30));
            let header_end = extra_end + usize::from(u16_at(rest, 32));
            let (Some(name), Some(extra), Some(next)) = (
                rest.get(46..name_end),
                rest.get(name_end..extra_end),
                rest.get(header_end..),
            ) else {
                return refused("its directory is damaged");
            };
            let header = rest;
            rest = next;

            let mut size = u64::from(u32_at(header, 24));
            let mut compressed_size = u64::from(u32_at(header, 20));
            let mut local_offset = u64::from(u32_at(header, 42));
            widen(extra, &mut size, &mut compressed_size, &mut local_offset)?;

            let flags = u16_at(header, 8);
            let Ok(path) = std::str::from_utf8(name) else {
                return refused("a path is not UTF-8");
            };
            if !path.is_ascii() && flags & (1 << 11) == 0 {
                return refused(format!("the path {path:?} does not say that it is UTF-8"));
            }
            let (path, is_directory) = match path.strip_suffix('/') {
                Some(path) => (path, true),
                None => (path, false),
            };
            check_path(path).map_err(ArchiveError::Refused)?;
            if !names.insert(path.to_lowercase()) {
                return refused(format!(
                    "the path {path:?} is there twice (upper and lower case count as the same)"
                ));
            }
            if flags & (1 | 1 << 6 | 1 << 13) != 0 {
                return refused(format!("{path:?} is encrypted"));
            }
            let method = match u16_at(header, 10) {
                0 => Method::Stored,
                8 => Method::Deflated,
                other => return refused(format!("{path:?} is compressed by method {other}")),
            };
            // Only Unix (3) and macOS (19) put a file's mode into the upper half.
            let mode = match u16_at(header, 4) >> 8 {
                3 | 19 => u32_at(header, 38) >> 16,
                _ => 0,
            };
            let expected_kind = if is_directory { 0o040_000 } else { 0o100_000 };
            if mode & 0o170_000 != 0 && mode & 0o170_000 != expected_kind {
                return refused(format!("{path:?} is neither a file nor a directory"));
            }
            if is_directory && size != 0 {
                return refused(format!("the directory {path:?} has content"));
            }
            if method == Method::Stored && size != compressed_size {
                return refused(format!("{path:?} lies about its size"));
            }
            inflated = inflated.saturating_add(size);
            if inflated > MAX_INFLATED {
                return refused(format!(
                    "it inflates to more than {} GiB",
                    MAX_INFLATED >> 30
                ));
            }

            let local = LocalHeader {
                flags,
                method: u16_at(header, 10),
                name,
            };
            let offset = local.data_offset(&source, local_offset, path)?;
            let data_end = offset.checked_add(compressed_size);
            let Some(data_end) = data_end.filter(|&end| end <= place.offset) else {
                return refused(format!("the data of {path:?} is out of place"));
            };
            spans.push((local_offset, data_end));
            if !is_directory {
                entries.push(Entry {
                    path: path.to_owned(),
                    method,
                    offset,
                    compressed_size,
                    size,
                    crc32: u32_at(header, 16),
                    executable: mode & 0o111 != 0,
                });
            }
        }
        if !rest.is_empty() {
            return refused("its directory has more than its end record says");
        }
        spans.sort_unstable();
        if spans
            .windows(2)
            .any(|pair| matches!(pair, [a, b] if a.1 > b.0))
        {
            return refused("its entries overlap");
        }
        Ok(Self { source, entries })
    }

    /// The files, in the directory's order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The file at `path`.
    pub fn entry(&self, path: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.path == path)
    }

    /// Inflates an entry; the reader fails at its end unless size, CRC-32 and
    /// the length of the compressed stream are what the archive says.
    pub fn reader<'a>(&'a self, entry: &'a Entry) -> EntryReader<'a, S> {
        EntryReader::new(&self.source, entry)
    }

    /// An entry's inflated bytes, if they are at most `limit`.
    ///
    /// # Errors
    /// A larger entry, or one whose bytes are not what the archive says.
    pub fn read(&self, entry: &Entry, limit: u64) -> Result<Vec<u8>, ArchiveError> {
        if entry.size > limit {
            return refused(format!("{:?} is larger than {limit} bytes", entry.path));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(entry.size).unwrap_or(0));
        self.reader(entry)
            .read_to_end(&mut bytes)
            .map_err(|error| {
                if error.kind() == io::ErrorKind::InvalidData {
                    ArchiveError::Refused(error.to_string())
                } else {
                    ArchiveError::Io(error)
                }
            })?;
        Ok(bytes)
    }
}

/// What a local header must repeat.
struct LocalHeader<'a> {
    flags: u16,
    method: u16,
    name: &'a [u8],
}

impl LocalHeader<'_> {
    fn data_offset(
        &self,
        source: &impl ReadAt,
        offset: u64,
        path: &str,
    ) -> Result<u64, ArchiveError> {
        let mut header = vec![0; 30 + self.name.len()];
        source.read_exact_at(&mut header, offset)?;
        let agrees = u32_at(&header, 0) == LOCAL_HEADER
            && (u16_at(&header, 6) ^ self.flags) & 1 == 0
            && u16_at(&header, 8) == self.method
            && usize::from(u16_at(&header, 26)) == self.name.len()
            && header.get(30..) == Some(self.name);
        if !agrees {
            return refused(format!("the two headers of {path:?} disagree"));
        }
        Ok(offset + header.len() as u64 + u64::from(u16_at(&header, 28)))
    }
}
