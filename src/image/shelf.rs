//! Images that this machine has built, by their digests: what a registry has lost can be
//! pushed again, without building.

use std::sync::Arc;

use bytes::Bytes;
use forebay_store::{
    ObjectDigest, Realisation, Recipe, RecipeKey, Sha256Digest, Store, StoreError,
};
use serde::{Deserialize, Serialize};

use super::blobs::{Elsewhere, RemoteLayers, to_push};
use super::layer::{Layer, LayerSource};
use super::{BuiltImage, ImageError};
use crate::oci::{BytesBlob, Descriptor, MediaType, Repository};
use crate::registry::{FetchedManifest, ImageToPush, Registry};

/// The output of an image's realisation that is a [`Shelved`].
const IMAGE: &str = "image";

/// An image of which the store has all but the base's layers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Shelved {
    manifest: ObjectDigest,
    config: ObjectDigest,
    layers: Vec<(Descriptor, LayerSource)>,
    /// Where the base's layers are: as text, because a layout's path is seen from the project.
    base: Option<String>,
    /// All that a push reads from the store.
    objects: Vec<ObjectDigest>,
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
    let shelved = Shelved {
        manifest,
        config,
        layers: base_layers.chain(own_layers).collect(),
        base: base.map(ToString::to_string),
        objects: image.objects().to_vec(),
    };
    let description = batch.put(&super::json(&shelved)?)?.digest;
    // All that it needs is an output of it: so a cache names all of it at once.
    let parts = shelved.needed().map(|object| (object.to_string(), object));
    let realisation = Realisation {
        outputs: parts.chain([(IMAGE.to_owned(), description)]).collect(),
    };
    batch.realise(&key, &realisation)?;
    batch.commit()?;
    Ok(())
}

impl Shelved {
    /// An image that this machine has built, if all of its own parts are still here.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn find(store: &Store, digest: &Sha256Digest) -> Result<Option<Self>, StoreError> {
        let Some(realisation) = store.realisation(&key(digest)?)? else {
            return Ok(None);
        };
        let Some(description) = realisation.outputs.get(IMAGE) else {
            return Ok(None);
        };
        if store.info(description)?.is_none() {
            return Ok(None);
        }
        let Ok(shelved) = serde_json::from_slice::<Self>(&store.read(description)?) else {
            return Ok(None);
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
        let realisation = store.realisation(&key(digest)?)?.unwrap_or_default();
        Ok(shelved
            .needed()
            .chain(realisation.outputs.into_values())
            .collect())
    }

    fn needed(&self) -> impl Iterator<Item = ObjectDigest> {
        let named = [self.manifest, self.config].into_iter();
        named.chain(self.objects.iter().copied())
    }

    /// The repository of the base's layers; a layout's path is seen from the project.
    pub fn base(&self) -> Option<Repository> {
        self.base.as_deref()?.parse().ok()
    }

    /// The layers that are not here but in the base's repository.
    pub fn base_layers(&self) -> impl Iterator<Item = &Descriptor> {
        let layers = self.layers.iter();
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
        let manifest = Bytes::from(store.read(&self.manifest)?);
        let config = store.read(&self.config)?;
        let manifest = FetchedManifest {
            descriptor: Descriptor::of(MediaType::new(MediaType::OCI_MANIFEST), &manifest),
            bytes: manifest,
        };
        let config = BytesBlob::new(MediaType::new(MediaType::OCI_CONFIG), config);
        let elsewhere = Elsewhere {
            base: RemoteLayers::of(base),
            ..Elsewhere::default()
        };
        Ok(to_push(manifest, config, &self.layers, store, &elsewhere))
    }
}
