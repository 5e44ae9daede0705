//! Images that this machine has built, by their digests: what a registry has lost can be
//! pushed again, without building.

use std::sync::Arc;

use forebay_store::{
    Batch, ObjectDigest, Realisation, Recipe, RecipeKey, Sha256Digest, Store, StoreError,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::blobs::{Elsewhere, RemoteLayers, to_push};
use super::index::under_index;
use super::layer::{Layer, LayerSource};
use super::{BuiltImage, ImageError};
use crate::oci::{BytesBlob, Descriptor, MediaType, Repository};
use crate::registry::{FetchedManifest, ImageToPush, Registry};

/// The output of an image's realisation that is a [`ShelvedImage`].
const IMAGE: &str = "image";
/// The output of an index's realisation that is a [`ShelvedIndex`].
const INDEX: &str = "index";

/// An image, or an index of images, of which the store has all but the bases' layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shelved {
    index: Option<ObjectDigest>,
    first: ShelvedImage,
    /// What an index has beside the first.
    others: Vec<ShelvedImage>,
    /// What says all this.
    descriptions: Vec<ObjectDigest>,
}

/// What is kept of one image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ShelvedImage {
    manifest: ObjectDigest,
    config: ObjectDigest,
    layers: Vec<(Descriptor, LayerSource)>,
    /// Where the base's layers are: as text, because a layout's path is seen from the project.
    base: Option<String>,
    /// All that a push reads from the store.
    objects: Vec<ObjectDigest>,
}

/// What is kept of an index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct ShelvedIndex {
    index: ObjectDigest,
    /// The digests of the images, in its order.
    images: Vec<Sha256Digest>,
}

fn key(digest: &Sha256Digest) -> Result<RecipeKey, StoreError> {
    Ok(Recipe::new("image-by-digest", 2, &digest.to_string())?.key())
}

/// Takes note of an image. Writes nothing if that was done before, nor of an image with layers
/// that another machine has made: this one could not bring them back.
pub(super) fn shelve(
    store: &Store,
    image: &BuiltImage,
    base: Option<&Repository>,
) -> Result<(), ImageError> {
    let is_remote = |layer: &Layer| layer.source == LayerSource::Published;
    let key = key(image.digest())?;
    if image.layers().iter().any(is_remote) || store.realisation(&key)?.is_some() {
        return Ok(());
    }
    let base_layers = image.base().layers.iter();
    let base_layers = base_layers.map(|descriptor| (descriptor.clone(), LayerSource::Base));
    let own_layers = image.layers().iter();
    let own_layers = own_layers.map(|layer| (layer.descriptor.clone(), layer.source));
    let mut batch = store.begin()?;
    let manifest = batch.put(&image.manifest().bytes)?.digest;
    let config = batch.put(image.config().bytes())?.digest;
    let shelved = ShelvedImage {
        manifest,
        config,
        layers: base_layers.chain(own_layers).collect(),
        base: base.map(ToString::to_string),
        objects: image.objects().to_vec(),
    };
    let description = batch.put(&super::json(&shelved)?)?.digest;
    realise(batch, &key, IMAGE, description, shelved.needed())
}

/// Takes note of an index of images. Writes nothing if that was done before.
pub(super) fn shelve_index(
    store: &Store,
    index: &FetchedManifest,
    images: Vec<Sha256Digest>,
) -> Result<(), ImageError> {
    let key = key(&index.descriptor.digest)?;
    if store.realisation(&key)?.is_some() {
        return Ok(());
    }
    let mut batch = store.begin()?;
    let index = batch.put(&index.bytes)?.digest;
    let description = batch
        .put(&super::json(&ShelvedIndex { index, images })?)?
        .digest;
    realise(batch, &key, INDEX, description, [index].into_iter())
}

/// All that is needed is an output of the realisation: so a cache names all of it at once.
fn realise(
    mut batch: Batch<'_>,
    key: &RecipeKey,
    output: &str,
    description: ObjectDigest,
    needed: impl Iterator<Item = ObjectDigest>,
) -> Result<(), ImageError> {
    let parts = needed.map(|object| (object.to_string(), object));
    let realisation = Realisation {
        outputs: parts.chain([(output.to_owned(), description)]).collect(),
    };
    batch.realise(key, &realisation)?;
    batch.commit()?;
    Ok(())
}

