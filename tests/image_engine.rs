//! Lines of a Dockerfile that need a container run in a real engine, once for the same
//! inputs, and their layers are published for machines that have none.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;

#[path = "support/forebay.rs"]
#[allow(dead_code)]
mod forebay_support;

use forebay_support::{Finished, Machine, copy_folder, installed};

/// The package manager is a stand-in that notes what it is told; the rest is real.
const DOCKERFILE: &str = r#"FROM python:3.11-slim
COPY ./dist /dist
WORKDIR /app
ENV GREETING="good day"
COPY resources/requirements.txt requirements.txt
# Stands below COPY, and runs before it.
RUN apt-get update \
    # a comment
    && apt-get install -y --no-install-recommends libzbar-dev
RUN pip install --no-cache-dir -r requirements.txt
RUN echo "$GREETING, $(id -un) in $PWD" > /greeting; ls /app > /seen
COPY --chown=1000:1000 extra /app/extra
RUN <<EOF
cat /app/extra/file > /copied
python3 -c "import six; print(six.__version__)" >> /copied
EOF
RUN pip install /dist/*.whl
"#;

struct Scene {
    machine: Machine,
    project: tempfile::TempDir,
    work: tempfile::TempDir,
    /// What engines are told besides.
    variables: Vec<(&'static str, String)>,
}

impl Scene {
    /// A project on a base whose apt is a stand-in.
    fn new(base: &Path, engine_arguments: &str) -> Self {
        let machine = Machine::new().with_python("/usr/bin/python3");
        let project = tempfile::tempdir().unwrap();
        let directory = project.path();
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/hello");
        copy_folder(&example, directory);
        fs::write(directory.join("Dockerfile"), DOCKERFILE).unwrap();
        fs::write(
            directory.join("resources/requirements.txt"),
            "six==1.16.0\n",
        )
        .unwrap();
        fs::create_dir(directory.join("extra")).unwrap();
        fs::write(directory.join("extra/file"), "extra\n").unwrap();

        let stand_in = directory.join("stand-in/usr/local/bin");
        fs::create_dir_all(&stand_in).unwrap();
        let program = stand_in.join("apt-get");
        fs::write(
            &program,
            "#!/bin/sh\necho \"$@\" >> /installed\nls / >> /root-of-apt\n",
        )
        .unwrap();
        machine.run(directory, "chmod", ["-R", "755", "stand-in"]);
        let layout = directory.join("layout");
        copy_folder(base, &layout);
        machine.run(
            directory,
            "tar",
            [
                "-C",
                "stand-in",
                "--owner=0",
                "--group=0",
                "-cf",
                "stand-in.tar",
                "usr",
            ],
        );
        machine.run(
            directory,
            "umoci",
            ["raw", "add-layer", "--image", "layout:3.11", "stand-in.tar"],
        );
        let settings = directory.join("pyproject.toml");
        let mut text = fs::read_to_string(&settings).unwrap();
        text.push_str(&format!(
            "[tool.forebay.environments.dev]\nbase = \"oci:{}:3.11\"\n\
             [tool.forebay.engine]\narguments = [{engine_arguments}]\n",
            layout.display()
        ));
        fs::write(&settings, text).unwrap();
        let work = tempfile::tempdir().unwrap();
        Self {
            machine,
            project,
            work,
            variables: vec![("BUILDAH_ISOLATION", "chroot".to_owned())],
        }
    }

    fn directory(&self) -> &Path {
        self.project.path()
    }

    fn run(&self, store: &str, engine: &str, arguments: &[&str]) -> Finished {
        let mut command = self
            .machine
            .command(env!("CARGO_BIN_EXE_forebay"), self.directory());
        command
            .env("FOREBAY_STORE", self.directory().join(".local").join(store))
            .env("FOREBAY_ENGINE", engine)
            .envs(self.variables.iter().map(|(name, value)| (name, value)));
        if engine == "docker" {
            let socket = self.work.path().join("docker/socket");
            command.env("DOCKER_HOST", format!("unix://{}", socket.display()));
        }
        command
            .args(["--python", "/usr/bin/python3", "--json"])
            .args(arguments);
        Finished::from(command.args(["-c", "dev"]).output().unwrap())
    }

    /// The image's digest.
    fn build(&self, store: &str, engine: &str, arguments: &[&str]) -> String {
        let finished = self.run(store, engine, &[&["build-image"], arguments].concat());
        assert_eq!(finished.status, 0, "{}", finished.stderr);
        let document: serde_json::Value = serde_json::from_str(&finished.stdout).unwrap();
        document["image"].as_str().unwrap().to_owned()
    }

    fn refused(&self, store: &str, arguments: &[&str]) -> String {
        let finished = self.run(store, "none", &[&["build-image"], arguments].concat());
        assert_eq!(finished.status, 1, "{}", finished.stdout);
        finished.stderr
    }

    /// What every engine has to make of the Dockerfile.
    fn check(&self) {
        let root = self.unpack();
        let read = |path: &str| fs::read_to_string(root.join(path)).unwrap();
        assert_eq!(
            read("installed"),
            "update\ninstall -y --no-install-recommends libzbar-dev\n"
        );
        assert!(
            !read("root-of-apt").contains("app"),
            "apt has to run before COPY"
        );
        assert_eq!(read("greeting"), "good day, root in /app\n");
        assert_eq!(read("seen"), "requirements.txt\n");
        assert_eq!(read("copied"), "extra\n1.16.0\n");
        let owner = std::os::unix::fs::MetadataExt::uid(
            &fs::metadata(root.join("app/extra/file")).unwrap(),
        );
        assert_eq!(owner, 1000);
        assert!(
            root.join("usr/local/lib/python3.11/dist-packages/hello")
                .is_dir()
        );
    }

    /// Unpacks the exported image; gives the root's folder.
    fn unpack(&self) -> std::path::PathBuf {
        let mut tar = fs::read_dir(self.directory().join(".image")).unwrap();
        let tar = tar.next().unwrap().unwrap().path();
        let directory = self.work.path();
        // What an earlier look has left.
        let _ = fs::remove_dir_all(directory.join("bundle"));
        let _ = fs::remove_dir_all(directory.join("exported"));
        let source = format!("oci-archive:{}", tar.display());
        self.machine.run(
            directory,
            "skopeo",
            ["--insecure-policy", "copy", "-q", &source, "oci:exported:x"],
        );
        self.machine.run(
            directory,
            "umoci",
            ["unpack", "--image", "exported:x", "bundle"],
        );
        fs::remove_file(tar).unwrap();
        directory.join("bundle/rootfs")
    }
}

#[test]
fn lines_run_once_for_the_same_inputs_and_can_be_published() {
    let Some(base) = installed("FOREBAY_TEST_BASE_ENGINE") else {
        return;
    };
    let mut scene = Scene::new(&base, "");
    let error = scene.refused("one", &[]);
    assert!(
        error.contains("line 7 of the Dockerfile") && error.contains("libzbar-dev"),
        "{error}"
    );

    let image = scene.build("one", "buildah", &["--export-image-tar"]);
    scene.check();

    // No engine is needed again: not for the same, not for another project or time.
    assert_eq!(scene.build("one", "none", &[]), image);
    let date = ("SOURCE_DATE_EPOCH", "1700000000".to_owned());
    scene.variables.push(date);
    assert_ne!(scene.build("one", "none", &[]), image);
    scene.variables.pop();
    let module = scene.directory().join("hello/cleanup.py");
    let text = fs::read_to_string(&module).unwrap();
    fs::write(&module, format!("{text}# changed\n")).unwrap();
    assert_ne!(scene.build("one", "none", &[]), image);
    fs::write(&module, text).unwrap();
    // What the lines copy counts, and so does what stands below them.
    fs::write(scene.directory().join("extra/file"), "other\n").unwrap();
    let error = scene.refused("one", &[]);
    assert!(
        error.contains("line 11") && !error.contains("line 7"),
        "{error}"
    );
    fs::write(scene.directory().join("extra/file"), "extra\n").unwrap();
    assert!(scene.refused("one", &["--rebuild"]).contains("line 7"));

    // Another machine takes the layers from where they were published.
    assert!(scene.refused("two", &[]).contains("line 7"));
    let published = format!("oci:{}", scene.directory().join("published").display());
    let pushed = scene.run(
        "one",
        "none",
        &["image", "base", "push", "--to", &published],
    );
    assert_eq!(pushed.status, 0, "{}", pushed.stderr);
    assert_eq!(scene.build("two", "none", &["--export-image-tar"]), image);
    assert!(scene.refused("two", &["--rebuild"]).contains("line 7"));
}

/// A Docker engine of the test's own.
struct Docker(std::process::Child);

impl Docker {
    fn start(folder: &Path) -> Self {
        fs::create_dir(folder).unwrap();
        let path = |name: &str| folder.join(name).display().to_string();
        let mut daemon = std::process::Command::new("dockerd")
            .args(["--data-root", &path("data"), "--exec-root", &path("exec")])
            .args([
                "--pidfile",
                &path("pid"),
                "-H",
                &format!("unix://{}", path("socket")),
            ])
            .args(["--bridge=none", "--iptables=false", "--ip-forward=false"])
            .arg("--ip-masq=false")
            .stderr(std::process::Stdio::piped())
            .spawn()
            .expect("dockerd is there: run tests/run");
        let mut messages = BufReader::new(daemon.stderr.take().unwrap()).lines();
        let is_ready = |line: &String| line.contains("API listen on");
        let ready = messages.by_ref().map_while(Result::ok).find(is_ready);
        assert!(ready.is_some(), "dockerd does not start");
        // A daemon whose messages nobody reads stops.
        std::thread::spawn(move || messages.for_each(drop));
        Self(daemon)
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        // It ends its own children and mounts, if it is asked to.
        let id = self.0.id().to_string();
        let _ = std::process::Command::new("kill").arg(id).status();
        let _ = self.0.wait();
    }
}

#[test]
fn docker_makes_the_same_with_its_classic_builder_and_with_buildkit() {
    let Some(base) = installed("FOREBAY_TEST_BASE_ENGINE") else {
        return;
    };
    // The test's engine has no bridge.
    let mut scene = Scene::new(&base, "\"--network=none\"");
    let docker = Docker::start(&scene.work.path().join("docker"));
    for (store, buildkit) in [("classic", "0"), ("buildkit", "1")] {
        // Debian's client has BuildKit inside; a newer one wants a program beside it.
        scene.variables = vec![
            ("DOCKER_BUILDKIT", buildkit.to_owned()),
            ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
        ];
        let image = scene.build(store, "docker", &["--export-image-tar"]);
        scene.check();
        assert_eq!(scene.build(store, "none", &[]), image);
        // Nothing of it is left in the engine.
        let socket = scene.work.path().join("docker/socket");
        let host = format!("unix://{}", socket.display());
        let left = scene.machine.run(
            scene.directory(),
            "docker",
            [
                "--host",
                &host,
                "images",
                "--quiet",
                "--filter",
                "reference=localhost/forebay-*",
            ],
        );
        assert_eq!(left, "", "{store}");
    }
    drop(docker);
}

#[test]
fn podman_makes_the_same() {
    let Some(base) = installed("FOREBAY_TEST_BASE_ENGINE") else {
        return;
    };
    let mut scene = Scene::new(&base, "");
    // A podman of the test's own, in a place of its own.
    let folder = scene.work.path().join("podman");
    fs::create_dir(&folder).unwrap();
    let file = |name: &str, text: String| {
        fs::write(folder.join(name), text).unwrap();
        folder.join(name).display().to_string()
    };
    let storage = format!(
        "[storage]\ndriver = \"vfs\"\ngraphroot = \"{0}/root\"\nrunroot = \"{0}/run\"\n",
        folder.display()
    );
    let containers =
        "[engine]\nruntime = \"runc\"\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"none\"\n";
    scene.variables.extend([
        ("CONTAINERS_STORAGE_CONF", file("storage.conf", storage)),
        (
            "CONTAINERS_CONF",
            file("containers.conf", containers.to_owned()),
        ),
    ]);
    let image = scene.build("one", "podman", &["--export-image-tar"]);
    scene.check();
    assert_eq!(scene.build("one", "none", &[]), image);
    let variables = scene.variables.iter();
    let left = scene
        .machine
        .command("podman", scene.directory())
        .envs(variables.map(|(name, value)| (name, value)))
        .args(["images", "--noheading"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&left.stdout), "", "{left:?}");
}

/// The head of a program for 64-bit ARM (ELF, `e_machine` 183) that does nothing.
fn foreign_program() -> Vec<u8> {
    let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\xb7\0\x01\0\0\0".to_vec();
    bytes.resize(64, 0);
    bytes
}

#[test]
fn what_would_need_an_emulator_is_told() {
    let Some(base) = installed("FOREBAY_TEST_BASE_ENGINE") else {
        return;
    };
    let scene = Scene::new(&base, "");
    let directory = scene.directory();
    fs::create_dir_all(directory.join("arm/bin")).unwrap();
    fs::write(directory.join("arm/bin/sh"), foreign_program()).unwrap();
    let run = |program: &str, line: &str| scene.machine.run(directory, program, line.split(' '));
    run("chmod", "-R 755 arm");
    run("tar", "-C arm --owner=0 --group=0 -cf arm.tar bin");
    run("umoci", "init --layout foreign");
    run("umoci", "new --image foreign:3.11");
    run("umoci", "raw add-layer --image foreign:3.11 arm.tar");
    let python = "PYTHON_VERSION=3.11.2";
    run(
        "umoci",
        &format!("config --image foreign:3.11 --architecture arm64 --config.env {python}"),
    );
    let settings = directory.join("pyproject.toml");
    let text = fs::read_to_string(&settings).unwrap();
    fs::write(&settings, text.replace("/layout:3.11", "/foreign:3.11")).unwrap();
    let dockerfile = "FROM python:3.11-slim\nRUN apt-get install -y libzbar-dev\n";
    fs::write(directory.join("Dockerfile"), dockerfile).unwrap();
    let arguments = ["build-image", "--platform", "linux/arm64"];
    let refused = scene.run("foreign", "buildah", &arguments);
    assert_eq!(refused.status, 1, "{}{}", refused.stdout, refused.stderr);
    assert!(
        refused.stderr.contains("qemu-user-static"),
        "{}",
        refused.stderr
    );
}
