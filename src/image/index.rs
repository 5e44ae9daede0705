//! What a build gives: one image, or images for several platforms under one digest.

use forebay_store::{Sha256Digest, Store};
use serde_json::{Map, Value};

use super::built::BuiltImage;
use super::{ImageError, shelf};
use crate::oci::{Descriptor, ImageIndex, IndexEntry, IndexPlatform, MediaType};
use crate::registry::{FetchedManifest, ImageToPush};

/// An image, or for several platforms an index of images. What is built for one platform has no
/// index: its manifest's digest is its name.
#[derive(Debug, Clone)]
pub struct BuiltImages {
    first: BuiltImage,
    others: Vec<BuiltImage>,
    index: Option<FetchedManifest>,
}

impl BuiltImages {
    /// `first` alone, or an index over it and `others`, which the store takes note of. The order
    /// is the caller's, and part of the index's bytes.
    ///
    /// # Errors
    /// The store's.
    pub fn new(
        first: BuiltImage,
        others: Vec<BuiltImage>,
        store: &Store,
    ) -> Result<Self, ImageError> {
        let mut images = Self {
            first,
            others,
            index: None,
        };
        if !images.others.is_empty() {
            let index = index_of(images.images())?;
            let digests = images.images().map(|image| *image.digest()).collect();
            shelf::shelve_index(store, &index, digests)?;
            images.index = Some(index);
        }
        Ok(images)
    }

    /// The digest that names it.
    pub fn digest(&self) -> &Sha256Digest {
        &self.manifest().descriptor.digest
    }

    /// The index, or the only image's manifest.
    pub fn manifest(&self) -> &FetchedManifest {
        self.index.as_ref().unwrap_or_else(|| self.first.manifest())
    }

    /// The images, one a platform.
    pub fn images(&self) -> impl Iterator<Item = &BuiltImage> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// Whether there is an index.
    pub fn are_several(&self) -> bool {
        self.index.is_some()
    }

    /// All of it with the sources of its blobs; `one` gives those of an image.
    ///
    /// # Errors
    /// Those of `one`.
    pub fn to_push<E>(
        &self,
        one: impl Fn(&BuiltImage) -> Result<ImageToPush, E>,
    ) -> Result<ImageToPush, E> {
        let Some(index) = &self.index else {
            return one(&self.first);
        };
        let images = self.images().map(one).collect::<Result<_, E>>()?;
        Ok(under_index(index.clone(), images))
    }
}

/// Images, ready to be pushed under `index`.
pub(super) fn under_index(index: FetchedManifest, images: Vec<ImageToPush>) -> ImageToPush {
    let parts = images.iter().map(|image| image.manifest.clone()).collect();
    ImageToPush {
        manifest: index,
        parts,
        blobs: images.into_iter().flat_map(|image| image.blobs).collect(),
        mount_candidates: Vec::new(),
    }
}

/// The index over these images.
fn index_of<'a>(
    images: impl Iterator<Item = &'a BuiltImage>,
) -> Result<FetchedManifest, ImageError> {
    let entries = images.map(|image| {
        let platform = image.base().platform;
        let config: Map<String, Value> =
            serde_json::from_slice(image.config().bytes()).unwrap_or_default();
        let variant = config.get("variant").and_then(Value::as_str);
        IndexEntry {
            descriptor: image.manifest().descriptor.clone(),
            platform: Some(IndexPlatform {
                architecture: platform.architecture().to_owned(),
                os: platform.os().to_owned(),
                variant: variant.map(str::to_owned),
            }),
        }
    });
    let index = ImageIndex {
        schema_version: 2,
        media_type: Some(MediaType::new(MediaType::OCI_INDEX)),
        manifests: entries.collect(),
    };
    let bytes = super::json(&index)?;
    Ok(FetchedManifest {
        descriptor: Descriptor::of(MediaType::new(MediaType::OCI_INDEX), &bytes),
        bytes: bytes.into(),
    })
}
