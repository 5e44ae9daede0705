//! What is in a saved image's file or folder: an index of names, and slices of files.
//!
//! An archive is never unpacked. Its headers are read once, its members are read where
//! they stand; so names, links and modes in it can do nothing but be refused.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::SavedImageError;

/// Members that one archive may have.
const MAX_MEMBERS: usize = 100_000;
/// Bytes that a name or the extended header of a member may have.
const MAX_HEADER: u64 = 64 << 10;
/// How many links may lead from one to the next: `docker save` makes one.
const MAX_LINKS: usize = 8;

/// A part of a file: one member of an archive, or a file of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    file: Arc<Path>,
    offset: u64,
    pub(super) size: u64,
}

impl Member {
    /// Opens the bytes from their start.
    pub(super) fn open(&self) -> io::Result<io::BufReader<io::Take<File>>> {
        let mut file = File::open(&self.file)?;
        file.seek(SeekFrom::Start(self.offset))?;
        Ok(io::BufReader::with_capacity(1 << 17, file.take(self.size)))
    }
}

/// Where the members of a saved image are.
#[derive(Debug)]
pub(super) enum Members {
    /// In a tar archive, by their names without a leading `./`.
    Archive(HashMap<String, Entry>),
    /// In a folder.
    Folder(PathBuf),
}

#[derive(Debug)]
pub(super) enum Entry {
    File(Member),
    /// Another member, by its name.
    Link(String),
}

impl Members {
    /// The member of that name; links are followed.
    pub(super) fn find(&self, name: &str) -> Result<Option<Member>, SavedImageError> {
        let mut name = inner_name(name)?;
        let entries = match self {
            Self::Archive(entries) => entries,
            Self::Folder(folder) => {
                let path = folder.join(name);
                return Ok(match path.metadata() {
                    Ok(metadata) if metadata.is_file() => Some(Member {
                        file: path.into(),
                        offset: 0,
                        size: metadata.len(),
                    }),
                    _ => None,
                });
            }
        };
        for _ in 0..=MAX_LINKS {
            match entries.get(&name) {
                None => return Ok(None),
                Some(Entry::File(member)) => return Ok(Some(member.clone())),
                Some(Entry::Link(target)) => name.clone_from(target),
            }
        }
        Err(SavedImageError::malformed(format!(
            "the member {name} is a link that leads to links without end"
        )))
    }

    /// The bytes of a member, which may not be more than `limit`.
    pub(super) fn read(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, SavedImageError> {
        let Some(member) = self.find(name)? else {
            return Ok(None);
        };
        if member.size > limit {
            return Err(SavedImageError::malformed(format!(
                "{name} has {} bytes, and may have {limit}",
                member.size
            )));
        }
        let mut bytes = Vec::new();
        (member.open())
            .and_then(|mut reader| reader.read_to_end(&mut bytes))
            .map_err(|source| SavedImageError::Read { source })?;
        Ok(Some(bytes))
    }

    /// Reads the headers of a tar archive.
    ///
    /// # Errors
    /// What no tool that saves images writes: members outside the archive, two of one name,
    /// more bytes than there are.
    pub(super) fn of_archive(path: &Path) -> Result<Self, SavedImageError> {
        let unreadable = |source| SavedImageError::Read { source };
        let file = File::open(path).map_err(unreadable)?;
        let length = file.metadata().map_err(unreadable)?.len();
        let shared: Arc<Path> = path.into();
        let mut archive = tar::Archive::new(file);
        let mut entries = HashMap::new();
        let mut long = LongNames::default();
        // Raw: extended headers are read here, with a limit.
        for entry in archive.entries_with_seek().map_err(unreadable)?.raw(true) {
            let mut entry = entry.map_err(|source| match source.kind() {
                io::ErrorKind::UnexpectedEof => SavedImageError::malformed("it ends too early"),
                _ => SavedImageError::malformed(format!("it is no tar archive: {source}")),
            })?;
            let (offset, size) = (entry.raw_file_position(), entry.size());
            if offset.checked_add(size).is_none_or(|end| end > length) {
                return Err(SavedImageError::malformed("it ends too early"));
            }
            let kind = entry.header().entry_type();
            if long.take_from(kind, &mut entry)? {
                continue;
            }
            let names = std::mem::take(&mut long);
            let header = entry.header();
            let name = names
                .path
                .unwrap_or_else(|| header.path_bytes().into_owned());
            let name = text(name)?;
            let found = if kind.is_file() {
                if names.size.is_some_and(|stated| stated != size) {
                    return Err(SavedImageError::malformed(format!(
                        "the member {name} is said to have two sizes"
                    )));
                }
                Entry::File(Member {
                    file: Arc::clone(&shared),
                    offset,
                    size,
                })
            } else if kind.is_symlink() || kind.is_hard_link() {
                let target = (names.target)
                    .or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned))
                    .unwrap_or_default();
                let target = text(target)?;
                let from = match (kind.is_symlink(), name.rsplit_once('/')) {
                    (true, Some((folder, _))) => folder,
                    _ => "",
                };
                Entry::Link(resolve(from, &target)?)
            } else {
                // Folders say nothing that the names do not say; nothing else is ever used.
                continue;
            };
            if entries.len() >= MAX_MEMBERS {
                return Err(SavedImageError::malformed(format!(
                    "it has more than {MAX_MEMBERS} members"
                )));
            }
            let name = inner_name(&name)?;
            if entries.insert(name.clone(), found).is_some() {
                return Err(SavedImageError::malformed(format!(
                    "it has two members named {name}"
                )));
            }
        }
        Ok(Self::Archive(entries))
    }
}

