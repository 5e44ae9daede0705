//! Images that others have built and saved, deployed without any engine.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

use std::path::Path;

#[path = "support/docker_engine.rs"]
mod docker_engine;
#[path = "support/docker_registry.rs"]
#[allow(dead_code)]
mod docker_registry;
#[path = "support/forebay.rs"]
#[allow(dead_code)]
mod forebay_support;
#[path = "support/small_project.rs"]
mod small_project;

use docker_engine::DockerEngine;
use docker_registry::DockerRegistry;
use forebay::oci::Sha256Digest;
use forebay_support::{Finished, Machine, installed};
use serde_json::Value;
use small_project::small_project;

/// A machine with a project, in front of a registry.
struct Scene {
    machine: Machine,
    project: tempfile::TempDir,
    registry: DockerRegistry,
}

impl Scene {
    fn new() -> Option<Self> {
        let project = tempfile::tempdir().unwrap();
        small_project(project.path());
        Some(Self {
            machine: Machine::new(),
            project,
            registry: DockerRegistry::start()?,
        })
    }

    fn repository(&self) -> String {
        format!("{}/team/small", self.registry.address())
    }

    fn path(&self) -> &Path {
        self.project.path()
    }

    fn arguments(&self, command: &str, image: &str) -> Vec<String> {
        let repository = self.repository();
        [
            command,
            "-c",
            "dev",
            "-b",
            "file://.local",
            "-r",
            &repository,
            "-i",
            image,
        ]
        .map(str::to_owned)
        .to_vec()
    }

    fn deploy_image(&self, image: &str) -> String {
        let deployed = self
            .machine
            .forebay_json(self.path(), self.arguments("deploy-image", image));
        deployed["image"].as_str().unwrap().to_owned()
    }

    fn fails(&self, command: &str, image: &str) -> Finished {
        let finished = self
            .machine
            .forebay(self.path(), self.arguments(command, image));
        assert_ne!(finished.status, 0, "{}", finished.stdout);
        finished
    }

    fn skopeo(&self, arguments: &[&str]) -> String {
        let common = ["--insecure-policy"].into_iter();
        self.machine.run(
            self.path(),
            "skopeo",
            common.chain(arguments.iter().copied()),
        )
    }

    /// The manifest under a digest, read by somebody else.
    fn manifest(&self, digest: &str) -> Value {
        let image = format!("docker://{}@{digest}", self.repository());
        let raw = self.skopeo(&["inspect", "--raw", "--tls-verify=false", &image]);
        assert_eq!(Sha256Digest::of(raw.as_bytes()).to_string(), digest);
        serde_json::from_str(&raw).unwrap()
    }

    /// Unpacks the image with a tool that compares every layer with the configuration.
    fn unpacked(&self, digest: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let image = format!("docker://{}@{digest}", self.repository());
        let layout = folder.path().join("layout");
        let copy = format!("oci:{}:x", layout.display());
        self.skopeo(&["copy", "-q", "--src-tls-verify=false", &image, &copy]);
        let image = format!("{}:x", layout.display());
        self.machine.run(
            folder.path(),
            "umoci",
            ["unpack", "--image", &image, "bundle"],
        );
        folder
    }
}

/// Builds an image of four layers, two of which are the same, and gives its id.
fn built(engine: &DockerEngine) -> String {
    let folder = engine.directory().join("context");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("a"), "a".repeat(100_000)).unwrap();
    std::fs::write(folder.join("b"), "b".repeat(100_000)).unwrap();
    let dockerfile = "FROM scratch\nCOPY a /a\nCOPY b /b\nCOPY a /a\nCMD [\"/a\"]\n";
    std::fs::write(folder.join("Dockerfile"), dockerfile).unwrap();
    engine.docker(&["build", "-q", folder.to_str().unwrap()])
}

#[test]
fn what_docker_saves_is_deployed_without_docker() {
    let (Some(scene), Some(engine)) = (Scene::new(), DockerEngine::start()) else {
        return;
    };
    let id = built(&engine);
    // As BigFlow does it: by the id.
    let images = scene.path().join(".image");
    std::fs::create_dir(&images).unwrap();
    let saved = images.join("image-0.1.0.tar");
    std::fs::rename(engine.save(&id, "image.tar"), &saved).unwrap();

    let digest = scene.deploy_image(".image/image-0.1.0.tar");
    let manifest = scene.manifest(&digest);
    assert_eq!(manifest["config"]["digest"], id);
    let folder = scene.unpacked(&digest);
    let root = folder.path().join("bundle/rootfs");
    assert_eq!(
        std::fs::read_to_string(root.join("b")).unwrap(),
        "b".repeat(100_000)
    );
    let tagged = format!("docker://{}:0.1.0", scene.repository());
    scene.skopeo(&["inspect", "--raw", "--tls-verify=false", &tagged]);

    // Again: nothing is compressed, nothing is sent.
    let before = scene.registry.requests().len();
    assert_eq!(scene.deploy_image(".image/image-0.1.0.tar"), digest);
    let requests = scene.registry.requests()[before..].to_vec();
    assert_eq!(requests.len(), 1, "{requests:#?}");

    // Another tool's archive of the same image is the same image.
    let other = images.join("other-0.1.0.tar");
    scene.skopeo(&[
        "copy",
        "-q",
        &format!("docker-archive:{}", saved.display()),
        &format!("docker-archive:{}:small:1", other.display()),
    ]);
    assert_eq!(scene.deploy_image(".image/other-0.1.0.tar"), digest);

    // A layout keeps its digest, as a folder and as an archive.
    let layout = format!("oci:{}:1.2", scene.path().join("layout").display());
    let archive = images.join("oci-1.2.tar");
    let source = format!("docker-archive:{}", saved.display());
    scene.skopeo(&["copy", "-q", &source, &layout]);
    let packed = format!("oci-archive:{}:1.2", archive.display());
    scene.skopeo(&["copy", "-q", &layout, &packed]);
    for (image, place) in [("oci:layout:1.2", &layout), (".image/oci-1.2.tar", &packed)] {
        let raw = scene.skopeo(&["inspect", "--raw", place]);
        let expected = Sha256Digest::of(raw.as_bytes()).to_string();
        assert_eq!(scene.deploy_image(image), expected, "{image}");
        scene.manifest(&expected);
    }

    left_in_docker(scene, engine, &id, &digest);
}

