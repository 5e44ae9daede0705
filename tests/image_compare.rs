//! What a Dockerfile comes to without a container is what buildah makes of the same file.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

#[path = "support/forebay.rs"]
#[allow(dead_code)]
mod forebay_support;

use forebay_store::Sha256Digest;
use forebay_support::{Machine, copy_folder, installed};

const DOCKERFILE: &str = "\
FROM python:3.11-slim
ARG PLACE=conf
WORKDIR /app/work
ENV PLACE=settings
COPY resources/requirements.txt requirements.txt
COPY [\"resources/\", \"/opt/my data/\"]
COPY hello $PLACE/
COPY Dockerfile setup.py /app/
RUN pip install --no-cache-dir --break-system-packages -r requirements.txt
RUN rm requirements.txt
USER 1000
EXPOSE 80
LABEL a=b
CMD [\"python\"]
";

/// Everything below `root` but for what is named here: owner, mode, and content or target.
///
/// - bytecode, which pip dates and Forebay does not;
/// - RECORD (which lists bytecode), INSTALLER and REQUESTED say who installed;
/// - what buildah itself mounts into its containers.
fn files(root: &Path) -> BTreeMap<String, String> {
    let is_exempt = |path: &str| {
        let name = path.rsplit('/').next().unwrap();
        path.contains("__pycache__")
            || (path.contains(".dist-info/")
                && ["RECORD", "INSTALLER", "REQUESTED"].contains(&name))
            || ["dev", "proc", "sys", "run", "wheelhouse"]
                .iter()
                .any(|mount| path == *mount || path.starts_with(&format!("{mount}/")))
            || [
                "etc/hosts",
                "etc/resolv.conf",
                "etc/hostname",
                "etc/pip.conf",
            ]
            .contains(&path)
    };
    let mut found = BTreeMap::new();
    for entry in walkdir::WalkDir::new(root) {
        let entry = entry.unwrap();
        let path = entry.path().strip_prefix(root).unwrap();
        let path = path.to_str().unwrap().to_owned();
        if is_exempt(&path) {
            continue;
        }
        let metadata = entry.metadata().unwrap();
        let mode = metadata.permissions().mode() & 0o7777;
        let owner = format!("{}:{}", metadata.uid(), metadata.gid());
        let content = if metadata.is_symlink() {
            format!("-> {}", fs::read_link(entry.path()).unwrap().display())
        } else if metadata.is_dir() {
            format!("folder {mode:o}")
        } else {
            let bytes = fs::read(entry.path()).unwrap();
            format!("{mode:o} {}", Sha256Digest::of(&bytes))
        };
        found.insert(path, format!("{owner} {content}"));
    }
    found
}

#[test]
fn the_image_is_what_buildah_makes_of_the_same_dockerfile() {
    let Some(base) = installed("FOREBAY_TEST_BASE_ENGINE") else {
        return;
    };
    let machine = Machine::new()
        .with_python("/usr/bin/python3")
        .with_variable("FOREBAY_ENGINE", "none")
        .with_variable("BUILDAH_ISOLATION", "chroot");
    let project = tempfile::tempdir().unwrap();
    let directory = project.path();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/hello");
    copy_folder(&example, directory);
    fs::write(directory.join("Dockerfile"), DOCKERFILE).unwrap();
    // Scripts, machine code, data files, long names.
    fs::write(
        directory.join("resources/requirements.txt"),
        "click==8.1.7\nMarkupSafe==2.1.5\nJinja2==3.1.4\npyjokes==0.6.0\nbuild==1.2.1\ntqdm==4.66.4\n",
    )
    .unwrap();
    // buildah makes a name of the base's path, and names have small letters only.
    let plain = tempfile::Builder::new()
        .prefix(&format!("forebay-base-{}", std::process::id()))
        .rand_bytes(0)
        .tempdir()
        .unwrap();
    let link = plain.path().join("layout");
    std::os::unix::fs::symlink(base, &link).unwrap();
    let base = format!("oci:{}:3.11", link.display());
    let settings = directory.join("pyproject.toml");
    let mut text = fs::read_to_string(&settings).unwrap();
    text.push_str(&format!(
        "[tool.forebay.environments.dev]\nbase = \"{base}\"\n[tool.forebay.image]\nbytecode = \"off\"\n"
    ));
    fs::write(&settings, text).unwrap();

    machine.forebay_json(
        directory,
        ["build-image", "-c", "dev", "--export-image-tar"],
    );
    let work = tempfile::tempdir().unwrap();
    let work = work.path();
    let tar = fs::read_dir(directory.join(".image"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let skopeo = |from: &str, to: &str| {
        machine.run(
            work,
            "skopeo",
            ["--insecure-policy", "copy", "-q", from, to],
        );
    };
    skopeo(&format!("oci-archive:{}", tar.display()), "oci:ours:x");
    fs::remove_dir_all(directory.join(".image")).unwrap();

    // The container sees what pip has brought here, and no network.
    machine.run(
        directory,
        "/usr/bin/python3",
        [
            "-m",
            "pip",
            "download",
            "-q",
            "-d",
            work.join("wheelhouse").to_str().unwrap(),
            "-r",
            "resources/requirements.txt",
        ],
    );
    let configuration = work.join("pip.conf");
    fs::write(
        &configuration,
        "[global]\nno-index = true\nfind-links = /wheelhouse\n",
    )
    .unwrap();
    let volume = |from: &Path, to: &str| format!("--volume={}:{to}:ro", from.display());
    // Nothing of this machine: buildah keeps its images in a place of its own.
    let root = format!("--root={}", work.join("storage").display());
    let runroot = format!("--runroot={}", work.join("run").display());
    machine.run(
        directory,
        "buildah",
        [
            &root,
            &runroot,
            "--storage-driver=vfs",
            "build",
            "--layers=false",
            "--pull=false",
            "--network=host",
            &volume(&work.join("wheelhouse"), "/wheelhouse"),
            &volume(&configuration, "/etc/pip.conf"),
            &format!("--from={base}"),
            "--tag=theirs",
            ".",
        ],
    );
    let theirs = format!("oci:{}:x", work.join("theirs").display());
    machine.run(
        work,
        "buildah",
        [
            &root,
            &runroot,
            "--storage-driver=vfs",
            "push",
            "-q",
            "theirs",
            &theirs,
        ],
    );
    let unpack = |name: &str| {
        let bundle = format!("bundle-{name}");
        machine.run(
            work,
            "umoci",
            ["unpack", "--image", &format!("{name}:x"), &bundle],
        );
        files(&work.join(bundle).join("rootfs"))
    };
    let (ours, theirs) = (unpack("ours"), unpack("theirs"));
    assert!(
        theirs.contains_key("usr/local/bin/tqdm")
            && theirs.contains_key("app/work/settings/cleanup.py")
    );
    let differences: Vec<String> = ours
        .keys()
        .chain(theirs.keys())
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .filter(|path| ours.get(*path) != theirs.get(*path))
        .map(|path| {
            format!(
                "{path}: {:?}, by buildah {:?}",
                ours.get(path),
                theirs.get(path)
            )
        })
        .collect();
    assert!(differences.is_empty(), "{}", differences.join("\n"));

    let config = |name: &str| -> serde_json::Value {
        let image = format!("oci:{name}:x");
        let text = machine.run(work, "skopeo", ["inspect", "--config", &image]);
        let config: serde_json::Value = serde_json::from_str(&text).unwrap();
        config["config"].clone()
    };
    let (ours, theirs) = (config("ours"), config("theirs"));
    for key in ["Env", "Cmd", "User", "WorkingDir", "ExposedPorts"] {
        assert_eq!(ours[key], theirs[key], "{key}");
    }
    assert_eq!(ours["Labels"]["a"], theirs["Labels"]["a"]);
}
