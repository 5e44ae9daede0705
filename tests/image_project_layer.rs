//! The project's layer and wheel, compared file by file with what BigFlow's own
//! `build-package` and pip make of the same project.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

#[path = "support/forebay.rs"]
#[allow(dead_code)]
mod forebay_support;

use forebay_support::{Machine, copy_folder, installed};

const FILES: [(&str, &str); 14] = [
    (
        "setup.py",
        "import bigflow.build\nbigflow.build.setup(name='hello-world', description='Says hello', \
         author='somebody', package_data={'hello_world': ['*.json']}, scripts=['tool.py'],\n    \
         entry_points={'console_scripts': ['hello = hello_world.jobs.work:main']})\n",
    ),
    ("tool.py", "#!/usr/bin/env python3\nprint('tool')\n"),
    ("hello_world/__init__.py", ""),
    ("hello_world/data.json", "{}\n"),
    ("hello_world/notes.txt", "not package data\n"),
    ("hello_world/jobs/__init__.py", ""),
    (
        "hello_world/jobs/work.py",
        "def main():\n    print('hello', {'a', 'b'})\n",
    ),
    ("resources/requirements.txt", ""),
    ("resources/sub/query.sql", "select 1\n"),
    ("test/__init__.py", ""),
    (
        "test/test_work.py",
        "import unittest\nclass Works(unittest.TestCase):\n    def test_it(self):\n        pass\n",
    ),
    (
        "deployment_config.py",
        "from bigflow.configuration import DeploymentConfig\ndeployment_config = DeploymentConfig(\
         'dev', {'docker_repository': 'registry.example.com/hello', 'dags_bucket': 'b'}, is_default=True)\n",
    ),
    (
        "Dockerfile",
        "FROM scratch\nCOPY ./dist /dist\nRUN pip install /dist/*.whl\n",
    ),
    (
        "pyproject.toml",
        "[tool.forebay.image]\nbytecode = 'on'\n[tool.forebay.environments.dev]\nbase = 'scratch'\npython = '3.11'\n",
    ),
];

type Files = BTreeMap<String, (Vec<u8>, bool)>;

/// The files below a folder.
fn below(root: &Path) -> Files {
    use std::os::unix::fs::PermissionsExt as _;
    walkdir::WalkDir::new(root)
        .into_iter()
        .map(Result::unwrap)
        .filter(|entry| entry.file_type().is_file())
        .map(|entry| {
            let path = entry.path().strip_prefix(root).unwrap();
            let executable = entry.metadata().unwrap().permissions().mode() & 0o100 != 0;
            let path = path.to_str().unwrap().to_owned();
            (path, (std::fs::read(entry.path()).unwrap(), executable))
        })
        .collect()
}

/// The files of an archive, without its top folder.
fn archived(bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut archive = tar::Archive::new(bytes);
    let entries = archive.entries().unwrap().map(Result::unwrap);
    entries
        .filter(|entry| entry.header().entry_type().is_file())
        .map(|mut entry| {
            let path = entry.path().unwrap().to_str().unwrap().to_owned();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            (path.split_once('/').unwrap().1.to_owned(), content)
        })
        .collect()
}

fn table(bytes: &[u8]) -> toml::Table {
    std::str::from_utf8(bytes).unwrap().parse().unwrap()
}

/// Compares what two ways of installing left; `ours` may differ only as is named here.
fn compare(theirs: &Files, ours: &Files) {
    // What pip writes down about how it was called, and compiled scripts, which nobody imports.
    let is_pips_own = |path: &str| {
        path.ends_with("/REQUESTED")
            || path.ends_with("/direct_url.json")
            || path.starts_with("usr/local/bin/__pycache__")
    };
    let theirs: Vec<_> = theirs
        .iter()
        .filter(|(path, _)| !is_pips_own(path))
        .collect();
    let names: Vec<&String> = theirs.iter().map(|(path, _)| *path).collect();
    let own = ours.keys().filter(|path| !is_pips_own(path));
    assert_eq!(names, own.collect::<Vec<_>>());
    for (path, (bytes, executable)) in theirs {
        let (own, own_executable) = &ours[path];
        assert_eq!(executable, own_executable, "{path}");
        let name = path.rsplit('/').next().unwrap();
        match name {
            // RECORD has the digests of all the others; the other two name the tool.
            "RECORD" | "INSTALLER" | "WHEEL" => {}
            "METADATA" => {
                let lines = |bytes: &[u8]| -> Vec<String> {
                    let text = String::from_utf8_lossy(bytes).into_owned();
                    let own = |line: &&str| {
                        !line.is_empty()
                            && !line.starts_with("Dynamic:")
                            && !line.starts_with("Metadata-Version:")
                    };
                    text.lines().filter(own).map(str::to_owned).collect()
                };
                assert_eq!(lines(bytes), lines(own));
            }
            "pyproject.toml" => {
                let (mut theirs, mut ours) = (table(bytes), table(own));
                // BigFlow names the version of itself that builds.
                theirs.remove("build-system");
                ours.remove("build-system");
                assert_eq!(theirs, ours);
            }
            "bf-project.tar" => {
                let (theirs, ours) = (archived(bytes), archived(own));
                let names =
                    |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
                assert_eq!(names(&theirs), names(&ours));
                for (path, content) in &theirs {
                    if !matches!(path.as_str(), "PKG-INFO" | "pyproject.toml") {
                        assert_eq!(content, &ours[path], "{path}");
                    }
                }
            }
            // Compiled for another way of finding changes: the code is the same.
            _ if name.ends_with(".pyc") => assert_eq!(&bytes[..4], &own[..4], "{path}"),
            // The interpreter, and the words of pip's release.
            "hello" => assert!(own.ends_with(b"sys.exit(main())\n")),
            "tool.py" => {
                let rest = |bytes: &[u8]| bytes.splitn(2, |b| *b == b'\n').nth(1).unwrap().to_vec();
                assert_eq!(rest(bytes), rest(own));
            }
            _ => assert_eq!(bytes, own, "{path}"),
        }
    }
}