/// What extended headers say of the member that follows them.
#[derive(Default)]
struct LongNames {
    path: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    size: Option<u64>,
}

impl LongNames {
    /// Whether the entry is an extended header, which then is taken in.
    fn take_from(
        &mut self,
        kind: tar::EntryType,
        entry: &mut tar::Entry<'_, File>,
    ) -> Result<bool, SavedImageError> {
        let is_global = kind.is_pax_global_extensions();
        if !(kind.is_gnu_longname()
            || kind.is_gnu_longlink()
            || kind.is_pax_local_extensions()
            || is_global)
        {
            return Ok(false);
        }
        if entry.size() > MAX_HEADER {
            return Err(SavedImageError::malformed(
                "a member has a name without end",
            ));
        }
        let mut bytes = Vec::new();
        (entry.read_to_end(&mut bytes)).map_err(|source| SavedImageError::Read { source })?;
        if kind.is_gnu_longname() || kind.is_gnu_longlink() {
            while bytes.last() == Some(&0) {
                bytes.pop();
            }
            match kind.is_gnu_longname() {
                true => self.path = Some(bytes),
                false => self.target = Some(bytes),
            }
        } else if !is_global {
            for extension in tar::PaxExtensions::new(&bytes) {
                let extension = extension.map_err(|source| SavedImageError::Read { source })?;
                let value = extension.value_bytes();
                match extension.key_bytes() {
                    b"path" => self.path = Some(value.to_vec()),
                    b"linkpath" => self.target = Some(value.to_vec()),
                    b"size" => {
                        let size = std::str::from_utf8(value).ok();
                        self.size =
                            Some(size.and_then(|size| size.parse().ok()).unwrap_or(u64::MAX));
                    }
                    _ => {}
                }
            }
        }
        Ok(true)
    }
}

fn text(name: Vec<u8>) -> Result<String, SavedImageError> {
    String::from_utf8(name)
        .ok()
        .filter(|name| !name.chars().any(char::is_control))
        .ok_or_else(|| SavedImageError::malformed("a member's name is no text"))
}

/// The name of a member within its archive or folder.
fn inner_name(name: &str) -> Result<String, SavedImageError> {
    resolve("", name)
}

/// Where `target` leads from `folder`; never out of the archive.
fn resolve(folder: &str, target: &str) -> Result<String, SavedImageError> {
    let outside = || SavedImageError::malformed(format!("the name {target} leads out of it"));
    if target.starts_with('/') {
        return Err(outside());
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in folder.split('/').chain(target.split('/')) {
        match part {
            "" | "." => {}
            // A link may lead to a neighbour; a name has no need to go back.
            ".." if !folder.is_empty() && parts.pop().is_some() => {}
            ".." => return Err(outside()),
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_never_lead_out() {
        assert_eq!(inner_name("./a//b/").unwrap(), "a/b");
        assert_eq!(resolve("x", "../y/layer.tar").unwrap(), "y/layer.tar");
        for name in ["/etc/passwd", "../x", "a/../../x", "a/.."] {
            assert!(inner_name(name).is_err(), "{name}");
        }
        for target in ["../../x", "/x"] {
            assert!(resolve("folder", target).is_err(), "{target}");
        }
    }
}
