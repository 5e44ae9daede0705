//! What a promotion costs, with the program itself: what one environment's repository has,
//! another's on the same registry mounts.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

use std::path::Path;

#[path = "support/docker_registry.rs"]
#[allow(dead_code)]
mod docker_registry;
#[path = "support/forebay.rs"]
#[allow(dead_code)]
mod forebay_support;
#[path = "support/small_project.rs"]
mod small_project;

use docker_registry::DockerRegistry;
use forebay_support::Machine;
use small_project::small_project;

#[test]
fn the_same_image_in_the_next_environment_is_mounted_and_not_sent() {
    let Some(registry) = DockerRegistry::start() else {
        return;
    };
    let (machine, project) = (Machine::new(), tempfile::tempdir().unwrap());
    small_project(project.path());
    let deploy = |environment: &str| {
        let before = registry.requests().len();
        let repository = format!("{}/team/{environment}", registry.address());
        let bucket = format!("file://.local/{environment}");
        let arguments = [
            "deploy-image",
            "-c",
            environment,
            "-r",
            &repository,
            "-b",
            &bucket,
        ];
        let deployed = machine.forebay_json(project.path(), arguments);
        let requests = registry.requests()[before..].to_vec();
        (deployed["image"].as_str().unwrap().to_owned(), requests)
    };
    let count = |requests: &[String], kind: &str| {
        let matching = requests.iter().filter(|request| request.starts_with(kind));
        matching.count()
    };

    let (image, first) = deploy("dev");
    let blobs = blobs_of(&machine, &registry, "dev", project.path());
    assert_eq!(blobs, 4, "{first:#?}");
    assert!(first.len() <= 3 * blobs + 2, "{first:#?}");

    let (promoted, requests) = deploy("prod");
    assert_eq!(promoted, image);
    // The question for the image, a mount for each blob, the manifest under two tags.
    assert_eq!(requests.len(), 1 + blobs + 2, "{requests:#?}");
    assert_eq!(count(&requests, "POST"), blobs, "{requests:#?}");
    assert_eq!(
        count(&requests, "PUT /v2/team/prod/manifests/"),
        2,
        "{requests:#?}"
    );
    assert!(requests.iter().all(|request| !request.ends_with("202")));

    // Again with something live: the next commit goes the same way.
    std::fs::write(
        project.path().join("small/jobs.py"),
        "def run():\n    return 43\n",
    )
    .unwrap();
    let (image, changed) = deploy("dev");
    // The live manifest, two blobs in two requests each, the manifest under two tags.
    assert_eq!(changed.len(), 1 + 2 * 2 + 2, "{changed:#?}");
    let (promoted, requests) = deploy("prod");
    assert_eq!(promoted, image);
    assert_eq!(requests.len(), 1 + 2 + 2, "{requests:#?}");
    assert_eq!(count(&requests, "POST"), 2, "{requests:#?}");
    // An independent reader finds all of it in the second repository.
    assert_eq!(blobs_of(&machine, &registry, "prod", project.path()), blobs);
}

#[test]
fn a_repository_that_was_emptied_is_no_obstacle() {
    let Some(registry) = DockerRegistry::start() else {
        return;
    };
    let (machine, project) = (Machine::new(), tempfile::tempdir().unwrap());
    small_project(project.path());
    let deploy = |environment: &str| {
        let repository = format!("{}/team/{environment}", registry.address());
        let bucket = format!("file://.local/{environment}");
        let arguments = [
            "deploy-image",
            "-c",
            environment,
            "-r",
            &repository,
            "-b",
            &bucket,
        ];
        machine.forebay_json(project.path(), arguments)
    };
    deploy("dev");
    let data = registry.data().join("docker/registry/v2");
    std::fs::remove_dir_all(data.join("repositories/team/dev")).unwrap();
    std::fs::remove_dir_all(data.join("blobs")).unwrap();
    deploy("prod");
    assert_eq!(blobs_of(&machine, &registry, "prod", project.path()), 4);
}

/// How many blobs skopeo copies of the environment's image.
fn blobs_of(machine: &Machine, registry: &DockerRegistry, environment: &str, work: &Path) -> usize {
    let repository = format!("{}/team/{environment}", registry.address());
    let tags = machine.run(
        work,
        "skopeo",
        [
            "list-tags",
            "--tls-verify=false",
            &format!("docker://{repository}"),
        ],
    );
    let tags: serde_json::Value = serde_json::from_str(&tags).unwrap();
    let tag = (tags["Tags"].as_array().unwrap().iter())
        .filter_map(|tag| tag.as_str())
        .filter(|tag| tag.starts_with("forebay-"))
        .max()
        .unwrap();
    let folder = tempfile::tempdir_in(work).unwrap();
    machine.run(
        work,
        "skopeo",
        [
            "--insecure-policy",
            "copy",
            "-q",
            "--src-tls-verify=false",
            &format!("docker://{repository}:{tag}"),
            &format!("dir:{}", folder.path().display()),
        ],
    );
    let files = std::fs::read_dir(folder.path()).unwrap();
    // Beside the blobs there are the manifest and a version.
    files.count() - 2
}
