//! The tar format of layers: headers that say the same on every machine.
//!
//! POSIX.1-1988 "ustar" headers, and a PAX record (POSIX.1-2001) before them
//! where ustar has no room. Owner and group 0 without names, modes 0644 and
//! 0755, one modification time for everything: nothing of the machine, the
//! user or the clock that built a layer is in its bytes.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::wheels::parents;

/// The size of a tar block in bytes.
pub(super) const BLOCK: u64 = 512;

/// 1980-01-01T00:00:01Z, in seconds since 1970. Zip archives cannot date
/// anything earlier, and tools that make zip archives of what is installed fail
/// on files that are older.
pub(super) const MODIFIED: u64 = 315_532_801;

/// Directories that bases make links, or give modes of their own: never
/// written, so that a layer does not replace them.
const NEVER_WRITTEN: [&str; 11] = [
    "bin", "lib", "lib32", "lib64", "libx32", "root", "run", "sbin", "tmp", "var/run", "var/tmp",
];

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node<C> {
    /// A directory, mode 0755.
    Directory,
    /// A file, mode 0644 or 0755.
    File {
        /// Its bytes, or where they come from.
        content: C,
        /// How many they are.
        size: u64,
        /// Whether the mode is 0755.
        executable: bool,
    },
    /// A symbolic link.
    Symlink {
        /// What it points to.
        target: String,
    },
}

/// The files of one layer, sorted by the bytes of their paths, with every
/// parent directory once.
#[derive(Debug, Clone)]
pub(super) struct FileTree<C> {
    nodes: BTreeMap<String, Node<C>>,
}

impl<C> Default for FileTree<C> {
    fn default() -> Self {
        Self {
            nodes: BTreeMap::new(),
        }
    }
}

/// Why something cannot stand at a path of a layer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathRefused {
    /// A path that was to be two things at once.
    #[error("{path} would be there twice, or as both a file and a directory")]
    Taken {
        /// The path.
        path: String,
    },
    /// A whiteout (OCI image specification, "Whiteouts"): in a layer it would
    /// remove what the layers below have.
    #[error("{path} begins with .wh., which would remove files of the layers below")]
    Whiteout {
        /// The path.
        path: String,
    },
}

/// Refuses a path whose last component is a whiteout's.
fn refuse_whiteout(path: &str) -> Result<(), PathRefused> {
    let name = path.rsplit('/').next().unwrap_or(path);
    if name.starts_with(".wh.") {
        return Err(PathRefused::Whiteout {
            path: path.to_owned(),
        });
    }
    Ok(())
}

impl<C> FileTree<C> {
    /// Adds the directories above `path`.
    fn add_parents(&mut self, path: &str) -> Result<(), PathRefused> {
        parents(path).try_for_each(|parent| self.insert_directory(parent))
    }

    /// Adds a directory and those above it; it may be there already.
    ///
    /// # Errors
    /// A file at this path, or the name of a whiteout.
    pub(super) fn insert_directory(&mut self, path: &str) -> Result<(), PathRefused> {
        match self.nodes.get(path) {
            Some(Node::Directory) => Ok(()),
            Some(_) => Err(PathRefused::Taken {
                path: path.to_owned(),
            }),
            None => {
                refuse_whiteout(path)?;
                self.add_parents(path)?;
                self.nodes.insert(path.to_owned(), Node::Directory);
                Ok(())
            }
        }
    }

    /// Adds a file or link and the directories above it.
    ///
    /// # Errors
    /// Anything that is already at this path, or the name of a whiteout.
    pub(super) fn insert(&mut self, path: String, node: Node<C>) -> Result<(), PathRefused> {
        refuse_whiteout(&path)?;
        self.add_parents(&path)?;
        match self.nodes.entry(path) {
            Entry::Vacant(slot) => {
                slot.insert(node);
                Ok(())
            }
            Entry::Occupied(slot) => Err(PathRefused::Taken {
                path: slot.key().clone(),
            }),
        }
    }

    /// Whether there is something at `path`.
    pub(super) fn contains(&self, path: &str) -> bool {
        self.nodes.contains_key(path)
    }

    /// What is to be written, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Node<C>)> {
        self.nodes
            .iter()
            .map(|(path, node)| (path.as_str(), node))
            .filter(|(path, node)| {
                !(matches!(node, Node::Directory) && NEVER_WRITTEN.contains(path))
            })
    }
}

