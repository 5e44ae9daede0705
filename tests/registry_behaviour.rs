//! What every kind of repository promises: one suite over all of them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/conformant_registry.rs"]
mod conformant_registry;
#[path = "support/docker_registry.rs"]
mod docker_registry;
#[path = "support/images.rs"]
mod images;
#[path = "support/open.rs"]
mod open;

use std::io::Read;
use std::sync::Arc;

use conformant_registry::ConformantRegistry;
use docker_registry::DockerRegistry;
use forebay::oci::{BlobSource, BytesBlob, Descriptor, MediaType, Sha256Digest, Tag};
use forebay::progress::Silent;
use forebay::registry::{BlobOutcome, ManifestName, Registry, RegistryError, push};
use images::{blob, image};

fn tag(text: &str) -> Tag {
    text.parse().unwrap()
}

fn shared(blob: impl BlobSource + 'static) -> Arc<dyn BlobSource> {
    Arc::new(blob)
}

async fn read_blob(
    registry: &Arc<dyn Registry>,
    descriptor: &Descriptor,
) -> std::io::Result<Vec<u8>> {
    let mut reader = registry.blob(descriptor).await.unwrap();
    tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).map(|_| bytes)
    })
    .await
    .unwrap()
}

/// Promises one thing and gives another.
struct Lying(Descriptor, &'static [u8]);

impl BlobSource for Lying {
    fn descriptor(&self) -> &Descriptor {
        &self.0
    }

    fn open(&self) -> std::io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(self.1))
    }
}

async fn keeps_every_promise(registry: Arc<dyn Registry>) {
    nothing_is_there_at_first(&registry).await;
    a_pushed_image_reads_back(&registry).await;
    a_tag_moves(&registry).await;
    a_manifest_without_its_blobs_is_refused(&registry).await;
    wrong_bytes_are_never_kept(&registry).await;
    an_empty_blob_and_a_large_one_are_blobs(&registry).await;
}

async fn nothing_is_there_at_first(registry: &Arc<dyn Registry>) {
    let digest = Sha256Digest::of(b"nothing");
    for name in [
        ManifestName::Digest(digest),
        ManifestName::Tag(tag("nothing")),
    ] {
        assert!(registry.manifest_descriptor(&name).await.unwrap().is_none());
        assert!(registry.manifest(&name).await.unwrap().is_none());
    }
    assert!(!registry.has_blob(&digest).await.unwrap());
    let descriptor = Descriptor::of(MediaType::new("x"), b"nothing");
    assert!(registry.blob(&descriptor).await.is_err());
}

async fn a_pushed_image_reads_back(registry: &Arc<dyn Registry>) {
    // A layer may occur twice.
    let image = image(&["a", "b", "a"]);
    let tags = [tag("1"), tag("one")];
    let report = push(&**registry, &image, &tags, None, &Silent)
        .await
        .unwrap();
    assert_eq!(report.uploaded.len(), 3);
    assert!(report.manifest_written);

    let digest = image.manifest.descriptor.digest;
    for name in [
        ManifestName::Digest(digest),
        ManifestName::Tag(tag("1")),
        ManifestName::Tag(tag("one")),
    ] {
        let described = registry.manifest_descriptor(&name).await.unwrap().unwrap();
        assert_eq!(described, image.manifest.descriptor);
        let read = registry.manifest(&name).await.unwrap().unwrap();
        assert_eq!(read.bytes, image.manifest.bytes);
        assert_eq!(read.descriptor, image.manifest.descriptor);
    }
    for blob in &image.blobs {
        let mut expected = Vec::new();
        blob.open().unwrap().read_to_end(&mut expected).unwrap();
        assert!(registry.has_blob(&blob.descriptor().digest).await.unwrap());
        assert!(read_blob(registry, blob.descriptor()).await.unwrap() == expected);
    }
    let again = push(&**registry, &image, &tags[..1], None, &Silent)
        .await
        .unwrap();
    assert!(again.uploaded.is_empty() && !again.manifest_written);
    assert_eq!(again.present, 3);
}

async fn a_tag_moves(registry: &Arc<dyn Registry>) {
    let (old, new) = (image(&["old"]), image(&["new"]));
    for image in [&old, &new] {
        push(&**registry, image, &[tag("moving")], None, &Silent)
            .await
            .unwrap();
    }
    let name = ManifestName::Tag(tag("moving"));
    let now = registry.manifest_descriptor(&name).await.unwrap().unwrap();
    assert_eq!(now.digest, new.manifest.descriptor.digest);
    let name = ManifestName::Digest(old.manifest.descriptor.digest);
    assert!(registry.manifest(&name).await.unwrap().is_some());
}

