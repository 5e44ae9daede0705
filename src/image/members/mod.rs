//! Archives of files in gzip members, of which those that did not change are taken over
//! from the layer before.
//!
//! A gzip file may have many members (RFC 1952, section 2.2), and a tar archive may be cut
//! anywhere. So the files of a layer are dealt out to members by a rule that looks at nothing
//! but the files themselves: whatever was built before, the same files give the same bytes, and
//! where one file changed, one member has to be compressed.

mod last;
mod section;

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek as _, SeekFrom, Write};

use flate2::read::MultiGzDecoder;
use flate2::{Compression, GzBuilder};
use forebay_store::{ObjectDigest, Sha256Digest};
use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use super::ImageError;
use super::context::BuildContext;
use super::file_layer::{FileContent, Hashing, Tee};
use super::tar::{self, FileTree, Node};
pub(super) use last::LastLayer;
use section::{Part, Section, USUAL, ends_after};

/// One gzip member of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Member {
    /// Names what it inflates to; see [`Section`].
    section: ObjectDigest,
    /// Where it begins, in bytes.
    offset: u64,
    /// How many bytes it has.
    length: u64,
    /// Their BLAKE3.
    digest: ObjectDigest,
}

/// A compressed tar archive in a temporary file.
///
/// As bytes: gzip members (RFC 1952; no time, no name, operating system 255), one after another,
/// each with one DEFLATE stream of [`ENCODER`](super::file_layer::ENCODER). What they inflate to, together, is the archive
/// of [`tar`]: entries sorted by path, two blocks of zeros. A member ends after every
/// entry of which [`ends_after`] says so, before every file of [`USUAL`] bytes or more, and
/// before and after the content of an archive within the archive, which has members of its own.
#[derive(Debug)]
pub(super) struct Packed {
    file: File,
    members: Vec<Member>,
    /// SHA-256 of the tar archive.
    pub(super) sha256: Sha256Digest,
    /// The bytes of the tar archive.
    pub(super) size: u64,
}

impl Packed {
    /// The tar archive.
    pub(super) fn reader(&self) -> io::Result<impl Read + '_> {
        Ok(MultiGzDecoder::new(self.compressed()?))
    }

    fn compressed(&self) -> io::Result<io::BufReader<&File>> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(0))?;
        Ok(io::BufReader::with_capacity(64 << 10, file))
    }
}

/// Compresses `tree` into one archive. What `last` has of it is not compressed again.
///
/// # Errors
/// A file that changed since the scan, or one that cannot be read or written.
pub(super) fn pack(
    tree: &FileTree<FileContent>,
    context: &BuildContext<'_>,
    last: &LastLayer,
) -> Result<Packed, ImageError> {
    let file = tempfile::tempfile().map_err(ImageError::io("cannot make a temporary file"))?;
    let mut packer = Packer {
        context,
        last,
        out: BufWriter::with_capacity(64 << 10, file),
        position: 0,
        plain: Hashing::default(),
        members: Vec::new(),
    };
    let mut section = Section::default();
    let mut header = Vec::new();
    for (path, node) in tree.iter() {
        header.clear();
        tar::write_header(&mut header, path, node);
        let Node::File { content, size, .. } = node else {
            section.bytes(&header);
            continue;
        };
        // A large file is alone, so that it is not compressed again because of a small one.
        if *size >= USUAL {
            packer.add(&std::mem::take(&mut section))?;
        }
        section.bytes(&header);
        if let FileContent::Archive(archive) = content {
            packer.add(&std::mem::take(&mut section))?;
            packer.append(archive)?;
        } else if *size > 0 {
            section.file(path, content, *size);
        }
        let padding = tar::padding(*size);
        section.bytes(tar::END.get(..padding).unwrap_or_default());
        if ends_after(path, header.len() as u64 + size + padding as u64) {
            packer.add(&std::mem::take(&mut section))?;
        }
    }
    section.bytes(&tar::END);
    packer.add(&section)?;
    packer.finish()
}

struct Packer<'a> {
    context: &'a BuildContext<'a>,
    last: &'a LastLayer,
    out: BufWriter<File>,
    position: u64,
    plain: Hashing,
    members: Vec<Member>,
}

fn cannot_write() -> impl FnOnce(io::Error) -> ImageError {
    ImageError::io("cannot write a layer")
}

impl Packer<'_> {
    fn add(&mut self, section: &Section<'_>) -> Result<(), ImageError> {
        if section.parts.is_empty() {
            return Ok(());
        }
        let name = ObjectDigest::from_bytes(*section.name.finalize().as_bytes());
        let member = match self.last.member(&name) {
            Some(mut kept) => {
                kept.copy(&mut self.out, &mut self.plain)
                    .map_err(cannot_write())?;
                kept.member
            }
            None => self.compress(name, section)?,
        };
        self.push(member);
        Ok(())
    }

    fn push(&mut self, member: Member) {
        self.members.push(Member {
            offset: self.position,
            ..member
        });
        self.position += member.length;
    }

    fn compress(
        &mut self,
        name: ObjectDigest,
        section: &Section<'_>,
    ) -> Result<Member, ImageError> {
        let counted = Counted {
            out: &mut self.out,
            blake3: blake3::Hasher::new(),
            length: 0,
        };
        let encoder = GzBuilder::new()
            .operating_system(255)
            .write(counted, Compression::new(6));
        let mut both = Tee(encoder, &mut self.plain);
        for part in &section.parts {
            match part {
                Part::Bytes(bytes) => both.write_all(bytes).map_err(cannot_write())?,
                Part::File {
                    path,
                    content,
                    size,
                } => {
                    let copied = io::copy(&mut content.reader(self.context)?, &mut both)
                        .map_err(ImageError::io(format!("cannot copy /{path} into a layer")))?;
                    if copied != *size {
                        return Err(ImageError::NotInContext {
                            path: (*path).to_owned(),
                        });
                    }
                }
            }
        }
        let Tee(encoder, _) = both;
        let counted = encoder.finish().map_err(cannot_write())?;
        Ok(Member {
            section: name,
            offset: 0,
            length: counted.length,
            digest: ObjectDigest::from_bytes(*counted.blake3.finalize().as_bytes()),
        })
    }

    /// Adds an archive within this one, with its own members.
    fn append(&mut self, archive: &Packed) -> Result<(), ImageError> {
        let compressed = archive.compressed().map_err(cannot_write())?;
        let teed = Copying {
            from: compressed,
            to: &mut self.out,
        };
        io::copy(&mut MultiGzDecoder::new(teed), &mut self.plain).map_err(cannot_write())?;
        archive.members.iter().for_each(|&member| self.push(member));
        Ok(())
    }

    fn finish(self) -> Result<Packed, ImageError> {
        let file = self.out.into_inner();
        Ok(Packed {
            file: file.map_err(|error| cannot_write()(error.into_error()))?,
            members: self.members,
            sha256: Sha256Digest::from_bytes(self.plain.hash.finalize().into()),
            size: self.plain.size,
        })
    }
}

/// Counts and hashes what is written.
struct Counted<W> {
    out: W,
    blake3: blake3::Hasher,
    length: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write_all(bytes)?;
        self.blake3.update(bytes);
        self.length += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Copies what is read.
struct Copying<R, W> {
    from: R,
    to: W,
}

impl<R: Read, W: Write> Read for Copying<R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.from.read(buffer)?;
        self.to
            .write_all(buffer.get(..length).unwrap_or_default())?;
        Ok(length)
    }
}

#[cfg(test)]
mod tests;