/// How many zero bytes follow `size` bytes of content.
pub(super) fn padding(size: u64) -> usize {
    usize::try_from((BLOCK - size % BLOCK) % BLOCK).unwrap_or(0)
}

/// What ends an archive: two blocks of zeros.
pub(super) const END: [u8; 1024] = [0; 1024];

/// Writes `value` in octal with a final NUL, right-aligned to the field; false if it has no room.
fn put_octal(field: &mut [u8], mut value: u64) -> bool {
    if let Some((last, digits)) = field.split_last_mut() {
        *last = 0;
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + value.to_le_bytes()[0] % 8;
            value /= 8;
        }
    }
    value == 0
}

fn put(header: &mut [u8; 512], at: usize, text: &[u8]) {
    for (to, from) in header.iter_mut().skip(at).zip(text) {
        *to = *from;
    }
}

/// Splits a path between ustar's `prefix` (155 bytes) and `name` (100 bytes).
fn split_name(path: &str) -> Option<(&str, &str)> {
    if !path.is_ascii() {
        return None;
    }
    if path.len() <= 100 {
        return Some(("", path));
    }
    path.match_indices('/')
        .map(|(slash, _)| path.split_at(slash))
        .map(|(prefix, name)| (prefix, name.trim_start_matches('/')))
        .find(|(prefix, name)| !name.is_empty() && prefix.len() <= 155 && name.len() <= 100)
}

struct Fields<'a> {
    prefix: &'a str,
    name: &'a str,
    link: &'a str,
    kind: u8,
    mode: u64,
    size: u64,
}

fn ustar(fields: &Fields<'_>) -> [u8; 512] {
    let mut header = [0; 512];
    put(&mut header, 0, fields.name.as_bytes());
    for (at, width, value) in [
        (100, 8, fields.mode),
        (108, 8, 0),
        (116, 8, 0),
        (124, 12, fields.size),
        (136, 12, MODIFIED),
    ] {
        if let Some(field) = header.get_mut(at..at + width) {
            // Sizes beyond the field are in a PAX record; here they are 0.
            if !put_octal(field, value) {
                put_octal(field, 0);
            }
        }
    }
    put(&mut header, 148, b"        ");
    put(&mut header, 156, &[fields.kind]);
    put(&mut header, 157, fields.link.as_bytes());
    put(&mut header, 257, b"ustar\x0000");
    if let Some(field) = header.get_mut(329..337) {
        put_octal(field, 0);
    }
    if let Some(field) = header.get_mut(337..345) {
        put_octal(field, 0);
    }
    put(&mut header, 345, fields.prefix.as_bytes());
    let sum: u64 = header.iter().map(|&byte| u64::from(byte)).sum();
    if let Some(field) = header.get_mut(148..156) {
        put_octal(field, sum);
    }
    header
}

/// One PAX record: its decimal length counts itself.
fn pax_record(key: &str, value: &str) -> String {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    format!("{length} {key}={value}\n")
}

