//! Where an archive is cut into members: by a rule that looks at nothing but its files.

use forebay_store::ObjectDigest;

use super::super::file_layer::FileContent;

/// What a member inflates to on average, in bytes: the more, the better files are compressed
/// together, and the more has to be done again for one that changed. The sources of Apache Beam
/// and of Airflow grow by 3.7 % over a single stream (with 64 KiB by 8 %, with 256 KiB by 1.7 %).
pub(super) const USUAL: u64 = 128 << 10;

/// A run of an archive that becomes one member.
///
/// Its name is the BLAKE3 of its parts: headers and padding as they are, of a file its digest.
/// So a member is found without reading the files.
#[derive(Default)]
pub(super) struct Section<'a> {
    pub(super) parts: Vec<Part<'a>>,
    pub(super) name: blake3::Hasher,
}

pub(super) enum Part<'a> {
    Bytes(Vec<u8>),
    File {
        path: &'a str,
        content: &'a FileContent,
        size: u64,
    },
}

impl<'a> Section<'a> {
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.name.update(&(bytes.len() as u64).to_le_bytes());
        self.name.update(bytes);
        match self.parts.last_mut() {
            Some(Part::Bytes(last)) => last.extend_from_slice(bytes),
            _ => self.parts.push(Part::Bytes(bytes.to_vec())),
        }
    }

    pub(super) fn file(&mut self, path: &'a str, content: &'a FileContent, size: u64) {
        // No run of bytes is that long: a file's digest cannot be taken for bytes.
        self.name.update(&u64::MAX.to_le_bytes());
        self.name.update(content.digest().as_bytes());
        self.parts.push(Part::File {
            path,
            content,
            size,
        });
    }
}

/// Whether a member ends after the entry at `path`, which takes `size` bytes of the archive: by
/// the path's hash, with a chance of `size` in [`USUAL`]. So members end where they did
/// although other entries came, changed or went.
pub(super) fn ends_after(path: &str, size: u64) -> bool {
    let hash = ObjectDigest::of(path.as_bytes());
    let first = hash.as_bytes().first_chunk().copied().unwrap_or_default();
    u64::from_le_bytes(first) / (u64::MAX / USUAL) < size
}
