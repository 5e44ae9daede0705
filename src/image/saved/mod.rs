//! Images that other tools have built and saved: what `docker save`, `podman save` and
//! skopeo write, and OCI layouts. They are read where they lie and pushed without any engine.
//!
//! | what | manifest | layers |
//! | --- | --- | --- |
//! | OCI layout or archive, layers compressed | stays, byte for byte | stay, read from the file as they are sent |
//! | OCI layout or archive, layers as plain tar | made | compressed once into the store |
//! | archive with `manifest.json` alone | made | compressed once into the store |
//!
//! A configuration always stays as it is, and with it the image's id. Everything is hostile
//! until its digest has been seen: names, sizes, digests, and what layers unpack to.

mod docker;
mod engine;
mod image_info;
mod layers;
mod members;
mod oci;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use forebay_store::Store;
use serde::Deserialize;

pub(super) use docker::DockerArchive;
pub use engine::save_from_engine;
pub use image_info::{ImageInfo, is_image_info};
pub use layers::Limits;

use super::ImageError;
use crate::oci::{BlobSource, ImageManifest, Sha256Digest, Tag};
use crate::progress::{Event, Phase, Progress, Unit};
use crate::registry::{FetchedManifest, ImageToPush};
use members::Members;

/// Bytes that a manifest, an index or a configuration may have.
const MAX_DOCUMENT: u64 = 8 << 20;
/// Layers that an image may have; engines take 127.
const MAX_LAYERS: usize = 1_000;

/// Why a saved image cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SavedImageError {
    /// Which file or folder it is about.
    #[error("the image {} cannot be used", path.display())]
    In {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<SavedImageError>,
    },
    /// It cannot be read.
    #[error("it cannot be read: {source}")]
    Read {
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// It is not what tools that save images write.
    #[error("{problem}")]
    Malformed {
        /// What is wrong.
        problem: String,
    },
    /// Bytes that are not what a digest or a size promises.
    #[error("{what} is damaged: expected {expected}, got {actual}")]
    Damaged {
        /// What was read.
        what: String,
        /// The promise.
        expected: String,
        /// What came.
        actual: String,
    },
    /// It holds several images, and nothing says which is meant.
    #[error("it holds {count} images, and nothing says which is meant; save one image alone")]
    Several {
        /// How many.
        count: usize,
    },
    /// The file's name does not carry the version, as BigFlow's names do.
    #[error(
        "its name does not end in -VERSION.tar, as in image-0.1.0.tar, so nothing says which version it is"
    )]
    NoVersion,
    /// The image is in an engine that gives it to nobody.
    #[error("the image {id} was left in a container engine, which does not give it: {problem}")]
    Engine {
        /// The image's id.
        id: String,
        /// What the engine, or its absence, says.
        problem: String,
    },
    /// Store or layers.
    #[error(transparent)]
    Image(#[from] Box<ImageError>),
}

impl SavedImageError {
    fn malformed(problem: impl Into<String>) -> Self {
        Self::Malformed {
            problem: problem.into(),
        }
    }

    fn within(self, path: &Path) -> Self {
        Self::In {
            path: path.to_owned(),
            source: Box::new(self),
        }
    }
}

impl From<ImageError> for SavedImageError {
    fn from(error: ImageError) -> Self {
        Self::Image(Box::new(error))
    }
}

impl From<forebay_store::StoreError> for SavedImageError {
    fn from(error: forebay_store::StoreError) -> Self {
        ImageError::from(error).into()
    }
}

/// An image that was saved, ready to be pushed.
pub struct SavedImage {
    manifest: FetchedManifest,
    /// The manifests that an index names.
    parts: Vec<FetchedManifest>,
    blobs: Vec<Arc<dyn BlobSource>>,
    platform: String,
}

/// What we need to know of a configuration; Docker's and OCI's have the same members.
#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    rootfs: RootFileSystem,
}

#[derive(Deserialize)]
struct RootFileSystem {
    diff_ids: Vec<Sha256Digest>,
}

