//! What `--export-image-tar` writes, loaded and run by the engines that people have.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

use std::path::Path;
use std::process::Command;

#[path = "support/docker_engine.rs"]
#[allow(dead_code)]
mod docker_engine;
#[path = "support/forebay.rs"]
#[allow(dead_code)]
mod forebay_support;
#[path = "support/small_project.rs"]
mod small_project;

use docker_engine::DockerEngine;
use forebay_support::{Machine, installed};
use serde_json::Value;
use small_project::small_project;

const NAME: &str = "registry.test/team/small";
const PROGRAM: &str = "import small.jobs; print(small.jobs.run())";

/// Builds the project on a base with a real Python and exports it; gives the archive.
fn exported(project: &Path, base: &Path, compression: &str) -> std::path::PathBuf {
    small_project(project);
    let settings = format!(
        "[tool.forebay.environments.dev]\nbase = 'oci:{}:3.11'\n\
         [tool.forebay.image]\ncompression = '{compression}'\n",
        base.display()
    );
    std::fs::write(project.join("pyproject.toml"), settings).unwrap();
    let machine = Machine::new().with_python("/usr/bin/python3");
    let arguments = ["build-image", "-c", "dev", "-r", NAME, "--export-image-tar"];
    let built = machine.forebay_json(project, arguments);
    let archives = std::fs::read_dir(project.join(".image")).unwrap();
    let mut archives = archives.map(|entry| entry.unwrap().path());
    let archive = archives.next().unwrap();
    assert!(archives.next().is_none());
    // As an OCI archive it has the digest that was told.
    let raw = format!("oci-archive:{}", archive.display());
    let manifest = machine.run(project, "skopeo", ["inspect", "--raw", &raw]);
    let digest = forebay::oci::Sha256Digest::of(manifest.as_bytes()).to_string();
    assert_eq!(built["image"], digest);
    archive
}

/// The image's id, which every engine tells: the digest of its configuration.
fn id_of(archive: &Path) -> String {
    let raw = format!("oci-archive:{}", archive.display());
    let manifest = Machine::new().run(Path::new("/"), "skopeo", ["inspect", "--raw", &raw]);
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    manifest["config"]["digest"].as_str().unwrap().to_owned()
}

#[test]
fn docker_and_podman_load_and_run_what_is_exported() {
    let Some(base) = installed("FOREBAY_TEST_BASE_3_11") else {
        return;
    };
    let project = tempfile::tempdir().unwrap();
    let archive = exported(project.path(), &base, "splice");
    let file = archive.to_str().unwrap();
    let id = id_of(&archive);
    docker_runs_it(file, &id);
    podman_runs_it(file, &id);
}

/// podman unpacks every layer, and compares what is inside with the configuration.
#[test]
fn layers_that_are_compressed_anew_have_the_same_inside() {
    let Some(base) = installed("FOREBAY_TEST_BASE_3_11") else {
        return;
    };
    let read = |archive: &Path, how: &str| -> Value {
        let raw = format!("oci-archive:{}", archive.display());
        let text = Machine::new().run(Path::new("/"), "skopeo", ["inspect", how, &raw]);
        serde_json::from_str(&text).unwrap()
    };
    let mut ids = Vec::new();
    for (compression, media_type) in [
        ("splice", "application/vnd.oci.image.layer.v1.tar+gzip"),
        ("gzip", "application/vnd.oci.image.layer.v1.tar+gzip"),
        ("zstd", "application/vnd.oci.image.layer.v1.tar+zstd"),
    ] {
        let project = tempfile::tempdir().unwrap();
        let archive = exported(project.path(), &base, compression);
        let layers = read(&archive, "--raw")["layers"].clone();
        let last = layers.as_array().unwrap().last().unwrap().clone();
        assert_eq!(last["mediaType"], media_type);
        ids.push(read(&archive, "--config")["rootfs"].clone());
        if compression == "zstd" {
            podman_runs_it(archive.to_str().unwrap(), &id_of(&archive));
        }
    }
    // The project's own layer has the settings in it, which are not the same.
    let own = ids.iter().map(|id| {
        let id = id["diff_ids"].as_array().unwrap();
        id[..id.len() - 1].to_vec()
    });
    let own: Vec<_> = own.collect();
    assert!(own.iter().all(|id| *id == own[0]), "{ids:#?}");
}

fn docker_runs_it(file: &str, id: &str) {
    let Some(engine) = DockerEngine::start() else {
        return;
    };
    let loaded = engine.docker(&["load", "-i", file]);
    let name = loaded.rsplit(' ').next().unwrap();
    assert!(name.starts_with(&format!("{NAME}:")), "{loaded}");
    let known = engine.docker(&["image", "inspect", "--format", "{{.Id}}", name]);
    assert_eq!(known, id);
    let printed = engine.docker(&[
        "run",
        "--rm",
        "--network",
        "none",
        name,
        "python3",
        "-c",
        PROGRAM,
    ]);
    assert_eq!(printed, "42");
}

fn podman_runs_it(file: &str, id: &str) {
    let storage = tempfile::tempdir().unwrap();
    let podman = |arguments: &[&str]| {
        let output = Command::new("podman")
            .arg("--root")
            .arg(storage.path().join("root"))
            .arg("--runroot")
            .arg(storage.path().join("run"))
            .args(["--storage-driver", "vfs"])
            .args(["--cgroup-manager", "cgroupfs", "--runtime", "runc"])
            .args(arguments)
            .output()
            .expect("podman is needed");
        assert!(output.status.success(), "podman {arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let loaded = podman(&["load", "-i", file]);
    let name = loaded.rsplit(' ').next().unwrap();
    assert!(name.starts_with(&format!("{NAME}:")), "{loaded}");
    let known = podman(&["image", "inspect", "--format", "{{.Id}}", name]);
    assert_eq!(format!("sha256:{known}"), id);
    let printed = podman(&[
        "run",
        "--rm",
        "--network=none",
        "--ulimit",
        "nofile=1024:1024",
        "--ulimit",
        "nproc=1024:1024",
        name,
        "python3",
        "-c",
        PROGRAM,
    ]);
    assert_eq!(printed, "42");
}
