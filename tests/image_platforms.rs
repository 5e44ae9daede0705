//! Images for several platforms: one index that is pushed, tagged, deployed, exported and
//! brought back as any image, with each platform's own wheels inside.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

use std::fs;
use std::path::{Path, PathBuf};

#[path = "support/docker_registry.rs"]
#[allow(dead_code)]
mod docker_registry;
#[path = "support/forebay.rs"]
#[allow(dead_code)]
mod forebay_support;

use docker_registry::DockerRegistry;
use forebay::oci::Sha256Digest;
use forebay_support::{Machine, copy_folder, installed};
use serde_json::{Value, json};

const BOTH: &str = "linux/arm64,linux/amd64";

/// Puts beside the base `3.11` one that says it is for arm64, and an index `both` of the two.
fn add_index(machine: &Machine, layout: &Path) {
    let directory = layout.parent().unwrap();
    let name = layout.file_name().unwrap().to_str().unwrap();
    let images = [format!("{name}:3.11"), "arm64".to_owned()];
    machine.run(
        directory,
        "umoci",
        [
            "config",
            "--image",
            &images[0],
            "--tag",
            &images[1],
            "--architecture",
            "arm64",
        ],
    );
    let path = layout.join("index.json");
    let mut index: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let entries = index["manifests"].as_array_mut().unwrap();
    let part = |entries: &[Value], tag: &str, architecture: &str| {
        let named = |entry: &&Value| {
            entry["annotations"]["org.opencontainers.image.ref.name"].as_str() == Some(tag)
        };
        let entry = entries.iter().find(named).unwrap();
        json!({
            "mediaType": entry["mediaType"], "digest": entry["digest"], "size": entry["size"],
            "platform": {"os": "linux", "architecture": architecture},
        })
    };
    let both = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [
            // What builders say about an image is for no platform.
            {"mediaType": "application/vnd.oci.image.manifest.v1+json", "size": 2,
             "digest": Sha256Digest::of(b"{}").to_string(),
             "platform": {"os": "unknown", "architecture": "unknown"}},
            part(entries, "3.11", "amd64"),
            part(entries, "arm64", "arm64"),
        ],
    });
    let bytes = serde_json::to_vec(&both).unwrap();
    let digest = Sha256Digest::of(&bytes);
    fs::write(layout.join("blobs/sha256").join(digest.hex()), &bytes).unwrap();
    entries.push(json!({
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "digest": digest.to_string(), "size": bytes.len(),
        "annotations": {"org.opencontainers.image.ref.name": "both"},
    }));
    fs::write(&path, serde_json::to_vec(&index).unwrap()).unwrap();
}

struct Scene {
    machine: Machine,
    root: tempfile::TempDir,
}

impl Scene {
    /// The example on a base for both platforms, with a requirement that has machine code.
    fn new() -> Option<Self> {
        let base = installed("FOREBAY_TEST_BASE_3_11")?;
        let python = installed("FOREBAY_TEST_BIGFLOW_PYTHON")?;
        let uv = installed("FOREBAY_TEST_UV")?;
        let path = std::env::var("PATH").unwrap();
        let path = format!("{}:{path}", uv.parent().unwrap().display());
        let machine = Machine::new()
            .with_python(python)
            .with_variable("PATH", &path);
        let root = tempfile::tempdir().unwrap();
        let scene = Self { machine, root };
        copy_folder(&base, &scene.layout());
        add_index(&scene.machine, &scene.layout());
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/hello");
        copy_folder(&example, &scene.project());
        scene.write(
            "resources/requirements.txt",
            "six==1.16.0\nMarkupSafe==2.1.5\n",
        );
        scene.base("both");
        Some(scene)
    }

    fn layout(&self) -> PathBuf {
        self.root.path().join("base")
    }

    fn project(&self) -> PathBuf {
        self.root.path().join("project")
    }

    fn write(&self, path: &str, text: &str) {
        fs::write(self.project().join(path), text).unwrap();
    }

    /// Puts the project on this base.
    fn base(&self, tag: &str) {
        let base = self.layout().display().to_string();
        let settings = format!("[tool.forebay.environments.dev]\nbase = \"oci:{base}:{tag}\"\n");
        self.write("pyproject.toml", &settings);
    }

    fn build(&self, arguments: &[&str]) -> Value {
        let arguments = [&["build-image", "-c", "dev"], arguments].concat();
        self.machine.forebay_json(&self.project(), arguments)
    }