impl SavedImage {
    /// Reads a file that `docker save` or another tool wrote, or a folder in the OCI image
    /// layout. `tag` chooses among the images of a layout. Layers that are not compressed
    /// are compressed into the store, once: the store remembers what became of them.
    ///
    /// # Errors
    /// See [`SavedImageError`].
    pub fn open(
        path: &Path,
        tag: Option<&Tag>,
        store: &Arc<Store>,
        limits: &Limits,
        progress: &dyn Progress,
    ) -> Result<Self, SavedImageError> {
        progress.report(Event::Started {
            phase: Phase::Image,
            total: None,
            unit: Unit::Items,
        });
        let image = Self::read(path, tag, store, limits).map_err(|error| error.within(path))?;
        let configurations = image.parts.len().max(1);
        let layers = image.blobs.len().saturating_sub(configurations);
        progress.report(Event::Finished {
            phase: Phase::Image,
            summary: format!("{layers} layers of {}", path.display()),
        });
        if image.platform != "linux/amd64" {
            progress.report(Event::Warning(format!(
                "the image is made for {}, and Composer's machines are linux/amd64",
                image.platform
            )));
        }
        Ok(image)
    }

    fn read(
        path: &Path,
        tag: Option<&Tag>,
        store: &Arc<Store>,
        limits: &Limits,
    ) -> Result<Self, SavedImageError> {
        let metadata = path
            .metadata()
            .map_err(|source| SavedImageError::Read { source })?;
        let members = match metadata.is_dir() {
            true => Members::Folder(path.to_owned()),
            false => {
                layers::refuse_compressed(path)?;
                Members::of_archive(path)?
            }
        };
        // Where both are, this one says more: the digests that the image had.
        if members.find(oci::INDEX)?.is_some() && members.find(oci::MARKER)?.is_some() {
            oci::read(&members, tag, store, limits)
        } else if !metadata.is_dir() && members.find(docker::MANIFEST)?.is_some() {
            docker::read(&members, store, limits)
        } else {
            Err(SavedImageError::malformed(
                "it is neither what `docker save` writes nor an OCI layout: there is no manifest.json, and no index.json with oci-layout",
            ))
        }
    }

    /// The digest that names the image.
    pub fn digest(&self) -> &Sha256Digest {
        &self.manifest.descriptor.digest
    }

    /// What it runs on: `linux/amd64`, or the first platform of an index that has not that.
    pub fn platform(&self) -> &str {
        &self.platform
    }

    /// Keeps a folder that the image's blobs are read from as long as they may be.
    #[must_use]
    pub fn kept_from(mut self, folder: tempfile::TempDir) -> Self {
        let folder = Arc::new(folder);
        for blob in &mut self.blobs {
            *blob = Arc::new(layers::Kept {
                blob: Arc::clone(blob),
                _folder: Arc::clone(&folder),
            });
        }
        self
    }

    /// The image with the sources of its blobs.
    pub fn to_push(&self) -> ImageToPush {
        ImageToPush {
            manifest: self.manifest.clone(),
            blobs: self.blobs.clone(),
            parts: self.parts.clone(),
            mount_candidates: Vec::new(),
        }
    }
}

/// The version in the name of a file as BigFlow names it: what follows the first `-`.
///
/// # Errors
/// [`SavedImageError::NoVersion`].
pub fn version_in_name(path: &Path) -> Result<String, SavedImageError> {
    let name = path.file_name().and_then(|name| name.to_str());
    name.and_then(|name| name.strip_suffix(".tar")?.split_once('-'))
        .map(|(_, version)| version.to_owned())
        .filter(|version| !version.is_empty())
        .ok_or_else(|| SavedImageError::NoVersion.within(path))
}

fn parse_config(bytes: &[u8], layers: usize) -> Result<Config, SavedImageError> {
    let config: Config = serde_json::from_slice(bytes).map_err(|error| {
        SavedImageError::malformed(format!("its configuration is not valid: {error}"))
    })?;
    if config.rootfs.diff_ids.len() != layers || layers > MAX_LAYERS {
        return Err(SavedImageError::malformed(format!(
            "its configuration speaks of {} layers, its manifest of {layers}",
            config.rootfs.diff_ids.len()
        )));
    }
    Ok(config)
}

impl Config {
    fn platform(&self) -> String {
        format!("{}/{}", self.os, self.architecture)
    }
}

fn parse_manifest(bytes: &[u8]) -> Result<ImageManifest, SavedImageError> {
    serde_json::from_slice(bytes)
        .map_err(|error| SavedImageError::malformed(format!("its manifest is not valid: {error}")))
}
