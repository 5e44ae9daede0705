//! What the last scan of a directory knew, in one file.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::stat::{Stat, Time};
use crate::ObjectDigest;
use crate::bytes::{take, take_slice, take_u16, take_u32, take_u64};

/// What opens a record: 12 bytes, then the version as a little-endian u32.
const HEADER: &[u8; 16] = b"forebay-scan\x01\0\0\0";

/// A file as the last scan saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KnownFile {
    pub(super) path: String,
    pub(super) stat: Stat,
    pub(super) digest: ObjectDigest,
}

/// A scan: when it began to read, and the files, sorted by path.
///
/// As bytes, all numbers little-endian:
///
/// ```text
/// header  "forebay-scan", version u32 = 1
/// length of the directory's canonical path u32, the path
/// time of the scan: seconds i64, nanoseconds u32
/// number of files u32, and for each of them:
///   how many bytes of its path are those of the file before u16
///   how many follow u16, these bytes
///   size u64, modified i64 u32, changed i64 u32, inode u64, device u64
///   BLAKE3 of its bytes, 32 bytes
/// BLAKE3 of everything before, 32 bytes
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ScanRecord {
    pub(super) time: Time,
    pub(super) files: Vec<KnownFile>,
}

/// The name of the record of a directory, given by its canonical path.
pub(super) fn name(directory: &Path) -> ObjectDigest {
    ObjectDigest::of(directory.as_os_str().as_bytes())
}

impl ScanRecord {
    /// The record at `path`; one that knows nothing if there is none, or a damaged one.
    pub(super) fn load(path: &Path, directory: &Path) -> Self {
        fs::read(path)
            .ok()
            .and_then(|bytes| Self::decode(&bytes, directory))
            .unwrap_or_default()
    }

    pub(crate) fn encode(&self, directory: &Path) -> Vec<u8> {
        let directory = directory.as_os_str().as_bytes();
        let mut out = Vec::with_capacity(128 + directory.len() + self.files.len() * 112);
        out.extend_from_slice(HEADER);
        out.extend_from_slice(&(directory.len() as u32).to_le_bytes());
        out.extend_from_slice(directory);
        push_time(&mut out, self.time);
        out.extend_from_slice(&(self.files.len() as u32).to_le_bytes());
        let mut last: &[u8] = &[];
        for file in &self.files {
            let path = file.path.as_bytes();
            let shared = last.iter().zip(path).take_while(|(a, b)| a == b).count();
            let (_, rest) = path.split_at(shared);
            // The system's longest path has 4096 bytes.
            out.extend_from_slice(&(shared as u16).to_le_bytes());
            out.extend_from_slice(&(rest.len() as u16).to_le_bytes());
            out.extend_from_slice(rest);
            out.extend_from_slice(&file.stat.size.to_le_bytes());
            push_time(&mut out, file.stat.modified);
            push_time(&mut out, file.stat.changed);
            out.extend_from_slice(&file.stat.inode.to_le_bytes());
            out.extend_from_slice(&file.stat.device.to_le_bytes());
            out.extend_from_slice(file.digest.as_bytes());
            last = path;
        }
        let digest = ObjectDigest::of(&out);
        out.extend_from_slice(digest.as_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8], directory: &Path) -> Option<Self> {
        let (body, digest) = bytes.split_last_chunk::<32>()?;
        if ObjectDigest::of(body).as_bytes() != digest {
            return None;
        }
        let mut rest = body.strip_prefix(HEADER)?;
        let length = take_u32(&mut rest)? as usize;
        if take_slice(&mut rest, length)? != directory.as_os_str().as_bytes() {
            return None;
        }
        let time = take_time(&mut rest)?;
        let count = take_u32(&mut rest)? as usize;
        let mut files: Vec<KnownFile> = Vec::with_capacity(count.min(rest.len() / 88));
        for _ in 0..count {
            let shared = take_u16(&mut rest)? as usize;
            let length = take_u16(&mut rest)? as usize;
            let suffix = take_slice(&mut rest, length)?;
            let last = files.last().map_or("", |file| file.path.as_str());
            let mut path = Vec::with_capacity(shared + length);
            path.extend_from_slice(last.as_bytes().get(..shared)?);
            path.extend_from_slice(suffix);
            files.push(KnownFile {
                path: String::from_utf8(path).ok()?,
                stat: Stat {
                    size: take_u64(&mut rest)?,
                    modified: take_time(&mut rest)?,
                    changed: take_time(&mut rest)?,
                    inode: take_u64(&mut rest)?,
                    device: take_u64(&mut rest)?,
                },
                digest: ObjectDigest::from_bytes(take(&mut rest)?),
            });
        }
        rest.is_empty().then_some(Self { time, files })
    }
}

fn push_time(out: &mut Vec<u8>, time: Time) {
    out.extend_from_slice(&time.seconds.to_le_bytes());
    out.extend_from_slice(&time.nanoseconds.to_le_bytes());
}

fn take_time(rest: &mut &[u8]) -> Option<Time> {
    Some(Time {
        seconds: i64::from_le_bytes(take(rest)?),
        nanoseconds: take_u32(rest)?,
    })
}
