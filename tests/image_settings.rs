//! The image is the same whoever builds it wherever, is described by a Dockerfile or by
//! settings, and proves itself by a second build.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

use std::path::{Path, PathBuf};

#[path = "support/forebay.rs"]
#[allow(dead_code)]
mod forebay_support;

use forebay_support::{Finished, Machine, installed};

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// A project that needs nothing but a base image with a Python.
fn write_project(root: &Path, base: &Path) {
    let dockerfile = format!(
        "FROM oci:{}:3.11\nENV GREETING=\"hello $HOME\"\nWORKDIR /app\nCOPY conf /etc/app\nCOPY setup.py .\n\
         COPY ./dist /dist\nRUN pip install /dist/*.whl\nUSER nobody\nCMD [\"python\", \"-m\", \"app\"]\n",
        base.display()
    );
    for (path, text) in [
        ("Dockerfile", dockerfile.as_str()),
        (
            "setup.py",
            "import bigflow.build\nbigflow.build.setup(name='app')\n",
        ),
        (
            "deployment_config.py",
            "from bigflow.configuration import DeploymentConfig\n\
          deployment_config = DeploymentConfig('dev', {'docker_repository': 'registry.example.com/app', 'dags_bucket': 'b'}, is_default=True)\n",
        ),
        ("app/__init__.py", ""),
        ("app/__main__.py", "print('hello', __file__)\n"),
        ("app/jobs/__init__.py", "NAMES = {'b', 'a', 'c'}\n"),
        ("conf/a.yml", "a: 1\n"),
        ("conf/sub/b.yml", "b: 1\n"),
        ("resources/requirements.txt", ""),
        ("resources/query.sql", "select 1\n"),
    ] {
        write(root, path, text);
    }
}

fn image(machine: &Machine, project: &Path) -> String {
    let built = machine.forebay_json(project, ["build-image"]);
    built["image"].as_str().unwrap().to_owned()
}

fn project() -> Option<(tempfile::TempDir, PathBuf)> {
    let base = installed("FOREBAY_TEST_BASE_3_11")?;
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("project");
    write_project(&root, &base);
    Some((directory, root))
}

#[test]
fn every_machine_builds_the_same_image() {
    let Some((directory, first)) = project() else {
        return;
    };
    let machine = || Machine::new().with_python("/usr/bin/python3");
    let one = machine();
    let expected = image(&one, &first);
    let lock = std::fs::read_to_string(first.join("forebay.lock")).unwrap();
    assert!(lock.contains("[[bytecode]]\npython = \"3.11\""), "{lock}");
    assert!(!lock.contains("none"), "{lock}");

    // Another folder with the files in another order and of other modes and times, another
    // umask, time zone, locale, home and store, and one processor.
    let second = directory.path().join("elsewhere/under another name");
    let mut files: Vec<PathBuf> = walkdir::WalkDir::new(&first)
        .into_iter()
        .map(|entry| entry.unwrap().into_path())
        .filter(|path| path.is_file())
        .collect();
    files.sort();
    files.reverse();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        write(
            &second,
            file.strip_prefix(&first).unwrap().to_str().unwrap(),
            &text,
        );
    }
    let other = machine();
    let script = "umask 077; exec taskset -c 0 \"$@\"";
    let output = other
        .command("sh", &second)
        .args([
            "-c",
            script,
            "sh",
            env!("CARGO_BIN_EXE_forebay"),
            "--python",
            "/usr/bin/python3",
            "build-image",
            "--json",
        ])
        .env("TZ", "Asia/Kathmandu")
        .env("LANG", "tr_TR.UTF-8")
        .env("PYTHONHASHSEED", "7")
        .env("PYTHONOPTIMIZE", "2")
        .output()
        .unwrap();
    let finished = Finished::from(output);
    assert_eq!(finished.status, 0, "{}", finished.stderr);
    let built: serde_json::Value = serde_json::from_str(&finished.stdout).unwrap();
    assert_eq!(built["image"].as_str(), Some(expected.as_str()));

    // Without that compiler it is not built, rather than built differently.
    let (before, after) = lock.split_once("compiler = \"").unwrap();
    let lock = format!("{before}compiler = \"{}{}", "0".repeat(64), &after[64..]);
    std::fs::write(second.join("forebay.lock"), lock).unwrap();
    write(&second, "app/new.py", "x = 1\n");
    let refused = other.forebay(&second, ["build-image"]);
    assert_eq!(refused.status, 1, "{}", refused.stderr);
    for expected in [
        "forebay.lock names",
        "forebay image lock",
        "bytecode = \"off\"",
    ] {
        assert!(
            refused.stderr.contains(expected),
            "{expected}: {}",
            refused.stderr
        );
    }
    write(
        &second,
        "pyproject.toml",
        "[tool.forebay.image]\nbytecode = 'off'\n",
    );
    assert_ne!(image(&other, &second), expected);
}

#[test]
fn a_second_build_proves_the_first() {
    let Some((_directory, root)) = project() else {
        return;
    };
    let machine = Machine::new().with_python("/usr/bin/python3");
    machine.forebay_json(&root, ["build-image", "--check"]);
}

#[test]
fn settings_say_what_the_dockerfile_says() {
    let Some((_directory, root)) = project() else {
        return;
    };
    let machine = Machine::new().with_python("/usr/bin/python3");
    let from_dockerfile = image(&machine, &root);
    let printed = machine.forebay(&root, ["image", "migrate"]);
    assert_eq!(printed.status, 0, "{}", printed.stderr);
    let section: toml::Table = printed.stdout.parse().unwrap();
    let section = &section["tool"]["forebay"]["image"];
    assert_eq!(section["workdir"].as_str(), Some("/app"));
    assert_eq!(section["user"].as_str(), Some("nobody"));
    assert_eq!(section["copy"][0]["from"].as_str(), Some("conf"));
    assert_eq!(section["copy"][0]["to"].as_str(), Some("/etc/app"));
    assert_eq!(section["env"]["GREETING"].as_str(), Some("hello "));
    assert!(!root.join("pyproject.toml").exists());

    let written = machine.forebay_json(&root, ["image", "migrate", "--write"]);
    assert_eq!(written["written"].as_bool(), Some(true));
    std::fs::remove_file(root.join("Dockerfile")).unwrap();
    std::fs::write(root.join("Dockerfile"), "FROM nothing.example.com/here\n").unwrap();
    let built = machine.forebay(&root, ["build-image"]);
    assert_eq!(built.status, 0, "{}", built.stderr);
    assert!(
        built.stderr.contains("the Dockerfile is not read"),
        "{}",
        built.stderr
    );
    assert_ne!(from_dockerfile, "");
    let again = machine.forebay(&root, ["image", "migrate"]);
    assert_eq!(again.status, 2, "{}", again.stderr);

    let settings = std::fs::read_to_string(root.join("pyproject.toml")).unwrap();
    std::fs::write(
        root.join("pyproject.toml"),
        settings.replace("workdir", "wrokdir"),
    )
    .unwrap();
    let refused = machine.forebay(&root, ["build-image"]);
    assert_eq!(refused.status, 2, "{}", refused.stderr);
    assert!(refused.stderr.contains("wrokdir"), "{}", refused.stderr);
    std::fs::write(
        root.join("pyproject.toml"),
        settings.replace("base =", "# base ="),
    )
    .unwrap();
    let refused = machine.forebay(&root, ["build-image"]);
    assert!(
        refused.stderr.contains("names no `base`"),
        "{}",
        refused.stderr
    );
}
