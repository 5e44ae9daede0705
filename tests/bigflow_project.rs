//! A project's specification and version against BigFlow 1.11.3's, and the files that
//! only Python can evaluate.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

mod bigflow_support;

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::process::Command;

use bigflow_support::{bare_python, bigflow_python};
use forebay::project::{
    DeploymentConfig, Project, ProjectError, PropertyValue, VersionError, git_version,
};
use forebay::python::{self, Interpreter, PythonError};
use forebay_store::Store;

fn write(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, text).unwrap();
    path
}

/// Both Pythons that a file may be run in: one with BigFlow, one without.
fn pythons(scratch: &Path) -> Option<[Interpreter; 2]> {
    let python = bigflow_python()?;
    let store = Store::open(&scratch.join("store")).unwrap();
    let with = python::find(Some(&python), scratch, &store).unwrap();
    let mut without = with.clone();
    without.executable = scratch.join("bare-python");
    bare_python(&python, &without.executable);
    Some([with, without])
}

#[test]
fn a_configuration_that_needs_python_is_run_with_or_without_bigflow() {
    let scratch = tempfile::tempdir().unwrap();
    let Some(pythons) = pythons(scratch.path()) else {
        return;
    };
    for interpreter in pythons {
        let find = || Ok(interpreter.clone());
        let load = |text: &str| {
            DeploymentConfig::load(&write(scratch.path(), "deployment_config.py", text), &find)
        };
        write(scratch.path(), "helper.py", "BUCKET = 'from-a-helper'\n");
        let loaded = load(
            "from biggerquery import Config\nimport helper\nprint('noise')\n\
             deployment_config = Config('dev', {'dags_bucket': helper.BUCKET.upper(), 'n': 2 ** 3, 'f': 1e3, 'l': (1,)})\\\n\
                 .ad_configuration('prod', {'docker_repository': '{env}/{dags_bucket}'})\n",
        )
        .unwrap();
        assert_eq!(loaded.warnings.len(), 2, "{:?}", loaded.warnings);
        let prod = loaded.config.resolve(Some("prod"), &[]).unwrap();
        assert_eq!(prod.required("docker_repository"), Ok("prod/FROM-A-HELPER"));
        assert_eq!(prod.get("n"), Some(&PropertyValue::Int(8)));
        assert_eq!(prod.get("f"), Some(&PropertyValue::Float(1000.0)));
        assert_eq!(
            prod.get("l"),
            Some(&PropertyValue::List(vec![PropertyValue::Int(1)]))
        );
        let keys: Vec<_> = prod.properties().map(|(key, _)| key).collect();
        assert_eq!(
            keys,
            ["dags_bucket", "n", "f", "l", "docker_repository", "env"]
        );

        let loaded = load(
            "import os\nfrom bigflow.configuration import DeploymentConfig\n\
             deployment_config = DeploymentConfig('dev', {'home': os.sep}, environment_variables_prefix='x_')\n",
        )
        .unwrap();
        assert_eq!(loaded.config.prefix(), "x_");

        let error = load("import os\n\nx = os.environ['NOT_SET_ANYWHERE']\n").unwrap_err();
        let ProjectError::Raised {
            path,
            line,
            exception,
            ..
        } = &error
        else {
            panic!("{error}")
        };
        assert_eq!(
            (path.file_name().unwrap().to_str(), *line),
            (Some("deployment_config.py"), Some(3))
        );
        assert_eq!(exception, "KeyError");
        let error = load("import os\ndeployment_config = os.sep\n").unwrap_err();
        assert!(error.to_string().ends_with("but it is str"), "{error}");
    }
}

#[test]
fn a_setup_that_needs_python_is_run_with_or_without_bigflow() {
    let scratch = tempfile::tempdir().unwrap();
    let Some(pythons) = pythons(scratch.path()) else {
        return;
    };
    for interpreter in pythons {
        let calls = Cell::new(0);
        let find = || {
            calls.set(calls.get() + 1);
            Ok(interpreter.clone())
        };
        let open = |text: &str| {
            write(scratch.path(), "project/setup.py", text);
            Project::open(&scratch.path().join("project"), &find)
        };
        let project = open(
            "from pathlib import Path\nimport bigflow.build\n\
             bigflow.build.setup(name='-'.join(['a', 'b_c']), packages=['z', 'a'], version='1.0',\n    \
             resources_dir=Path('res'), export_image_tar=False, zip_safe=True, author='Somebody')\n",
        )
        .unwrap();
        assert_eq!(project.spec.name.as_str(), "a-b-c");
        assert_eq!(project.spec.packages, ["a", "z"]);
        assert_eq!(project.version().unwrap().as_str(), "1.0");
        assert_eq!(project.spec.resources_directory, "res");
        assert!(!project.spec.export_image_tar);
        assert_eq!(project.spec.metadata["author"], "Somebody");
        assert_eq!(project.spec.setuptools["zip_safe"], true);
        let error = open("print('no call')\nimport os\n").unwrap_err();
        assert!(matches!(error, ProjectError::NoSetup { .. }), "{error}");
        let error = open("import bigflow.build\n\n1 / 0\n").unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("setup.py, line 3: ZeroDivisionError: division by zero"),
            "{error}"
        );
        assert_eq!(calls.get(), 3);
    }
}