#[test]
fn the_layer_and_the_wheel_are_what_bigflow_and_pip_leave() {
    let Some(python) = installed("FOREBAY_TEST_BIGFLOW_PYTHON") else {
        return;
    };
    let work = tempfile::tempdir().unwrap();
    let machine = Machine::new().with_python(&python);
    let (theirs, ours) = (work.path().join("theirs"), work.path().join("ours"));
    for (path, text) in FILES {
        let path = ours.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    machine.run(&ours, "chmod", ["755", "tool.py"]);
    machine.run(&ours, "git", ["init", "-q"]);
    machine.run(&ours, "git", ["add", "-A"]);
    machine.run(&ours, "git", ["commit", "-qm", "all"]);
    machine.run(&ours, "git", ["tag", "0.1.0"]);
    copy_folder(&ours, &theirs);

    let folder = python.parent().unwrap().display().to_string();
    let path = format!("PATH={folder}:/usr/bin:/bin");
    let python = python.to_str().unwrap();
    machine.run(
        &theirs,
        "env",
        [&path, python, "-m", "bigflow", "build-package"],
    );
    let install = |wheel: &Path, root: &Path| -> Files {
        let arguments = [
            "-m",
            "pip",
            "install",
            "-q",
            "--no-deps",
            "--no-index",
            "--disable-pip-version-check",
            "--no-warn-script-location",
            "--root-user-action=ignore",
            "--prefix",
            "/usr/local",
            "--root",
            root.to_str().unwrap(),
            wheel.to_str().unwrap(),
        ];
        machine.run(work.path(), python, arguments);
        below(root)
    };
    let wheel = theirs.join("dist/hello_world-0.1.0-py3-none-any.whl");
    let expected = install(&wheel, &work.path().join("root"));

    // The layer, and what is installed of the wheel that the project's own build makes.
    let layers = |name: &str, arguments: &[&str]| -> Files {
        let arguments = [&["build-image", "--export-image-tar"], arguments].concat();
        machine.forebay_json(&ours, arguments);
        let image = work.path().join(format!("image {name}"));
        std::fs::create_dir(&image).unwrap();
        let archive = ours.join(".image/image-0.1.0.tar");
        machine.run(&image, "tar", ["-xf", archive.to_str().unwrap()]);
        let manifest = std::fs::read(image.join("manifest.json")).unwrap();
        let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
        let unpacked = image.join("unpacked");
        for layer in manifest[0]["Layers"].as_array().unwrap() {
            let layer = std::fs::File::open(image.join(layer.as_str().unwrap())).unwrap();
            let mut layer = tar::Archive::new(flate2::read::MultiGzDecoder::new(layer));
            layer.unpack(&unpacked).unwrap();
        }
        below(&unpacked)
    };
    compare(&expected, &layers("native", &[]));
    let before = below(&ours);
    compare(&expected, &layers("real", &["--wheel", "--check"]));
    // The build ran elsewhere: it left nothing here.
    let is_source = |path: &&String| !path.starts_with('.') && *path != "forebay.lock";
    let names = |files: &Files| files.keys().filter(is_source).cloned().collect::<Vec<_>>();
    assert_eq!(names(&before), names(&below(&ours)));

    // The wheel: the same bytes each time, and installed by pip the same files.
    let built = machine.forebay_json(&ours, ["build-package"]);
    let own_wheel = Path::new(built["wheel"].as_str().unwrap()).to_owned();
    assert_eq!(own_wheel.file_name(), wheel.file_name());
    let bytes = std::fs::read(&own_wheel).unwrap();
    std::fs::write(ours.join("dist/hello_world-0.0.9-py3-none-any.whl"), "").unwrap();
    std::fs::write(ours.join("dist/other-1.0-py3-none-any.whl"), "").unwrap();
    machine.forebay_json(&ours, ["build-package"]);
    assert_eq!(std::fs::read(&own_wheel).unwrap(), bytes);
    assert!(
        !ours
            .join("dist/hello_world-0.0.9-py3-none-any.whl")
            .exists()
    );
    assert!(ours.join("dist/other-1.0-py3-none-any.whl").exists());
    compare(
        &expected,
        &install(&own_wheel, &work.path().join("own root")),
    );
}