    fn skopeo(&self, arguments: &[&str]) -> String {
        self.machine
            .run(self.root.path(), "skopeo", arguments.iter().copied())
    }

    /// The names of MarkupSafe's compiled modules in the image for one processor.
    fn compiled(&self, from: &str, architecture: &str) -> Vec<String> {
        let work = tempfile::tempdir_in(self.root.path()).unwrap();
        let to = format!("oci:{}:x", work.path().join("image").display());
        let override_arch = format!("--override-arch={architecture}");
        self.skopeo(&[
            "--insecure-policy",
            &override_arch,
            "copy",
            "-q",
            "--src-tls-verify=false",
            from,
            &to,
        ]);
        self.machine.run(
            work.path(),
            "umoci",
            ["unpack", "--image", "image:x", "bundle"],
        );
        let package = "bundle/rootfs/usr/local/lib/python3.11/dist-packages/markupsafe";
        let files = fs::read_dir(work.path().join(package)).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(".so")).collect()
    }
}

#[test]
fn an_index_is_deployed_and_brought_back_like_an_image() {
    let Some(scene) = Scene::new() else { return };
    let Some(registry) = DockerRegistry::start() else {
        return;
    };
    let repository = format!("{}/team/hello", registry.address());
    let command = |arguments: &[&str]| {
        let before = registry.requests().len();
        let place = ["-c", "dev", "-r", &repository, "-b", "file://.local/bucket"];
        let document = scene
            .machine
            .forebay_json(&scene.project(), [arguments, place.as_slice()].concat());
        (document, registry.requests()[before..].to_vec())
    };
    let deploy = || command(&["deploy", "--platform", BOTH]);
    let puts = |requests: &[String], part: &str| {
        let put = |request: &&String| request.starts_with("PUT") && request.contains(part);
        requests.iter().filter(put).count()
    };
    let raw = |name: &str| {
        scene.skopeo(&[
            "inspect",
            "--raw",
            "--tls-verify=false",
            &format!("docker://{name}"),
        ])
    };

    let (first, requests) = deploy();
    let image = first["image"].as_str().unwrap().to_owned();
    let text = raw(&format!("{repository}@{image}"));
    assert_eq!(Sha256Digest::of(text.as_bytes()).to_string(), image);
    let index: Value = serde_json::from_str(&text).unwrap();
    let platforms: Vec<&str> = (index["manifests"].as_array().unwrap().iter())
        .map(|entry| entry["platform"]["architecture"].as_str().unwrap())
        .collect();
    assert_eq!(platforms, ["amd64", "arm64"]);
    // Two images, and the index under the version's tag and the generation's.
    assert_eq!(puts(&requests, "/manifests/"), 4, "{requests:#?}");
    let dags = scene.project().join(".local/bucket/dags");
    for dag in fs::read_dir(dags).unwrap() {
        let text = fs::read_to_string(dag.unwrap().path()).unwrap();
        assert!(text.contains(&format!("{repository}@{image}")), "{text}");
    }
    let from = format!("docker://{repository}@{image}");
    let compiled = |architecture| scene.compiled(&from, architecture);
    assert_eq!(
        compiled("amd64"),
        ["_speedups.cpython-311-x86_64-linux-gnu.so"]
    );
    assert_eq!(
        compiled("arm64"),
        ["_speedups.cpython-311-aarch64-linux-gnu.so"]
    );

    let (_, requests) = deploy();
    assert_eq!(requests.len(), 1, "{requests:#?}");

    // The project's layer is the same for both.
    let module = scene.project().join("hello/cleanup.py");
    let text = fs::read_to_string(&module).unwrap();
    fs::write(&module, format!("{text}# changed\n")).unwrap();
    let (second, requests) = deploy();
    assert_ne!(second["image"], image.as_str());
    assert_eq!(puts(&requests, "/blobs/"), 1 + 2, "{requests:#?}");
    assert_eq!(puts(&requests, "/manifests/"), 4, "{requests:#?}");

    // A rollback sends nothing, unless the registry has lost the image.
    let (_, requests) = command(&["rollback"]);
    assert_eq!(puts(&requests, ""), 0, "{requests:#?}");
    let (status, _) = command(&["status"]);
    assert_eq!(status["image"], image.as_str());
    command(&["rollback", "2"]);
    let repositories = registry.data().join("docker/registry/v2/repositories");
    fs::remove_dir_all(repositories.join("team/hello")).unwrap();
    let (_, requests) = command(&["rollback", "1"]);
    assert_eq!(puts(&requests, "/manifests/"), 4, "{requests:#?}");
    assert_eq!(
        raw(&format!("{repository}@{image}")).len(),
        index_size(&index)
    );
}