#[test]
fn packages_and_defaults_are_bigflows() {
    let scratch = tempfile::tempdir().unwrap();
    let Some([python, _]) = pythons(scratch.path()) else {
        return;
    };
    let directory = scratch.path().canonicalize().unwrap().join("project");
    for package in [
        "app",
        "app/a",
        "app/a/b",
        "app/test",
        "app/data/x",
        "test",
        "test/unit",
        "tests",
        "lib2",
        "with.dot",
    ] {
        write(&directory, &format!("{package}/__init__.py"), "");
    }
    std::fs::remove_file(directory.join("app/data/x/__init__.py")).unwrap();
    write(&directory, "app/data/x/y/__init__.py", "");
    write(
        &directory,
        "pyproject.toml",
        "[bigflow-project]\nname = \"my_app\"\ndocker_repository = \"r\"\nversion = \"1\"\n",
    );
    let script = "import sys, json, pathlib, bigflow.build.spec as s\n\
        p = s.read_project_spec(pathlib.Path(sys.argv[1]))\n\
        print(json.dumps([p.name, sorted(p.packages), p.resources_dir, p.deployment_config_file, p.project_requirements_file]))";
    let output = Command::new(&python.executable)
        .args(["-c", script])
        .arg(&directory)
        .output()
        .unwrap();
    let theirs: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let spec = Project::open(&directory, &|| Err(PythonError::NotFound))
        .unwrap()
        .spec;
    let ours = serde_json::json!([
        spec.name,
        spec.packages,
        spec.resources_directory,
        spec.deployment_config_file,
        spec.requirements_file
    ]);
    assert_eq!(ours, theirs);
}

#[test]
fn versions_are_bigflows_in_every_state_of_a_repository() {
    let scratch = tempfile::tempdir().unwrap();
    let Some([python, _]) = pythons(scratch.path()) else {
        return;
    };
    let directory = scratch.path().join("repository");
    write(&directory, "inner/file", "1");
    let git = |arguments: &[&str]| {
        let output = Command::new("git")
            .args([
                "-c",
                "user.name=Test",
                "-c",
                "user.email=test@example.com",
                "-c",
                "commit.gpgsign=false",
            ])
            .args(arguments)
            .current_dir(&directory)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    // Every edit changes the size: BigFlow overlooks one of the same size right after a commit.
    let compare = |state: &str| {
        for place in [directory.clone(), directory.join("inner")] {
            let output = Command::new(&python.executable)
                .args(["-c", "import bigflow.version as v; print(v.get_version())"])
                .current_dir(&place)
                .output()
                .unwrap();
            let theirs = String::from_utf8(output.stdout).unwrap();
            match git_version(&place, None) {
                Ok(version) => assert_eq!(version.as_str(), theirs.trim(), "{state}"),
                Err(VersionError::InvalidTag { .. }) => {
                    assert!(!output.status.success(), "{state}")
                }
                Err(error) => panic!("{state}: {error}"),
            }
        }
    };
    compare("no repository");
    git(&["init", "-q"]);
    compare("no commit");
    git(&["add", "."]);
    git(&["commit", "-qm", "first"]);
    compare("a commit without a tag");
    write(&directory, "inner/file", "two");
    compare("dirty without a tag");
    git(&["commit", "-qam", "second"]);
    git(&["tag", "0.1.0"]);
    compare("on a tag");
    write(&directory, "untracked", "");
    compare("on a tag, with an untracked file");
    write(&directory, "inner/file", "three");
    compare("dirty on a tag");
    git(&["add", "untracked"]);
    compare("dirty with a staged file");
    git(&["commit", "-qam", "third"]);
    compare("after a tag");
    for tag in ["v2.0-rc1", "release-3-4", "foo"] {
        git(&["commit", "-q", "--allow-empty", "-m", tag]);
        git(&["tag", tag]);
        compare(tag);
        write(&directory, "inner/file", tag);
        compare(&format!("dirty on {tag}"));
        git(&["commit", "-qam", "next"]);
        compare(&format!("after {tag}"));
    }
}
