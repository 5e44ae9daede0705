//! Layers that are compressed: the project and what COPY lines bring. They
//! are small; their digest is kept as the recipe's output, because another
//! encoder, or another version of it, would give other bytes.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom, Write};

use flate2::{Compression, GzBuilder};
use forebay_store::{Batch, ObjectDigest, ObjectInfo};
use sha2::Digest as _;

use super::ImageError;
use super::context::{BuildContext, ContextFile};
use super::kept_modules::CompiledModule;
use super::members::{self, LastLayer, Packed};
use super::tar::FileTree;
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
    /// The compiled form of a source.
    Compiled(CompiledModule),
    /// A tar archive.
    Archive(Packed),
}

impl FileContent {
    pub(super) fn reader<'a>(
        &'a self,
        context: &BuildContext<'_>,
    ) -> Result<Box<dyn Read + 'a>, ImageError> {
        match self {
            Self::Context(file) => Ok(Box::new(context.open(file)?)),
            Self::Bytes(bytes) => Ok(Box::new(bytes.as_slice())),
            Self::Compiled(module) => Ok(module.reader()),
            Self::Archive(archive) => {
                let reader = archive.reader();
                let reader = reader.map_err(ImageError::io("cannot read a temporary file"))?;
                Ok(Box::new(reader))
            }
        }
    }

    /// Names the bytes: equal names mean equal bytes.
    pub(super) fn digest(&self) -> ObjectDigest {
        match self {
            Self::Context(file) => file.digest,
            Self::Bytes(bytes) => ObjectDigest::of(bytes),
            Self::Compiled(module) => module.name,
            Self::Archive(archive) => ObjectDigest::of(archive.sha256.as_bytes()),
        }
    }
}

/// Writes to two places.
pub(super) struct Tee<A, B>(pub(super) A, pub(super) B);

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

/// Hashes and counts what is written.
#[derive(Default)]
pub(super) struct Hashing {
    pub(super) hash: sha2::Sha256,
    pub(super) size: u64,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Compresses `tree` into an object of the store, but for what `last` has of it; gives the
/// object and its diff id. `hashes` are remembered with it; see [`LastLayer::sha256`].
pub(super) fn write(
    tree: &FileTree<FileContent>,
    context: &BuildContext<'_>,
    last: &LastLayer,
    hashes: BTreeMap<ObjectDigest, Sha256Digest>,
    batch: &mut Batch<'_>,
) -> Result<(ObjectInfo, Sha256Digest), ImageError> {
    let packed = members::pack(tree, context, last)?;
    let diff_id = packed.sha256;
    Ok((last.replace(packed, hashes, batch)?, diff_id))
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
    let mut tee = Tee(encoder, Hashing::default());
    write_archive(&mut tee)?;
    let Tee(encoder, Hashing { hash, .. }) = tee;
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
