//! What a scan gives.

use crate::ObjectDigest;

/// The files of a directory, with their digests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// Files and symbolic links, sorted by the bytes of their paths. Directories
    /// are not listed: an empty one makes no difference.
    pub entries: Vec<TreeEntry>,
    /// How many files had to be read, rather than known from the last scan.
    pub read_again: usize,
}

/// A file or symbolic link of a [`Tree`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeEntry {
    /// Relative to the directory scanned, with `/` between its parts.
    pub path: String,
    /// What is there.
    pub kind: TreeEntryKind,
}

/// What is at a path of a [`Tree`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TreeEntryKind {
    /// A regular file.
    File {
        /// The digest of its bytes.
        digest: ObjectDigest,
        /// Its size in bytes.
        size: u64,
        /// Whether its owner may execute it.
        executable: bool,
    },
    /// A symbolic link, which is not followed.
    Symlink {
        /// What it points to, as written.
        target: String,
    },
}

impl Tree {
    /// One digest of all entries: equal if, and only if, paths, contents, executable
    /// bits and link targets are.
    ///
    /// It is the BLAKE3 of `forebay-tree 1\n` and, for each entry, the kind (`f` file, `x`
    /// executable file, `l` symbolic link), the length of the path (u32, little-endian), the
    /// path, and then the file's digest (32 bytes), or the length of the target and the target.
    pub fn digest(&self) -> ObjectDigest {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"forebay-tree 1\n");
        let mut encoded = Vec::new();
        for entry in &self.entries {
            encoded.clear();
            match &entry.kind {
                TreeEntryKind::File {
                    digest, executable, ..
                } => {
                    encoded.push(if *executable { b'x' } else { b'f' });
                    push_text(&mut encoded, &entry.path);
                    encoded.extend_from_slice(digest.as_bytes());
                }
                TreeEntryKind::Symlink { target } => {
                    encoded.push(b'l');
                    push_text(&mut encoded, &entry.path);
                    push_text(&mut encoded, target);
                }
            }
            hasher.update(&encoded);
        }
        ObjectDigest::from_bytes(*hasher.finalize().as_bytes())
    }

    /// The entry at `path`.
    pub fn get(&self, path: &str) -> Option<&TreeEntry> {
        let position = self
            .entries
            .binary_search_by(|entry| entry.path.as_str().cmp(path))
            .ok()?;
        self.entries.get(position)
    }
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    // The system's longest path has 4096 bytes.
    out.extend_from_slice(&(text.len() as u32).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}
