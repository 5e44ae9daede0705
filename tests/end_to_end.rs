//! A project made by BigFlow's own scaffold goes to a real registry and a
//! storage emulator, changes, and comes back. What happened is asserted from the
//! servers' side: access log, listings, independent readers of images.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

#[path = "support/docker_registry.rs"]
mod docker_registry;
#[path = "support/emulator.rs"]
#[allow(dead_code)]
mod emulator;
#[path = "support/forebay.rs"]
#[allow(dead_code)]
mod forebay_support;

use docker_registry::DockerRegistry;
use emulator::Emulator;
use forebay_support::{Machine, copy_folder, installed};

const BUCKET: &str = "composer-bucket";
const COMPOSERS_OWN: &str = "dags/airflow_monitoring.py";
const FOREIGN: &str = "dags/somebody_elses_dag.py";

/// The servers, and the scaffold's project in a git repository of its own.
struct Scene {
    registry: DockerRegistry,
    bucket: BucketView,
    machine: Machine,
    project: tempfile::TempDir,
}

/// The bucket as an independent client sees it.
struct BucketView {
    emulator: Emulator,
    runtime: tokio::runtime::Runtime,
}

impl BucketView {
    fn start() -> Option<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let emulator = runtime.block_on(Emulator::start())?;
        runtime.block_on(emulator.create_bucket(BUCKET));
        Some(Self { emulator, runtime })
    }

    fn request(&self, method: http::Method, path: &str, body: &'static str) -> bytes::Bytes {
        let url = format!("http://{}{path}", self.emulator.address);
        let http = forebay::http::HttpClient::new(&Default::default()).unwrap();
        self.runtime.block_on(async {
            let answer = http
                .request(method, url.parse().unwrap())
                .body(body)
                .send()
                .await
                .unwrap();
            assert!(answer.status().is_success(), "{path}: {}", answer.status());
            answer.bytes().await.unwrap()
        })
    }

    fn upload(&self, key: &str, body: &'static str) {
        let path = format!("/upload/storage/v1/b/{BUCKET}/o?uploadType=media&name={key}");
        self.request(http::Method::POST, &path, body);
    }

    /// Every key with the number of its last write.
    fn generations(&self) -> BTreeMap<String, String> {
        let listing = self.request(http::Method::GET, &format!("/storage/v1/b/{BUCKET}/o"), "");
        let listing: Value = serde_json::from_slice(&listing).unwrap();
        assert!(listing.get("nextPageToken").is_none_or(|token| token == ""));
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        listing["items"]
            .as_array()
            .unwrap_or(&Vec::new())
            .iter()
            .map(|item| (text(&item["name"]), text(&item["generation"])))
            .collect()
    }

    /// Every file in `dags/` with its bytes.
    fn dags(&self) -> BTreeMap<String, bytes::Bytes> {
        let keys = self.generations().into_keys();
        keys.filter(|key| key.starts_with("dags/"))
            .map(|key| {
                let path = format!(
                    "/storage/v1/b/{BUCKET}/o/{}?alt=media",
                    key.replace('/', "%2F").replace('+', "%2B")
                );
                let bytes = self.request(http::Method::GET, &path, "");
                (key, bytes)
            })
            .collect()
    }
}

fn replace_in(path: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{} has no {from:?}", path.display());
    std::fs::write(path, text.replace(from, to)).unwrap();
}

fn commit_all(machine: &Machine, project: &Path, message: &str) {
    machine.run(project, "git", ["add", "-A"]);
    machine.run(project, "git", ["commit", "-q", "-m", message]);
}

/// Copies an image of an OCI layout into the registry with an independent client.
fn push_base(machine: &Machine, layout: &Path, tag: &str, registry: &DockerRegistry) {
    machine.run(
        layout,
        "skopeo",
        [
            "--insecure-policy",
            "copy",
            "-q",
            "--dest-tls-verify=false",
            &format!("oci:{}:{tag}", layout.display()),
            &format!("docker://{}/base/python:{tag}", registry.address()),
        ],
    );
}

impl Scene {
    fn new() -> Option<Self> {
        let scaffold = installed("FOREBAY_TEST_SCAFFOLD")?;
        let python = installed("FOREBAY_TEST_SCAFFOLD_PYTHON")?;
        let base = installed("FOREBAY_TEST_BASE_3_9")?;
        let registry = DockerRegistry::start()?;
        let bucket = BucketView::start()?;
        bucket.upload(COMPOSERS_OWN, "composer's own");
        bucket.upload(FOREIGN, "another team's");
        let machine = Machine::new()
            .with_python(python)
            .with_variable("STORAGE_EMULATOR_HOST", &bucket.emulator.address);
        push_base(&machine, &base, "3.9", &registry);

        // Changed in nothing but base image, repository and bucket.
        let project = tempfile::tempdir().unwrap();
        let directory = project.path();
        copy_folder(&scaffold, directory);
        let address = registry.address();
        replace_in(
            &directory.join("Dockerfile"),
            "python:3.7.9-slim-buster",
            &format!("{address}/base/python:3.9"),
        );
        let config = directory.join("deployment_config.py");
        replace_in(&config, "test_repository", &format!("{address}/team/flow"));
        replace_in(&config, "my-composer", BUCKET);
        machine.run(directory, "git", ["init", "-q"]);
        commit_all(&machine, directory, "The scaffold");
        Some(Self {
            registry,
            bucket,
            machine,
            project,
        })
    }