/// Appends the header of `node` at `path`, with a PAX header before it if needed.
pub(super) fn write_header<C>(out: &mut Vec<u8>, path: &str, node: &Node<C>) {
    let (kind, mode, size, link, suffix) = match node {
        Node::Directory => (b'5', 0o755, 0, "", "/"),
        Node::File {
            size, executable, ..
        } => {
            let mode = if *executable { 0o755 } else { 0o644 };
            (b'0', mode, *size, "", "")
        }
        Node::Symlink { target } => (b'2', 0o777, 0, target.as_str(), ""),
    };
    let full = format!("{path}{suffix}");
    let name = split_name(&full);
    let link_fits = link.len() <= 100 && link.is_ascii();
    let mut records = String::new();
    if !link_fits {
        records += &pax_record("linkpath", link);
    }
    if name.is_none() {
        records += &pax_record("path", &full);
    }
    if size >= 1 << 33 {
        records += &pax_record("size", &size.to_string());
    }
    if !records.is_empty() {
        out.extend_from_slice(&ustar(&Fields {
            prefix: "",
            name: "PaxHeader",
            link: "",
            kind: b'x',
            mode: 0o644,
            size: records.len() as u64,
        }));
        out.extend_from_slice(records.as_bytes());
        out.resize(out.len() + padding(records.len() as u64), 0);
    }
    let (prefix, name) = name.unwrap_or(("", "PaxPath"));
    out.extend_from_slice(&ustar(&Fields {
        prefix,
        name,
        link: if link_fits { link } else { "" },
        kind,
        mode,
        size,
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(tree: &FileTree<Vec<u8>>) -> Vec<u8> {
        let mut out = Vec::new();
        for (path, node) in tree.iter() {
            write_header(&mut out, path, node);
            if let Node::File { content, size, .. } = node {
                out.extend_from_slice(content);
                out.resize(out.len() + padding(*size), 0);
            }
        }
        out.extend_from_slice(&END);
        out
    }

    #[test]
    fn whiteouts_are_refused_wherever_they_stand() {
        let file = || Node::File {
            content: Vec::new(),
            size: 0,
            executable: false,
        };
        for path in [".wh.a", "a/.wh..wh..opq", "a/.wh.b/c"] {
            let mut tree: FileTree<Vec<u8>> = FileTree::default();
            let refused = tree.insert(path.to_owned(), file());
            assert!(
                matches!(refused, Err(PathRefused::Whiteout { .. })),
                "{path}"
            );
            assert!(tree.insert_directory(path).is_err(), "{path}");
        }
        let mut tree: FileTree<Vec<u8>> = FileTree::default();
        tree.insert("a/x.wh.b".to_owned(), file()).unwrap();
    }

    #[test]
    fn another_reader_sees_what_was_written() {
        let long = format!("{}/{}.txt", "d".repeat(90), "n".repeat(90));
        let very_long = format!("{}/{}", "ä/".repeat(60), "n".repeat(200));
        let link = "../".repeat(50);
        let mut tree = FileTree::default();
        for path in [
            "b/c",
            "a",
            "a-b",
            "tmp/x",
            long.as_str(),
            very_long.as_str(),
        ] {
            let content = path.as_bytes().to_vec();
            let node = Node::File {
                size: content.len() as u64,
                content,
                executable: path == "a",
            };
            tree.insert(path.to_owned(), node).unwrap();
        }
        let node = Node::Symlink {
            target: link.clone(),
        };
        tree.insert("z".to_owned(), node).unwrap();
        let bytes = archive(&tree);
        assert_eq!(bytes.len() % 512, 0);

        let mut seen = Vec::new();
        let mut reader = tar::Archive::new(bytes.as_slice());
        for entry in reader.entries().unwrap() {
            let mut entry = entry.unwrap();
            let header = entry.header();
            assert_eq!(
                (
                    header.uid().unwrap(),
                    header.gid().unwrap(),
                    header.mtime().unwrap()
                ),
                (0, 0, MODIFIED)
            );
            let mode = header.mode().unwrap();
            let path = entry.path().unwrap().to_str().unwrap().to_owned();
            let target = entry
                .link_name()
                .unwrap()
                .map(|t| t.to_str().unwrap().to_owned());
            let mut content = String::new();
            std::io::Read::read_to_string(&mut entry, &mut content).unwrap();
            if !path.ends_with('/') {
                assert_eq!(
                    target.unwrap_or(content),
                    if path == "z" {
                        link.clone()
                    } else {
                        path.clone()
                    }
                );
            }
            seen.push((path, mode));
        }
        let names: Vec<&str> = seen.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(names.iter().filter(|name| **name == "b/").count(), 1);
        assert!(
            !names.contains(&"tmp/"),
            "bases give /tmp a mode of its own"
        );
        assert!(names.contains(&very_long.as_str()) && names.contains(&long.as_str()));
        let mode = |name: &str| seen.iter().find(|(path, _)| path == name).unwrap().1;
        assert_eq!((mode("a"), mode("a-b"), mode("b/")), (0o755, 0o644, 0o755));
    }

    #[test]
    fn a_path_is_one_thing() {
        let file = || Node::File {
            content: (),
            size: 0,
            executable: false,
        };
        let mut tree = FileTree::default();
        tree.insert("a/b".to_owned(), file()).unwrap();
        assert!(tree.insert("a/b".to_owned(), file()).is_err());
        assert!(tree.insert("a".to_owned(), file()).is_err());
        assert!(tree.insert("a/b/c".to_owned(), file()).is_err());
        assert!(tree.insert_directory("a").is_ok());
    }

    #[test]
    fn a_pax_record_counts_its_own_length() {
        assert_eq!(pax_record("path", "x"), "9 path=x\n");
        assert_eq!(pax_record("path", &"x".repeat(90)).len(), 99);
        let record = pax_record("path", &"x".repeat(91));
        assert!(record.starts_with(&format!("{} ", record.len())));
    }
}
