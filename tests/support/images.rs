//! Small images for tests.

use std::sync::Arc;

use forebay::oci::{BlobSource, BytesBlob, Descriptor, ImageManifest, MediaType};
use forebay::registry::{FetchedManifest, ImageToPush};

/// A blob that differs with its `seed`.
pub(crate) fn blob(seed: &str, size: usize) -> BytesBlob {
    let bytes: Vec<u8> = seed.bytes().cycle().take(size).collect();
    BytesBlob::new(MediaType::new(MediaType::OCI_LAYER_GZIP), bytes)
}

/// An image with a layer for each seed; its configuration names them.
pub(crate) fn image(layers: &[&str]) -> ImageToPush {
    image_of(layers.iter().map(|seed| blob(seed, 300_000)).collect())
}

/// An image of these layers.
pub(crate) fn image_of(layers: Vec<BytesBlob>) -> ImageToPush {
    let digests: Vec<_> = layers.iter().map(|l| l.descriptor().digest).collect();
    let config = BytesBlob::new(
        MediaType::new(MediaType::OCI_CONFIG),
        serde_json::to_vec(&serde_json::json!({"layers": digests})).unwrap(),
    );
    let manifest = ImageManifest {
        schema_version: 2,
        media_type: Some(MediaType::new(MediaType::OCI_MANIFEST)),
        config: config.descriptor().clone(),
        layers: layers.iter().map(|l| l.descriptor().clone()).collect(),
        annotations: Default::default(),
    };
    let bytes = serde_json::to_vec(&manifest).unwrap();
    let mut blobs: Vec<Arc<dyn BlobSource>> = vec![Arc::new(config)];
    blobs.extend(
        layers
            .into_iter()
            .map(|l| Arc::new(l) as Arc<dyn BlobSource>),
    );
    ImageToPush {
        manifest: FetchedManifest {
            descriptor: Descriptor::of(MediaType::new(MediaType::OCI_MANIFEST), &bytes),
            bytes: bytes.into(),
        },
        blobs,
        mount_candidates: Vec::new(),
    }
}