/// `imageinfo-*.toml`: BigFlow has exported nothing.
fn left_in_docker(scene: Scene, engine: DockerEngine, id: &str, digest: &str) {
    let info = |version: &str, id: &str| {
        let text = format!("project_version = \"{version}\"\ndocker_image_id = \"{id}\"\n");
        let path = scene
            .path()
            .join(format!(".image/imageinfo-{version}.toml"));
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    // Nobody needs Docker for an image that is in the registry under its version.
    assert_eq!(scene.deploy_image(&info("0.1.0", id)), digest);

    let host = format!("unix://{}", engine.directory().join("socket").display());
    let scene = Scene {
        machine: Machine::new().with_variable("DOCKER_HOST", &host),
        ..scene
    };
    let file = scene.path().join(".image/imageinfo-0.2.0.toml");
    let text = format!("project_version = \"0.2.0\"\ndocker_image_id = \"{id}\"\n");
    std::fs::write(&file, &text).unwrap();
    assert_eq!(scene.deploy_image(file.to_str().unwrap()), digest);

    drop(engine);
    let text = text.replace("0.2.0", "0.3.0");
    std::fs::write(&file, text).unwrap();
    let finished = scene.fails("deploy-image", file.to_str().unwrap());
    assert_eq!(finished.status, 1, "{}", finished.stderr);
    assert!(
        finished.stderr.contains("docker says"),
        "{}",
        finished.stderr
    );
    assert!(
        finished.stderr.contains("export_image_tar"),
        "{}",
        finished.stderr
    );
}

#[test]
fn image_and_dag_files_of_an_earlier_build_are_deployed_together() {
    let (Some(scene), Some(python)) = (Scene::new(), installed("FOREBAY_TEST_BIGFLOW_PYTHON"))
    else {
        return;
    };
    let workflow = "import bigflow\n\n\nclass Job(bigflow.Job):\n    id = 'job'\n\n    def execute(self, context):\n        pass\n\n\ndaily = bigflow.Workflow(workflow_id='daily', definition=[Job()])\n";
    std::fs::write(scene.path().join("small/workflows.py"), workflow).unwrap();
    let repository = scene.repository();
    let builder = Machine::new().with_python(python);
    let common = ["-c", "dev", "-r", &repository];
    let arguments = ["build-image", "--export-image-tar"].iter().chain(&common);
    let built = builder.forebay_json(scene.path(), arguments);
    let arguments = ["build-dags", "--dag-format", "bigflow-1.11"]
        .iter()
        .chain(&common);
    builder.forebay_json(scene.path(), arguments);
    let archive = std::fs::read_dir(scene.path().join(".image"))
        .unwrap()
        .next()
        .unwrap();
    let archive = archive.unwrap().path();

    // Another machine, which has no Python for it.
    let deployed = scene.machine.forebay_json(
        scene.path(),
        scene.arguments("deploy", archive.to_str().unwrap()),
    );
    assert_eq!(deployed["image"], built["image"]);
    let dags = scene.path().join(".local/dags");
    let names: Vec<_> = std::fs::read_dir(dags)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(names.len(), 1, "{names:?}");
    scene.manifest(built["image"].as_str().unwrap());

    // Files that run another version than the archive's are not deployed with it.
    let renamed = archive.with_file_name("image-7.0.tar");
    std::fs::rename(&archive, &renamed).unwrap();
    let finished = scene.fails("deploy", renamed.to_str().unwrap());
    assert_eq!(finished.status, 2, "{}", finished.stderr);
    assert!(finished.stderr.contains("7.0"), "{}", finished.stderr);
}

#[test]
fn what_is_no_saved_image_is_refused_before_anything_is_asked() {
    let Some(scene) = Scene::new() else {
        return;
    };
    let write = |name: &str, bytes: &[u8]| {
        let path = scene.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.display().to_string()
    };
    for (image, expected) in [
        ("missing-1.0.tar".to_owned(), "No such file"),
        (write("image.tar", b""), "image-0.1.0.tar"),
        (
            write("image-1.0.tar", b""),
            "neither what `docker save` writes",
        ),
        (write("image-2.0.tar", &[7; 5_000]), "no tar archive"),
        (write("imageinfo-1.0.toml", b"x = 1"), "image info"),
    ] {
        let finished = scene.fails("deploy-image", &image);
        assert_eq!(finished.status, 2, "{}", finished.stderr);
        assert!(
            finished.stderr.contains(expected),
            "{image}: {}",
            finished.stderr
        );
        assert!(finished.stderr.contains("next:"), "{}", finished.stderr);
    }
    assert_eq!(scene.registry.requests(), Vec::<String>::new());
}
