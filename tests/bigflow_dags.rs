//! DAG files against those of BigFlow 1.11.3.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

mod bigflow_support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use bigflow_support::{bigflow_python, copy_folder};
use forebay::dags::{DagFile, ProbeRequest, RenderContext, StartTime, probe, render, write_folder};
use forebay::progress::Silent;
use forebay::project::{DagFormat, DeploymentConfig, Project, Version, process_variables};
use forebay::python;
use forebay_store::Store;

/// With the time zones that they are built in: BigFlow's hourly start depends on it.
const START_TIMES: [(&str, &str); 2] = [
    ("2026-03-01", "Europe/Warsaw"),
    ("2024-12-31 23:05:09", "America/New_York"),
];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/projects")
}

fn read_folder(folder: &Path) -> BTreeMap<String, String> {
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            (name, std::fs::read_to_string(entry.path()).unwrap())
        })
        .collect()
}

/// Runs `bigflow build-dags` in the project.
fn build_with_bigflow(
    python: &Path,
    project: &Path,
    start_time: &str,
    time_zone: &str,
) -> BTreeMap<String, String> {
    let bin = python.parent().unwrap();
    let path = format!(
        "{}:{}",
        bin.display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let output = Command::new(python)
        .args(["-m", "bigflow", "build-dags", "--start-time", start_time])
        .current_dir(project)
        .env("PATH", path)
        .env("TZ", time_zone)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "bigflow build-dags in {}:\n{}",
        project.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    read_folder(&project.join(".dags"))
}

/// Renders every workflow of the project.
fn build(python: &Path, directory: &Path, start_time: StartTime, store: &Store) -> Built {
    let find = || python::find(Some(python), directory, store);
    let project = Project::open(directory, &find).unwrap();
    let config = DeploymentConfig::load(&project.deployment_config_path(), &find)
        .unwrap()
        .config;
    let resolved = config.resolve(None, &process_variables()).unwrap();
    let repository = match &project.spec.docker_repository {
        Some(repository) => repository,
        None => resolved.required("docker_repository").unwrap(),
    };
    let version: Version = project.version().unwrap();
    let image = format!("{repository}:{}", version.image_tag());
    let tree = store.scan(directory, &|path, _| path == ".dags").unwrap();
    let workflows = probe(
        &ProbeRequest {
            directory,
            packages: &project.spec.packages,
            interpreter: &find().unwrap(),
            import_paths: &[],
            environment: None,
            start_time,
            tree: Some(&tree),
        },
        store,
        &Silent,
    )
    .unwrap_or_else(|error| panic!("{error}"));
    let render_all = |format| {
        let context = RenderContext {
            format,
            image: &image,
            image_tag: None,
            version: &version,
            start_time,
        };
        workflows
            .iter()
            .map(|workflow| render(workflow, &context).unwrap())
            .collect()
    };
    Built {
        bigflow: render_all(DagFormat::Bigflow1_11),
        default: render_all(DagFormat::Default),
        image,
    }
}

/// A project's DAG files in both formats.
struct Built {
    bigflow: Vec<DagFile>,
    default: Vec<DagFile>,
    image: String,
}

/// Whether Python can read each file.
fn compile(python: &Path, files: &[DagFile]) {
    let folder = tempfile::tempdir().unwrap();
    write_folder(&folder.path().join("dags"), files, "").unwrap();
    let output = Command::new(python)
        .args(["-m", "compileall", "-q"])
        .arg(folder.path())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

#[test]
fn the_bigflow_format_is_bigflows_byte_for_byte_and_the_default_one_is_python() {
    let Some(python) = bigflow_python() else {
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    let store = Store::open(&scratch.path().join("store")).unwrap();
    let mut compared = 0;
    for fixture in std::fs::read_dir(fixtures()).unwrap() {
        let name = fixture.unwrap().file_name();
        let project = scratch.path().join(&name);
        copy_folder(&fixtures().join(&name), &project);
        let project = project.canonicalize().unwrap();
        for (start_time, time_zone) in START_TIMES {
            let theirs = build_with_bigflow(&python, &project, start_time, time_zone);
            let now = jiff::Zoned::now().in_tz(time_zone).unwrap();
            let built = build(
                &python,
                &project,
                StartTime::from_argument(Some(start_time), &now).unwrap(),
                &store,
            );
            let folder = scratch.path().join("ours");
            write_folder(&folder, &built.bigflow, &built.image).unwrap();
            compile(&python, &built.default);
            let ours = read_folder(&folder);
            assert_eq!(
                theirs.keys().collect::<Vec<_>>(),
                ours.keys().collect::<Vec<_>>(),
                "{name:?}"
            );
            for (file, content) in &theirs {
                assert_eq!(content, &ours[file], "{name:?}, {file}");
                compared += 1;
            }
        }
    }
    assert!(compared > 40, "only {compared} files were compared");
}
