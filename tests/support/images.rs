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

/// An image that every reader takes: its layers are compressed archives of one file
/// each, and its configuration names what is in them.
#[allow(dead_code)]
pub(crate) fn loadable_image(seeds: &[String], size: usize) -> ImageToPush {
    let mut diff_ids = Vec::new();
    let mut layers = Vec::new();
    for seed in seeds {
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(size as u64);
        header.set_mode(0o644);
        let content: Vec<u8> = seed.bytes().cycle().take(size).collect();
        let path = format!("files/{seed}");
        archive.append_data(&mut header, path, &*content).unwrap();
        let bytes = archive.into_inner().unwrap();
        diff_ids.push(forebay::oci::Sha256Digest::of(&bytes));
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
        std::io::Write::write_all(&mut encoder, &bytes).unwrap();
        let media_type = MediaType::new(MediaType::OCI_LAYER_GZIP);
        layers.push(BytesBlob::new(media_type, encoder.finish().unwrap()));
    }
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "created": "1980-01-01T00:00:01Z",
        "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    with_config(layers, &config)
}

/// An image of these layers.
pub(crate) fn image_of(layers: Vec<BytesBlob>) -> ImageToPush {
    let digests: Vec<_> = layers.iter().map(|l| l.descriptor().digest).collect();
    with_config(layers, &serde_json::json!({"layers": digests}))
}

fn with_config(layers: Vec<BytesBlob>, config: &serde_json::Value) -> ImageToPush {
    let layers = layers
        .into_iter()
        .map(|l| Arc::new(l) as Arc<dyn BlobSource>);
    image_with(layers.collect(), config)
}

/// An image of these layers and this configuration.
pub(crate) fn image_with(
    layers: Vec<Arc<dyn BlobSource>>,
    config: &serde_json::Value,
) -> ImageToPush {
    let config = BytesBlob::new(
        MediaType::new(MediaType::OCI_CONFIG),
        serde_json::to_vec(config).unwrap(),
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
    blobs.extend(layers);
    ImageToPush {
        manifest: FetchedManifest {
            descriptor: Descriptor::of(MediaType::new(MediaType::OCI_MANIFEST), &bytes),
            bytes: bytes.into(),
        },
        blobs,
        parts: Vec::new(),
        mount_candidates: Vec::new(),
    }
}