    fn forebay_json<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Value {
        self.machine.forebay_json(self.project.path(), arguments)
    }

    /// The registry's requests that `work` causes.
    fn registry_requests<T>(&self, work: impl FnOnce() -> T) -> (T, Vec<String>) {
        let before = self.registry.requests().len();
        let result = work();
        (result, self.registry.requests().split_off(before))
    }

    fn can_be_pulled(&self, image: &str) -> bool {
        let target = tempfile::tempdir().unwrap();
        let output = self
            .machine
            .command("skopeo", target.path())
            .args(["--insecure-policy", "copy", "-q", "--src-tls-verify=false"])
            .arg(format!("docker://{image}"))
            .arg(format!("oci:{}:pulled", target.path().display()))
            .output()
            .unwrap();
        output.status.success()
    }
}

#[test]
fn a_project_is_deployed_changed_and_rolled_back() {
    let Some(scene) = Scene::new() else { return };
    let repository = format!("{}/team/flow", scene.registry.address());

    let built = scene.forebay_json(["build", "-c", "dev"]);
    let commit = scene
        .machine
        .run(scene.project.path(), "git", ["rev-parse", "HEAD"]);
    assert_eq!(built["version"], format!("0+g{}", &commit[..12]).as_str());
    assert_eq!(built["dags"].as_object().unwrap().len(), 2);
    let first_image = built["image"].as_str().unwrap().to_owned();

    // The first deploy puts everything there, and touches nobody else's files.
    let foreign = scene.bucket.generations();
    let deployed = scene.forebay_json(["deploy", "-c", "dev"]);
    assert_eq!(deployed["generation"], 1);
    assert_eq!(deployed["image"], first_image.as_str());
    let first_dags = scene.bucket.dags();
    assert_eq!(first_dags.len(), 2 + foreign.len());
    for (name, bytes) in &first_dags {
        let text = String::from_utf8_lossy(bytes);
        let ours = !foreign.contains_key(name);
        assert_eq!(
            text.contains(&format!("{repository}@{first_image}")),
            ours,
            "{name}"
        );
    }
    assert!(scene.can_be_pulled(&format!("{repository}@{first_image}")));
    assert!(scene.can_be_pulled(&format!("{repository}:0-g{}", &commit[..12])));

    // Again: one request to the registry, no write anywhere.
    let before = scene.bucket.generations();
    let (again, requests) = scene.registry_requests(|| scene.forebay_json(["deploy", "-c", "dev"]));
    assert_eq!(again["generation"], 1);
    assert_eq!(again["changed"], false);
    assert_eq!(requests.len(), 1, "{requests:#?}");
    assert!(
        requests[0].starts_with("HEAD /v2/team/flow/manifests/"),
        "{requests:#?}"
    );
    assert_eq!(scene.bucket.generations(), before);

    // A commit that changes no source makes a new version and nothing else.
    std::fs::write(scene.project.path().join("NOTES.md"), "A remark.\n").unwrap();
    commit_all(&scene.machine, scene.project.path(), "A remark");
    let (remark, _) = scene.registry_requests(|| scene.forebay_json(["deploy", "-c", "dev"]));
    assert_eq!(remark["changed"], false);
    assert_eq!(scene.bucket.generations(), before);

    // One line: one layer, one configuration, one manifest, the DAG files that name them.
    let processing = scene.project.path().join("flow/wordcount/processing.py");
    let text = std::fs::read_to_string(&processing).unwrap();
    std::fs::write(&processing, text + "\n# One more line.\n").unwrap();
    commit_all(&scene.machine, scene.project.path(), "One line");
    let (changed, requests) =
        scene.registry_requests(|| scene.forebay_json(["deploy", "-c", "dev"]));
    assert_eq!(changed["generation"], 2);
    assert_eq!(changed["changed"], true);
    let second_image = changed["image"].as_str().unwrap();
    assert_ne!(second_image, first_image);
    let puts = |what: &str| {
        let of = |line: &&String| line.starts_with("PUT ") && line.contains(what);
        requests.iter().filter(of).count()
    };
    assert_eq!(puts("/blobs/uploads/"), 2, "{requests:#?}");
    assert!(
        !requests.iter().any(|line| line.starts_with("PATCH")),
        "{requests:#?}"
    );
    // The version's tag and the retention tag.
    assert_eq!(puts("/manifests/"), 2, "{requests:#?}");
    let second_dags = scene.bucket.dags();
    assert_eq!(second_dags.len(), first_dags.len());
    for (key, bytes) in &second_dags {
        let text = String::from_utf8_lossy(bytes);
        assert_eq!(
            text.contains(second_image),
            !foreign.contains_key(key),
            "{key}"
        );
    }

    // Back: exactly the first set, and its image is there.
    let (back, requests) =
        scene.registry_requests(|| scene.forebay_json(["rollback", "-c", "dev"]));
    assert_eq!(back["generation"], 3);
    assert_eq!(back["rollback_of"], 1);
    assert_eq!(back["image"], first_image.as_str());
    assert!(
        !requests.iter().any(|line| line.contains("/blobs/")),
        "{requests:#?}"
    );
    assert_eq!(scene.bucket.dags(), first_dags);
    assert!(scene.can_be_pulled(&format!("{repository}@{first_image}")));

    // What happened can be told, and nobody else's file was written.
    let status = scene.forebay_json(["status", "-c", "dev"]);
    assert_eq!(status["environment"], "dev");
    assert_eq!(status["generation"], 3);
    assert_eq!(status["state"], "committed");
    assert_eq!(status["image"], first_image.as_str());
    assert_eq!(status["dags"].as_object().unwrap().len(), 2);
    assert_eq!(status["drift"], Value::Array(Vec::new()));
    let history = scene.forebay_json(["history", "-c", "dev"]);
    let generations: Vec<_> = history["generations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|generation| generation["generation"].as_u64().unwrap())
        .collect();
    assert_eq!(generations, [3, 2, 1]);
    let now = scene.bucket.generations();
    for (key, generation) in &foreign {
        assert_eq!(now.get(key), Some(generation), "{key}");
    }
}

#[test]
fn any_machine_can_roll_back() {
    let Some(scene) = Scene::new() else { return };
    scene.forebay_json(["deploy", "-c", "dev"]);
    let first_dags = scene.bucket.dags();
    let processing = scene.project.path().join("flow/wordcount/processing.py");
    let text = std::fs::read_to_string(&processing).unwrap();
    std::fs::write(&processing, text + "\n# One more line.\n").unwrap();
    commit_all(&scene.machine, scene.project.path(), "One line");
    scene.forebay_json(["deploy", "-c", "dev"]);
    assert_ne!(scene.bucket.dags(), first_dags);

    let other =
        Machine::new().with_variable("STORAGE_EMULATOR_HOST", &scene.bucket.emulator.address);
    let back = other.forebay_json(scene.project.path(), ["rollback", "-c", "dev"]);
    assert_eq!(back["rollback_of"], 1);
    assert_eq!(scene.bucket.dags(), first_dags);
}

#[test]
fn dag_files_equal_bigflows() {
    let Some(scene) = Scene::new() else { return };
    let project = scene.project.path();
    let python = installed("FOREBAY_TEST_SCAFFOLD_PYTHON").unwrap();
    let start_time = "2024-02-29 13:00:00";

    // BigFlow calls the `python` that it finds on PATH.
    let path = std::env::var("PATH").unwrap();
    let path = format!("{}:{path}", python.parent().unwrap().display());
    let oracle = Machine::new().with_variable("PATH", &path);
    oracle.run(
        project,
        &python,
        ["-m", "bigflow", "build-dags", "--start-time", start_time],
    );
    let read_dags = || -> BTreeMap<_, _> {
        std::fs::read_dir(project.join(".dags"))
            .unwrap()
            .map(|entry| {
                let path = entry.unwrap().path();
                (
                    path.file_name().unwrap().to_owned(),
                    std::fs::read_to_string(path).unwrap(),
                )
            })
            .collect()
    };
    let expected = read_dags();
    std::fs::remove_dir_all(project.join(".dags")).unwrap();

    scene.forebay_json([
        "build-dags",
        "-c",
        "dev",
        "--dag-format",
        "bigflow-1.11",
        "--start-time",
        start_time,
    ]);
    assert_eq!(read_dags(), expected);
    assert_eq!(expected.len(), 3);
}

#[test]
fn the_image_becomes_a_file_only_when_asked_for() {
    let Some(scene) = Scene::new() else { return };
    let folder = scene.project.path().join(".image");
    let built = scene.forebay_json(["build-image", "-c", "dev", "--no-export-image-tar"]);
    assert!(!folder.exists());

    let exported = scene.forebay_json(["build-image", "-c", "dev", "--export-image-tar"]);
    assert_eq!(exported["image"], built["image"]);
    let version = built["version"].as_str().unwrap();
    let file = folder.join(format!("image-{version}.tar"));
    assert_eq!(exported["image_tar"], file.to_str().unwrap());
    // Loaders compare every layer, the base's too, with the configuration.
    let (copied, file) = (tempfile::tempdir().unwrap(), file.display());
    for (source, target) in [("docker-archive", "dir"), ("oci-archive", "oci")] {
        let source = format!("{source}:{file}");
        let target = format!("{target}:{}", copied.path().join(target).display());
        let arguments = ["--insecure-policy", "copy", "-q", &source, &target];
        scene.machine.run(copied.path(), "skopeo", arguments);
    }
}
