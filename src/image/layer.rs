//! A layer: what it is called, and where its bytes come from.

use std::io::{self, Read};
use std::sync::Arc;

use forebay_store::{ObjectDigest, Realisation, RecipeKey, Sha256Digest, Store};
use serde::{Deserialize, Serialize};

use super::{ImageError, splice};
use crate::oci::{BlobSource, Descriptor, MediaType};

/// Where a layer's bytes come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", content = "object")]
pub enum LayerSource {
    /// The base image's repository.
    Base,
    /// An object of the store that is the layer as it is sent.
    Object(ObjectDigest),
    /// An object of the store that is the recipe of a spliced layer; see [`splice`].
    Spliced(ObjectDigest),
    /// The repository that the layers of the lines in containers were published to.
    Published,
}

/// One layer of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Layer {
    /// Media type, digest and size of what is sent.
    pub descriptor: Descriptor,
    /// SHA-256 of the tar archive inside.
    pub diff_id: Sha256Digest,
    /// Where its bytes come from.
    pub source: LayerSource,
    /// What made it, for the image's history.
    pub created_by: String,
}

impl Layer {
    /// A layer that is in a repository beside the base's.
    pub fn published(descriptor: Descriptor, diff_id: Sha256Digest) -> Self {
        Self {
            descriptor,
            diff_id,
            source: LayerSource::Published,
            created_by: String::new(),
        }
    }

    /// The object that the layer needs in the store, if it needs one.
    pub fn object(&self) -> Option<ObjectDigest> {
        match self.source {
            LayerSource::Base | LayerSource::Published => None,
            LayerSource::Object(object) | LayerSource::Spliced(object) => Some(object),
        }
    }
}

/// The output of a layer's realisation that holds its description.
pub(super) const LAYER: &str = "layer";

/// Reads a layer that was made before.
pub(super) fn realised(store: &Store, key: &RecipeKey) -> Result<Option<Layer>, ImageError> {
    let Some(realisation) = store.realisation(key)? else {
        return Ok(None);
    };
    match realisation.outputs.get(LAYER) {
        Some(description) => Ok(serde_json::from_slice(&store.read(description)?).ok()),
        None => Ok(None),
    }
}

/// Keeps a layer's description beside `outputs` as what `key` gave.
pub(super) fn realise(
    batch: &mut forebay_store::Batch<'_>,
    key: &RecipeKey,
    layer: &Layer,
    outputs: impl IntoIterator<Item = (String, ObjectDigest)>,
) -> Result<(), ImageError> {
    let description = batch.put(&super::json(layer)?)?;
    let mut realisation = Realisation::default();
    realisation.outputs.extend(outputs);
    realisation
        .outputs
        .insert(LAYER.to_owned(), description.digest);
    batch.realise(key, &realisation)?;
    Ok(())
}

/// The description of a gzip layer that is an object of the store.
pub(super) fn object_layer(
    info: &forebay_store::ObjectInfo,
    diff_id: Sha256Digest,
    created_by: &str,
) -> Layer {
    Layer {
        descriptor: Descriptor {
            media_type: MediaType::new(MediaType::OCI_LAYER_GZIP),
            digest: info.sha256,
            size: info.size,
            annotations: std::collections::BTreeMap::new(),
        },
        diff_id,
        source: LayerSource::Object(info.digest),
        created_by: created_by.to_owned(),
    }
}

/// A layer of the store, ready to be sent.
pub(super) struct StoredLayer {
    pub(super) store: Arc<Store>,
    pub(super) descriptor: Descriptor,
    pub(super) source: LayerSource,
}

impl BlobSource for StoredLayer {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        match self.source {
            LayerSource::Object(object) => {
                let reader = self.store.reader(&object).map_err(io::Error::other)?;
                Ok(Box::new(reader))
            }
            LayerSource::Spliced(recipe) => Ok(Box::new(splice::open(&self.store, &recipe)?)),
            LayerSource::Base | LayerSource::Published => Err(io::Error::new(
                io::ErrorKind::NotFound,
                "a layer of another image is not in the store",
            )),
        }
    }
}
