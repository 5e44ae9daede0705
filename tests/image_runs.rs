//! The image of `examples/hello`, read by an independent tool, does its work.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

use std::path::Path;

#[path = "support/docker_registry.rs"]
mod docker_registry;
#[path = "support/forebay.rs"]
mod forebay_support;

use docker_registry::DockerRegistry;
use forebay_support::{Machine, copy_folder, installed};

#[test]
fn the_image_runs_the_projects_jobs() {
    let Some(base) = installed("FOREBAY_TEST_BASE_3_11") else {
        return;
    };
    let Some(registry) = DockerRegistry::start() else {
        return;
    };
    let machine = Machine::new().with_python("/usr/bin/python3");
    let project = tempfile::tempdir().unwrap();
    let directory = project.path();
    copy_folder(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/hello"),
        directory,
    );
    machine.run(
        directory,
        "skopeo",
        [
            "--insecure-policy",
            "copy",
            "-q",
            "--dest-tls-verify=false",
            &format!("oci:{}:3.11", base.display()),
            &format!("docker://{}/base/python:3.11", registry.address()),
        ],
    );
    let dockerfile = directory.join("Dockerfile");
    let text = std::fs::read_to_string(&dockerfile).unwrap();
    let text = text.replace(
        "python:3.11-slim",
        &format!("{}/base/python:3.11", registry.address()),
    );
    std::fs::write(&dockerfile, text).unwrap();

    let repository = format!("{}/hello", registry.address());
    let deployed = machine.forebay_json(
        directory,
        [
            "deploy",
            "-c",
            "dev",
            "-r",
            &repository,
            "-b",
            "file://bucket",
        ],
    );
    let image = format!(
        "docker://{repository}@{}",
        deployed["image"].as_str().unwrap()
    );

    let work = tempfile::tempdir().unwrap();
    machine.run(
        work.path(),
        "skopeo",
        [
            "--insecure-policy",
            "copy",
            "-q",
            "--src-tls-verify=false",
            &image,
            "oci:pulled:hello",
        ],
    );
    machine.run(
        work.path(),
        "umoci",
        ["unpack", "--image", "pulled:hello", "bundle"],
    );
    let root = work.path().join("bundle/rootfs");
    let run = |job: &str| {
        machine.run(
            work.path(),
            "chroot",
            [
                root.to_str().unwrap(),
                "/usr/bin/python",
                "-m",
                "bigflow",
                "run",
                "--job",
                job,
                "--runtime",
                "2024-01-02 03:00:00",
                "--project-package",
                "hello",
                "--config",
                "dev",
            ],
        )
    };
    assert!(run("greeting.prepare").contains("preparing the greeting of 2024-01-02"));
    // The resource file is found from the installed package.
    assert!(run("greeting.greet").contains("Hello, world!"));
    assert!(run("cleanup.sweep").contains("sweeping what is older than 03:00"));
}
