//! Base images: by tag or digest, from an index, with Docker's media types, and
//! only manifest and configuration of them.

#![allow(clippy::unwrap_used)]

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use forebay::image::{BaseImage, BaseRequest, ImageError};
use forebay::oci::{BlobSource, Sha256Digest};
use forebay::oci::{BytesBlob, ImageReference, MediaType};
use forebay::registry::{ManifestName, Registry};
use forebay::wheels::Platform;
use forebay_store::Store;
use serde_json::json;

#[path = "support/open.rs"]
mod open_support;

/// A gzip layer with empty files at these paths.
fn layer(paths: &[&str]) -> (Vec<u8>, Sha256Digest) {
    let mut tar = tar::Builder::new(Vec::new());
    for path in paths {
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        header.set_mode(0o755);
        tar.append_data(&mut header, path, std::io::empty())
            .unwrap();
    }
    let tar = tar.into_inner().unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&tar).unwrap();
    (gzip.finish().unwrap(), Sha256Digest::of(&tar))
}

/// What a test puts into a repository.
struct Image<'a> {
    tag: &'a str,
    environment: &'a [&'a str],
    files: &'a [&'a str],
    docker: bool,
    index_for: &'a [&'a str],
}

async fn put(registry: &dyn Registry, image: &Image<'_>) -> Sha256Digest {
    let types = if image.docker {
        [
            MediaType::DOCKER_MANIFEST,
            MediaType::DOCKER_CONFIG,
            MediaType::DOCKER_LAYER_GZIP,
        ]
    } else {
        [
            MediaType::OCI_MANIFEST,
            MediaType::OCI_CONFIG,
            MediaType::OCI_LAYER_GZIP,
        ]
    };
    let (bytes, diff_id) = layer(image.files);
    let layer = BytesBlob::new(MediaType::new(types[2]), bytes);
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": image.environment, "WorkingDir": "/srv"},
        "rootfs": {"type": "layers", "diff_ids": [diff_id.to_string()]},
    });
    let config = BytesBlob::new(MediaType::new(types[1]), config.to_string());
    for blob in [layer.clone(), config.clone()] {
        let blob: Arc<dyn BlobSource> = Arc::new(blob);
        registry.put_blob(&blob, &[]).await.unwrap();
    }
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": types[0],
        "config": config.descriptor(),
        "layers": [layer.descriptor()],
    });
    let manifest = manifest.to_string();
    let digest = Sha256Digest::of(manifest.as_bytes());
    let tag = ManifestName::Tag(image.tag.parse().unwrap());
    let own_name = if image.index_for.is_empty() {
        tag.clone()
    } else {
        ManifestName::Digest(digest)
    };
    let size = manifest.len();
    registry
        .put_manifest(&own_name, &MediaType::new(types[0]), Bytes::from(manifest))
        .await
        .unwrap();
    if !image.index_for.is_empty() {
        let entries: Vec<_> = image
            .index_for
            .iter()
            .map(|architecture| {
                json!({
                    "mediaType": types[0], "digest": digest.to_string(), "size": size,
                    "platform": {"os": "linux", "architecture": architecture},
                })
            })
            .collect();
        let index = json!({
            "schemaVersion": 2, "mediaType": MediaType::OCI_INDEX, "manifests": entries,
        });
        let index = Bytes::from(index.to_string());
        registry
            .put_manifest(&tag, &MediaType::new(MediaType::OCI_INDEX), index)
            .await
            .unwrap();
    }
    digest
}

fn open(layout: &Path) -> (String, Arc<dyn Registry>) {
    let name = format!("oci:{}", layout.display());
    let registry = open_support::repository(&name, Vec::new());
    (name, registry)
}

async fn resolve(
    registry: &Arc<dyn Registry>,
    name: &str,
    store: &Store,
) -> Result<BaseImage, ImageError> {
    let reference: ImageReference = name.parse().unwrap();
    let request = BaseRequest {
        reference: &reference,
        registry,
        platform: Platform::LinuxAmd64,
        refresh: false,
        known_python: None,
    };
    BaseImage::resolve(&request, store).await
}

const DEBIAN: [&str; 2] = ["usr/lib/python3/dist-packages/README", "usr/bin/python3.11"];

#[tokio::test]
async fn an_official_image_says_its_python_and_is_asked_for_once() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("store")).unwrap();
    let layout = directory.path().join("layout");
    let (name, registry) = open(&layout);
    let image = Image {
        tag: "3.9",
        environment: &["PATH=/usr/local/bin:/usr/bin", "PYTHON_VERSION=3.9.20"],
        files: &["etc/hostname"],
        docker: true,
        index_for: &["arm64", "amd64"],
    };
    let digest = put(registry.as_ref(), &image).await;
    let base = resolve(&registry, &format!("{name}:3.9"), &store)
        .await
        .unwrap();
    assert_eq!(base.manifest, Some(digest));
    assert_eq!((base.python.major, base.python.minor), (3, 9));
    assert_eq!(
        base.python.scheme.purelib,
        "usr/local/lib/python3.9/site-packages"
    );
    assert_eq!(base.working_directory(), Some("/srv"));
    // Docker's layer is the same bytes under the name that OCI has for them.
    assert_eq!(
        base.layers[0].media_type.as_str(),
        MediaType::OCI_LAYER_GZIP
    );

    // The repository is gone: what is known needs no request.
    std::fs::remove_dir_all(&layout).unwrap();
    let again = resolve(&registry, &format!("{name}:3.9"), &store)
        .await
        .unwrap();
    assert_eq!(again, base);
}

#[tokio::test]
async fn debians_python_is_found_in_the_layers_once() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("store")).unwrap();
    let layout = directory.path().join("layout");
    let (name, registry) = open(&layout);
    let image = Image {
        tag: "debian",
        environment: &[],
        files: &DEBIAN,
        docker: false,
        index_for: &[],
    };
    let digest = put(registry.as_ref(), &image).await;
    let base = resolve(&registry, &format!("{name}@{digest}"), &store)
        .await
        .unwrap();
    assert_eq!(
        base.python.scheme.purelib,
        "usr/local/lib/python3.11/dist-packages"
    );
    std::fs::remove_dir_all(&layout).unwrap();
    let again = resolve(&registry, &format!("{name}@{digest}"), &store)
        .await
        .unwrap();
    assert_eq!(again, base);
}

#[tokio::test]
async fn a_base_that_cannot_be_used_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("store")).unwrap();
    let (name, registry) = open(&directory.path().join("layout"));
    let no_python = Image {
        tag: "bare",
        environment: &[],
        files: &["bin/sh"],
        docker: false,
        index_for: &[],
    };
    put(registry.as_ref(), &no_python).await;
    let other = Image {
        tag: "arm",
        index_for: &["arm64"],
        ..no_python
    };
    put(registry.as_ref(), &other).await;
    for (tag, expected) in [
        ("bare", "has no Python"),
        ("arm", "not there for linux/amd64, only for linux/arm64"),
        ("absent", "there is no such image"),
    ] {
        let error = resolve(&registry, &format!("{name}:{tag}"), &store)
            .await
            .unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}