async fn a_manifest_without_its_blobs_is_refused(registry: &Arc<dyn Registry>) {
    let image = image(&["never sent"]);
    let name = ManifestName::Tag(tag("incomplete"));
    let written = registry
        .put_manifest(
            &name,
            &image.manifest.descriptor.media_type,
            image.manifest.bytes.clone(),
        )
        .await;
    match written {
        Err(RegistryError::BlobsMissing { digests, .. }) => {
            // Some registries name all of them, some one, some none.
            let named: Vec<_> = image.blobs.iter().map(|b| b.descriptor().digest).collect();
            assert!(digests.iter().all(|digest| named.contains(digest)));
        }
        other => panic!("{other:?}"),
    }
    assert!(registry.manifest(&name).await.unwrap().is_none());
}

async fn wrong_bytes_are_never_kept(registry: &Arc<dyn Registry>) {
    let promised = Descriptor::of(MediaType::new("x"), b"promised bytes");
    for served in [
        &b"promised_bytes"[..],
        b"promised",
        b"promised bytes and more",
        b"",
    ] {
        let error = registry
            .put_blob(&shared(Lying(promised.clone(), served)), &[])
            .await
            .unwrap_err();
        assert!(matches!(error, RegistryError::Damaged { .. }), "{error:?}");
        assert!(!registry.has_blob(&promised.digest).await.unwrap());
    }
    let named = Sha256Digest::of(b"another manifest");
    let image = image(&["a"]);
    let media_type = &image.manifest.descriptor.media_type;
    let name = ManifestName::Digest(named);
    assert!(
        (registry.put_manifest(&name, media_type, image.manifest.bytes.clone()))
            .await
            .is_err()
    );
}

async fn an_empty_blob_and_a_large_one_are_blobs(registry: &Arc<dyn Registry>) {
    let empty = BytesBlob::new(MediaType::new("x"), Vec::new());
    for blob in [empty, blob("large ", 5_000_000)] {
        let outcome = registry.put_blob(&shared(blob.clone()), &[]).await.unwrap();
        assert_eq!(outcome, BlobOutcome::Uploaded);
        let read = read_blob(registry, blob.descriptor()).await.unwrap();
        assert!(read == **blob.bytes());
    }
}

#[tokio::test]
async fn a_layout_keeps_every_promise() {
    let directory = tempfile::tempdir().unwrap();
    let name = format!("oci:{}", directory.path().join("a/layout").display());
    keeps_every_promise(open::repository(&name, Vec::new())).await;
}

#[tokio::test]
async fn a_registry_keeps_every_promise() {
    let Some(server) = DockerRegistry::start() else {
        return;
    };
    let name = format!("{}/team/image", server.address());
    keeps_every_promise(open::repository(&name, Vec::new())).await;
    let chunked = |request: &String| request.starts_with("PATCH");
    assert!(!server.requests().iter().any(chunked));
}

#[tokio::test]
async fn a_conformant_registry_keeps_every_promise() {
    let Some(server) = ConformantRegistry::start() else {
        return;
    };
    let name = format!("{}/team/image", server.address());
    keeps_every_promise(open::repository(&name, Vec::new())).await;
}

#[tokio::test]
async fn a_damaged_blob_of_a_layout_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let name = format!("oci:{}", directory.path().display());
    let registry = open::repository(&name, Vec::new());
    let blob = blob("x", 1_000);
    registry.put_blob(&shared(blob.clone()), &[]).await.unwrap();
    let descriptor = blob.descriptor();
    let file = directory
        .path()
        .join("blobs/sha256")
        .join(descriptor.digest.hex());
    std::fs::write(&file, vec![b'y'; 1_000]).unwrap();
    let error = read_blob(&registry, descriptor).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
}

#[tokio::test]
async fn many_writers_of_one_layout_lose_no_tag() {
    let directory = tempfile::tempdir().unwrap();
    let name = format!("oci:{}", directory.path().display());
    let image = image(&["shared"]);
    let pushes = (0..16).map(|number| {
        let (name, image) = (&name, &image);
        async move {
            let registry = open::repository(name, Vec::new());
            let tags = [tag(&number.to_string())];
            push(&*registry, image, &tags, None, &Silent).await.unwrap();
        }
    });
    futures_util::future::join_all(pushes).await;
    let registry = open::repository(&name, Vec::new());
    for number in 0..16 {
        let name = ManifestName::Tag(tag(&number.to_string()));
        assert!(
            registry.manifest(&name).await.unwrap().is_some(),
            "{number}"
        );
    }
    let marker = std::fs::read_to_string(directory.path().join("oci-layout")).unwrap();
    assert_eq!(marker, r#"{"imageLayoutVersion":"1.0.0"}"#);
}
