//! `forebay.lock`: a base that is pinned there is asked for no more, and stays what it was.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

#[path = "support/docker_registry.rs"]
#[allow(dead_code)]
mod docker_registry;
#[path = "support/forebay.rs"]
#[allow(dead_code)]
mod forebay_support;
#[path = "support/images.rs"]
#[allow(dead_code)]
mod images;
#[path = "support/open.rs"]
#[allow(dead_code)]
mod open;
#[path = "support/small_project.rs"]
mod small_project;

use std::sync::Arc;

use docker_registry::DockerRegistry;
use forebay::oci::{BlobSource as _, Sha256Digest, Tag};
use forebay::progress::Silent;
use forebay::registry::push;
use forebay_support::Machine;
use small_project::small_project;

/// Puts a base, as official images of Python describe themselves, under the tag `3.11`.
async fn put_base(registry: &DockerRegistry, seed: &str) -> Sha256Digest {
    let layer = images::blob(seed, 1_000);
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux",
        "config": {"Env": ["PATH=/usr/local/bin:/usr/bin:/bin", "PYTHON_VERSION=3.11.9"]},
        "rootfs": {"type": "layers", "diff_ids": [layer.descriptor().digest]},
    });
    let image = images::image_with(vec![Arc::new(layer)], &config);
    let repository = open::repository(&format!("{}/python", registry.address()), Vec::new());
    let tag: Tag = "3.11".parse().unwrap();
    push(&*repository, &image, &[tag], None, &Silent)
        .await
        .unwrap();
    image.manifest.descriptor.digest
}

#[test]
fn a_locked_base_is_not_asked_for_and_does_not_move() {
    let Some(registry) = DockerRegistry::start() else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let base = runtime.block_on(put_base(&registry, "a"));
    let project = tempfile::tempdir().unwrap();
    small_project(project.path());
    let dockerfile = project.path().join("Dockerfile");
    let text = std::fs::read_to_string(&dockerfile).unwrap();
    let name = format!("{}/python:3.11", registry.address());
    std::fs::write(&dockerfile, text.replace("scratch", &name)).unwrap();
    let seen = || registry.requests().len();
    let build = |machine: &Machine| {
        let arguments = ["build-image", "-c", "dev", "-r", "oci:images"];
        machine.forebay_json(project.path(), arguments)["image"].clone()
    };

    let machine = Machine::new();
    machine.forebay_json(project.path(), ["image", "lock"]);
    let lock = std::fs::read_to_string(project.path().join("forebay.lock")).unwrap();
    assert!(lock.contains(&base.to_string()), "{lock}");
    let before = seen();
    let image = build(&machine);
    assert_eq!(seen(), before, "{:#?}", registry.requests());

    // The tag moves; whoever has the lock, and nothing else, still gets the same image.
    runtime.block_on(put_base(&registry, "b"));
    let before = seen();
    assert_eq!(build(&Machine::new()), image);
    let asked = registry.requests()[before..].to_vec();
    assert!(!asked.is_empty());
    assert!(
        asked
            .iter()
            .all(|request| !request.contains("/manifests/3.11")),
        "{asked:#?}"
    );
}
