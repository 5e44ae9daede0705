//! Pushes and pulls through a line on which things go wrong, judged by a reader of
//! other people.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/docker_registry.rs"]
#[allow(dead_code)]
mod docker_registry;
#[path = "support/faulty_proxy.rs"]
#[allow(dead_code)]
mod faulty_proxy;
#[path = "support/images.rs"]
#[allow(dead_code)]
mod images;
#[path = "support/open.rs"]
#[allow(dead_code)]
mod open;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use docker_registry::DockerRegistry;
use faulty_proxy::{Chance, FaultyProxy};
use forebay::http::{HttpClient, HttpOptions, RetryPolicy};
use forebay::oci::{Sha256Digest, Tag};
use forebay::progress::Silent;
use forebay::registry::{ImageToPush, ManifestName, OpenOptions, push};

fn hasty_client() -> HttpClient {
    HttpClient::new(&HttpOptions {
        retry: RetryPolicy {
            attempts: 6,
            base_delay: Duration::from_millis(1),
            max_delay: Duration::from_millis(20),
        },
        stall_timeout: Duration::from_millis(250),
        ..HttpOptions::default()
    })
    .unwrap()
}

fn image(number: usize) -> ImageToPush {
    // Three layers of its own, and one that all have.
    let mut seeds: Vec<_> = (0..3).map(|layer| format!("{number}-{layer}")).collect();
    seeds.push("common".to_owned());
    images::loadable_image(&seeds, 60_000)
}

/// Pushes `pushes` images, reads a layer of each back, and has all of them pulled.
async fn push_all(pushes: usize, one_in: u64) {
    let Some(server) = DockerRegistry::start() else {
        return;
    };
    let chance = Chance::one_in(one_in);
    let proxy = FaultyProxy::start(server.address(), Arc::clone(&chance) as _).await;
    let name = format!("{}/project", proxy.address());
    let options = OpenOptions::default();
    let http = hasty_client();
    let registry = open::try_repository(&name, &http, Vec::new(), &options).unwrap();
    let mut previous = None;
    for number in 0..pushes {
        let image = image(number);
        let tag: Tag = number.to_string().parse().unwrap();
        push(
            &*registry,
            &image,
            std::slice::from_ref(&tag),
            previous.as_ref(),
            &Silent,
        )
        .await
        .unwrap_or_else(|error| panic!("push {number}: {error:?}"));
        previous = Some(image.manifest.descriptor.digest);

        let pulled = registry.manifest(&ManifestName::Tag(tag)).await.unwrap();
        assert_eq!(pulled.unwrap().bytes, image.manifest.bytes);
        let descriptor = image.blobs[1].descriptor();
        let mut reader = registry.blob(descriptor).await.unwrap();
        let read =
            tokio::task::spawn_blocking(move || std::io::copy(&mut reader, &mut std::io::sink()));
        assert_eq!(read.await.unwrap().unwrap(), descriptor.size);
    }
    let (done, requests) = chance.done();
    assert_eq!(done.len(), Chance::KINDS, "{done:?} in {requests}");

    let folder = tempfile::tempdir().unwrap();
    let output = Command::new("skopeo")
        .args([
            "sync",
            "--src-tls-verify=false",
            "--src=docker",
            "--dest=dir",
        ])
        .arg(format!("{}/project", server.address()))
        .arg(folder.path())
        .output()
        .expect("skopeo is needed");
    assert!(output.status.success(), "{output:?}");
    for number in 0..pushes {
        let folder = folder.path().join(format!("project:{number}"));
        assert_is(&folder, &image(number));
    }
}

/// Compares what was pulled with what was pushed, byte for byte.
fn assert_is(folder: &Path, image: &ImageToPush) {
    let manifest = std::fs::read(folder.join("manifest.json")).unwrap();
    assert_eq!(manifest, image.manifest.bytes);
    for blob in &image.blobs {
        let digest = blob.descriptor().digest;
        let name = digest.to_string();
        let hex = name.strip_prefix("sha256:").unwrap();
        let bytes = std::fs::read(folder.join(hex)).unwrap();
        assert_eq!(Sha256Digest::of(&bytes), digest);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_pushes_on_a_line_with_one_fault_in_a_hundred() {
    push_all(200, 100).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pushes_on_a_line_with_one_fault_in_ten() {
    push_all(20, 10).await;
}