fn index_size(index: &Value) -> usize {
    // The members stand in the document as they are written: no blanks.
    serde_json::to_vec(index).unwrap().len()
}

#[test]
fn the_order_of_platforms_is_no_content_and_one_platform_has_no_index() {
    let Some(scene) = Scene::new() else { return };
    let settings = scene.project().join("pyproject.toml");
    let text = fs::read_to_string(&settings).unwrap();
    let platforms = "[tool.forebay.image]\nplatforms = [\"linux/amd64\", \"linux/arm64\"]\n";
    fs::write(&settings, format!("{text}{platforms}")).unwrap();
    // The command line goes before the settings.
    let alone = scene.build(&["--platform", "linux/amd64"]);
    assert!(alone.get("platforms").is_none());
    let index = scene.build(&["--export-image-tar", "-r", "registry.test/hello", "--check"]);
    assert_eq!(index["platforms"]["linux/amd64"], alone["image"]);
    assert_eq!(scene.build(&["--platform", BOTH])["image"], index["image"]);
    let arm = scene.build(&["--platform", "linux/arm64"]);
    assert_eq!(arm["image"], index["platforms"]["linux/arm64"]);
    let lock = fs::read_to_string(scene.project().join("forebay.lock")).unwrap();
    for line in ["platform = \"linux/amd64\"", "platform = \"linux/arm64\""] {
        // The base and the requirements.
        assert_eq!(lock.matches(line).count(), 2, "{lock}");
    }
    assert!(
        lock.contains("aarch64.whl") && lock.contains("x86_64.whl"),
        "{lock}"
    );

    let plan = scene
        .machine
        .forebay(&scene.project(), ["image", "plan", "-c", "dev"]);
    assert_eq!(plan.status, 0, "{}", plan.stderr);
    for expected in [
        "linux/amd64\n",
        "linux/arm64\n",
        "(from the environment's settings)",
        "the environment's settings put oci:",
    ] {
        assert!(plan.stdout.contains(expected), "{}", plan.stdout);
    }

    // The file is the index for readers of OCI archives.
    let file = scene.project().join(index["image_tar"].as_str().unwrap());
    let archive = format!("oci-archive:{}", file.display());
    assert_eq!(
        scene.compiled(&archive, "arm64"),
        ["_speedups.cpython-311-aarch64-linux-gnu.so"]
    );
    // Saved, it is deployed whole.
    let place = format!("oci:{}", scene.root.path().join("deployed").display());
    let path = file.display().to_string();
    let bucket = "file://.local/bucket";
    let arguments = [
        "deploy-image",
        "-c",
        "dev",
        "-r",
        &place,
        "-b",
        bucket,
        "-i",
        &path,
    ];
    let deployed = scene.machine.forebay_json(&scene.project(), arguments);
    assert_eq!(deployed["image"], index["image"]);
}

#[test]
fn what_a_platform_lacks_is_named_with_the_platform() {
    let Some(scene) = Scene::new() else { return };
    let refused = |arguments: &[&str], status: i32| {
        let arguments = [&["build-image", "-c", "dev"], arguments].concat();
        let finished = scene.machine.forebay(&scene.project(), arguments);
        assert_eq!(finished.status, status, "{}", finished.stderr);
        finished.stderr
    };
    // It has code in C, and no wheel.
    scene.write("resources/requirements.txt", "six==1.16.0\ncrcmod==1.7\n");
    let error = refused(&["--platform", BOTH], 1);
    assert!(
        error.contains("linux/arm64") && error.contains("crcmod"),
        "{error}"
    );
    // A base that is there for one platform only.
    scene.write("resources/requirements.txt", "six==1.16.0\n");
    scene.base("3.11");
    let error = refused(&["--platform", BOTH], 1);
    assert!(
        error.contains("it is made for linux/amd64") && error.contains("linux/arm64"),
        "{error}"
    );
    let error = refused(&["--platform", "windows/amd64"], 2);
    assert!(
        error.contains("linux/amd64 and linux/arm64 are known"),
        "{error}"
    );
}
