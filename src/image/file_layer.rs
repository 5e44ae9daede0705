//! Layers that are compressed: the project and what COPY lines bring. They
//! are small; their digest is kept as the recipe's output, because another
//! encoder, or another version of it, would give other bytes.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use flate2::{Compression, GzBuilder};
use forebay_store::{Batch, ObjectInfo};
use sha2::Digest as _;

use super::ImageError;
use super::context::{BuildContext, ContextFile};
use super::tar::{self, FileTree, Node};
use crate::oci::Sha256Digest;

/// The encoder whose bytes these layers are, with its version and level; part of every recipe.
pub(super) const ENCODER: &str = "zlib-rs 0.6.8 level 6";

/// A file's bytes.
#[derive(Debug)]
pub(super) enum FileContent {
    /// A file of the build context.
    Context(ContextFile),
    /// Bytes that were made.
    Bytes(Vec<u8>),
    /// A temporary file.
    Spooled(File),
}

impl FileContent {
    pub(super) fn reader<'a>(
        &'a self,
        context: &BuildContext<'_>,
    ) -> Result<Box<dyn Read + 'a>, ImageError> {
        match self {
            Self::Context(file) => Ok(Box::new(context.open(file)?)),
            Self::Bytes(bytes) => Ok(Box::new(bytes.as_slice())),
            Self::Spooled(file) => {
                let mut file = file;
                file.seek(SeekFrom::Start(0))
                    .map_err(ImageError::io("cannot read a temporary file"))?;
                Ok(Box::new(file))
            }
        }
    }
}

/// Writes to two places.
struct Tee<A, B>(A, B);

impl<A: Write, B: Write> Write for Tee<A, B> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write_all(bytes)?;
        self.1.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Hashing(sha2::Sha256);

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes `tree` as a tar archive.
pub(super) fn write_tar(
    tree: &FileTree<FileContent>,
    context: &BuildContext<'_>,
    out: &mut dyn Write,
) -> Result<(), ImageError> {
    let cannot_write = || ImageError::io("cannot write a layer");
    for (path, node) in tree.iter() {
        let mut header = Vec::new();
        tar::write_header(&mut header, path, node);
        out.write_all(&header).map_err(cannot_write())?;
        if let Node::File { content, size, .. } = node {
            let copied = io::copy(&mut content.reader(context)?, out)
                .map_err(ImageError::io(format!("cannot copy /{path} into a layer")))?;
            if copied != *size {
                return Err(ImageError::NotInContext {
                    path: path.to_owned(),
                });
            }
            let padding = tar::END.get(..tar::padding(*size)).unwrap_or_default();
            out.write_all(padding).map_err(cannot_write())?;
        }
    }
    out.write_all(&tar::END).map_err(cannot_write())
}

/// Compresses `tree` into an object of the store; gives it and its diff id.
pub(super) fn write(
    tree: &FileTree<FileContent>,
    context: &BuildContext<'_>,
    batch: &mut Batch<'_>,
) -> Result<(ObjectInfo, Sha256Digest), ImageError> {
    compress(batch, |out| write_tar(tree, context, out))
}

/// Compresses the archive that `write_archive` writes into an object of the store; gives it
/// and its diff id.
pub(super) fn compress(
    batch: &mut Batch<'_>,
    write_archive: impl FnOnce(&mut dyn Write) -> Result<(), ImageError>,
) -> Result<(ObjectInfo, Sha256Digest), ImageError> {
    let spool = tempfile::tempfile().map_err(ImageError::io("cannot make a temporary file"))?;
    let encoder = GzBuilder::new()
        .operating_system(255)
        .write(io::BufWriter::new(spool), Compression::new(6));
    let mut tee = Tee(encoder, Hashing(sha2::Sha256::new()));
    write_archive(&mut tee)?;
    let Tee(encoder, Hashing(hash)) = tee;
    let mut spool = encoder
        .finish()
        .and_then(|writer| writer.into_inner().map_err(io::IntoInnerError::into_error))
        .and_then(|mut file| file.seek(SeekFrom::Start(0)).map(|_| file))
        .map_err(ImageError::io("cannot write a layer"))?;
    let info = batch.put_reader(&mut spool)?;
    Ok((info, Sha256Digest::from_bytes(hash.finalize().into())))
}

#[cfg(test)]
mod tests {
    use super::ENCODER;

    #[test]
    fn recipes_name_the_encoder_that_is_built_in() {
        let lock: toml::Table = include_str!("../../Cargo.lock").parse().unwrap();
        let packages = lock["package"].as_array().unwrap();
        let versions: Vec<&str> = packages
            .iter()
            .filter(|package| package["name"].as_str() == Some("zlib-rs"))
            .filter_map(|package| package["version"].as_str())
            .collect();
        assert_eq!(versions.len(), 1, "{versions:?}");
        assert_eq!(ENCODER, format!("zlib-rs {} level 6", versions[0]));
    }
}
