//! The pack file: the small objects and the records of one batch, in one file
//! with one sync.

mod reader;
mod writer;

use crate::ObjectDigest;
use crate::object::ObjectInfo;

pub(crate) use reader::Pack;
#[cfg(any(test, fuzzing))]
pub(crate) use reader::read_index;
pub(crate) use writer::{PackWriter, SealedPack};

/// What opens a pack: 12 bytes, then the version as a little-endian u32.
const HEADER: [u8; HEADER_SIZE as usize] = *b"forebay-pack\x01\0\0\0";
pub(crate) const HEADER_SIZE: u64 = 16;
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::durable::StagedFile;
    use crate::{Sha256Digest, StoreError};
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
