//! How much memory large images take, measured by the kernel in a process of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
// How a process of its own tells the test what it found.
#![allow(clippy::print_stdout)]
#![cfg(target_os = "linux")]

#[path = "support/docker_registry.rs"]
#[allow(dead_code)]
mod docker_registry;
#[path = "support/images.rs"]
#[allow(dead_code)]
mod images;
#[path = "support/large.rs"]
mod large;
#[path = "support/open.rs"]
#[allow(dead_code)]
mod open;

use std::process::Command;
use std::sync::Arc;

use docker_registry::DockerRegistry;
use forebay::oci::BlobSource;
use forebay::progress::Silent;
use forebay::registry::{Registry, push};
use large::LargeBlob;

/// 64 MiB, as the kernel counts: in KiB.
const LIMIT: u64 = 64 << 10;
const VARIABLE: &str = "FOREBAY_TEST_MEMORY_REPOSITORY";

/// The most memory that this process has had, in KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let number = line.unwrap().split_whitespace().nth(1).unwrap();
    number.parse().unwrap()
}

/// What the process of its own does: pushes 300 MB in one blob, 300 MB in four at
/// the same time, and reads all of it back, four blobs at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "runs in a process of its own, for the other test"]
async fn push_and_pull() {
    let name = std::env::var(VARIABLE).unwrap();
    let registry = open::repository(&name, Vec::new());
    for sizes in [&[300_000_000][..], &[75_000_000; 4]] {
        let blobs: Vec<Arc<dyn BlobSource>> = (sizes.iter().zip(1..))
            .map(|(size, seed)| Arc::new(LargeBlob::new(seed, *size)) as Arc<dyn BlobSource>)
            .collect();
        let image = images::image_with(blobs.clone(), &serde_json::json!({}));
        push(&*registry, &image, &[], None, &Silent).await.unwrap();
        let reads = blobs.iter().map(|blob| read(&*registry, blob));
        futures_util::future::join_all(reads).await;
    }
    println!("PEAK {}", peak());
}

async fn read(registry: &dyn Registry, blob: &Arc<dyn BlobSource>) {
    let mut reader = registry.blob(blob.descriptor()).await.unwrap();
    let copied =
        tokio::task::spawn_blocking(move || std::io::copy(&mut reader, &mut std::io::sink()));
    assert_eq!(copied.await.unwrap().unwrap(), blob.descriptor().size);
}

#[test]
fn large_images_take_little_memory() {
    let Some(server) = DockerRegistry::start() else {
        return;
    };
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "push_and_pull", "--ignored", "--nocapture"])
        .env(VARIABLE, format!("{}/project", server.address()))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{errors}");
    let (_, rest) = text.split_once("PEAK ").unwrap();
    let peak: u64 = rest.split_whitespace().next().unwrap().parse().unwrap();
    assert!(peak < LIMIT, "{peak} KiB");
}