/// What the store says of an image or an index; nothing if it cannot be read by this program.
fn described<T: DeserializeOwned>(
    store: &Store,
    digest: &Sha256Digest,
    output: &str,
) -> Result<Option<(T, ObjectDigest)>, StoreError> {
    let outputs = store
        .realisation(&key(digest)?)?
        .unwrap_or_default()
        .outputs;
    let Some(description) = outputs.get(output) else {
        return Ok(None);
    };
    if store.info(description)?.is_none() {
        return Ok(None);
    }
    let parsed = serde_json::from_slice(&store.read(description)?).ok();
    Ok(parsed.map(|parsed| (parsed, *description)))
}

impl Shelved {
    /// An image or an index that this machine has built, if all of its own parts are still here.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn find(store: &Store, digest: &Sha256Digest) -> Result<Option<Self>, StoreError> {
        let mut index = None;
        let mut digests = vec![*digest];
        let mut descriptions = Vec::new();
        if let Some((found, description)) = described::<ShelvedIndex>(store, digest, INDEX)? {
            index = Some(found.index);
            digests = found.images;
            descriptions.push(description);
        }
        let mut images = Vec::new();
        for digest in &digests {
            let Some((image, description)) = described(store, digest, IMAGE)? else {
                return Ok(None);
            };
            images.push(image);
            descriptions.push(description);
        }
        let mut images = images.into_iter();
        let Some(first) = images.next() else {
            return Ok(None);
        };
        let shelved = Self {
            index,
            first,
            others: images.collect(),
            descriptions,
        };
        for object in shelved.needed() {
            if store.info(&object)?.is_none() {
                return Ok(None);
            }
        }
        Ok(Some(shelved))
    }

    /// What a collection must leave of an image that was built here; nothing of others.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn objects(store: &Store, digest: &Sha256Digest) -> Result<Vec<ObjectDigest>, StoreError> {
        let Some(shelved) = Self::find(store, digest)? else {
            return Ok(Vec::new());
        };
        let needed: Vec<ObjectDigest> = shelved.needed().collect();
        Ok(needed.into_iter().chain(shelved.descriptions).collect())
    }

    fn images(&self) -> impl Iterator<Item = &ShelvedImage> {
        std::iter::once(&self.first).chain(&self.others)
    }

    fn needed(&self) -> impl Iterator<Item = ObjectDigest> {
        let images = self.images().flat_map(ShelvedImage::needed);
        self.index.into_iter().chain(images)
    }

    /// The repository of the base's layers, which is one for all platforms; a layout's path is
    /// seen from the project.
    pub fn base(&self) -> Option<Repository> {
        let mut bases = self.images().filter_map(|image| image.base.as_deref());
        bases.next()?.parse().ok()
    }

    /// The layers that are not here but in the base's repository.
    pub fn base_layers(&self) -> impl Iterator<Item = &Descriptor> {
        let layers = self.images().flat_map(|image| &image.layers);
        layers
            .filter(|(_, source)| matches!(source, LayerSource::Base))
            .map(|(descriptor, _)| descriptor)
    }

    /// The image with the sources of its blobs; `base` is the opened repository of the base.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn to_push(
        &self,
        store: &Arc<Store>,
        base: Option<Arc<dyn Registry>>,
    ) -> Result<ImageToPush, StoreError> {
        let Some(index) = &self.index else {
            return self.first.to_push(store, base);
        };
        let images = self.images().map(|one| one.to_push(store, base.clone()));
        let images = images.collect::<Result<_, _>>()?;
        let index = fetched(MediaType::OCI_INDEX, store.read(index)?);
        Ok(under_index(index, images))
    }
}

fn fetched(media_type: &str, bytes: Vec<u8>) -> FetchedManifest {
    FetchedManifest {
        descriptor: Descriptor::of(MediaType::new(media_type), &bytes),
        bytes: bytes.into(),
    }
}

impl ShelvedImage {
    fn needed(&self) -> impl Iterator<Item = ObjectDigest> {
        let named = [self.manifest, self.config];
        named.into_iter().chain(self.objects.iter().copied())
    }

    fn to_push(
        &self,
        store: &Arc<Store>,
        base: Option<Arc<dyn Registry>>,
    ) -> Result<ImageToPush, StoreError> {
        let manifest = fetched(MediaType::OCI_MANIFEST, store.read(&self.manifest)?);
        let config = store.read(&self.config)?;
        let config = BytesBlob::new(MediaType::new(MediaType::OCI_CONFIG), config);
        let elsewhere = Elsewhere {
            base: RemoteLayers::of(base),
            ..Elsewhere::default()
        };
        Ok(to_push(manifest, config, &self.layers, store, &elsewhere))
    }
}
