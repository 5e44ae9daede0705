//! DAG files in the releases of Airflow that are in use: what Airflow understands is
//! what the workflows say.
//!
//! What they say comes from BigFlow's own objects (`describe_workflows.py`), and when
//! their runs are due from BigFlow's own files in Airflow 2.9.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

mod bigflow_support;
#[path = "support/forebay.rs"]
#[allow(dead_code)]
mod forebay_support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use bigflow_support::{copy_folder, fixtures, name_a_registry};
use forebay_support::{Machine, installed};
use serde_json::{Map, Value, json};

const START_TIME: &str = "2026-02-28 05:00:00";
const DATES: [&str; 2] = ["2026-03-01T07:08:09+00:00", "2024-12-31T00:00:00+00:00"];

/// The file with BigFlow's pause of `None` between retries: `retry_delay=None`.
const WITHOUT_RETRY_DELAY: &str = "job_options/options";

/// The project whose files are also read as those of DAGs that come to their end.
const DRAINED: &str = "hello";
const DRAINED_FOLDER: &str = "hello, draining";
const END: &str = "2026-03-02T10:11:12+00:00";

/// A project, and where Python is that can import it.
struct Project {
    name: String,
    directory: PathBuf,
    python: PathBuf,
}

/// What the projects' workflows say, and folders of their DAG files.
struct Scene {
    scratch: tempfile::TempDir,
    projects: Vec<Project>,
    said: BTreeMap<String, Map<String, Value>>,
    variables: Map<String, Value>,
}

fn projects(scratch: &Path) -> Option<Vec<Project>> {
    let bigflow = installed("FOREBAY_TEST_BIGFLOW_PYTHON")?;
    let scaffold = installed("FOREBAY_TEST_SCAFFOLD")?;
    let scaffold_python = installed("FOREBAY_TEST_SCAFFOLD_PYTHON")?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = vec![
        ("scaffold".to_owned(), scaffold, scaffold_python),
        (
            "hello".to_owned(),
            root.join("examples/hello"),
            bigflow.clone(),
        ),
    ];
    for fixture in std::fs::read_dir(fixtures()).unwrap() {
        let path = fixture.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        sources.push((name, path, bigflow.clone()));
    }
    Some(
        sources
            .into_iter()
            .map(|(name, source, python)| {
                let directory = scratch.join(&name);
                copy_folder(&source, &directory);
                if name == "scaffold" {
                    name_a_registry(&directory.join("deployment_config.py"));
                }
                Project {
                    name,
                    directory,
                    python,
                }
            })
            .collect(),
    )
}

impl Scene {
    fn new() -> Option<Self> {
        let scratch = tempfile::tempdir().unwrap();
        let mut scene = Self {
            projects: projects(scratch.path())?,
            scratch,
            said: BTreeMap::new(),
            variables: Map::new(),
        };
        let script = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/airflow_support/describe_workflows.py");
        let answer = scene.scratch.path().join("said.json");
        for project in &scene.projects {
            let machine = scene.machine(project);
            for format in ["default", "bigflow-1.11"] {
                let arguments = [
                    "build-dags",
                    "--image-ref",
                    "tag",
                    "--start-time",
                    START_TIME,
                ];
                let finished = machine.forebay(
                    &project.directory,
                    arguments.into_iter().chain(["--dag-format", format]),
                );
                assert_eq!(finished.status, 0, "{}: {}", project.name, finished.stderr);
                std::fs::rename(
                    project.directory.join(".dags"),
                    scene.folder(&project.name, format),
                )
                .unwrap();
            }
            if project.name == DRAINED {
                scene.drain();
            }
            let mut command = machine.command(&project.python, &project.directory);
            // BigFlow runs `python setup.py` itself.
            let path = format!(
                "{}:{}",
                project.python.parent().unwrap().display(),
                std::env::var("PATH").unwrap()
            );
            let output = command
                .env("PATH", path)
                .arg(&script)
                .arg(&answer)
                .arg(START_TIME)
                .args(DATES)
                .output()
                .unwrap();
            assert!(
                output.status.success(),
                "{}: {}",
                project.name,
                String::from_utf8_lossy(&output.stderr)
            );
            let mut said: Value = read(&answer);
            for variable in said["variables"].as_array().unwrap() {
                let variable = variable.as_str().unwrap();
                let value = format!("value of {variable}");
                scene.variables.insert(variable.to_owned(), value.into());
            }
            let Value::Object(dags) = said["dags"].take() else {
                panic!("{said}")
            };
            assert!(!dags.is_empty(), "{}", project.name);
            scene.said.insert(project.name.clone(), dags);
        }
        Some(scene)
    }

    /// Writes an end into the project's files, as `deploy --retire drain` does.
    fn drain(&self) {
        for format in ["default", "bigflow-1.11"] {
            let drained = self.folder(DRAINED_FOLDER, format);
            std::fs::create_dir(&drained).unwrap();
            for entry in std::fs::read_dir(self.folder(DRAINED, format)).unwrap() {
                let path = entry.unwrap().path();
                if path.extension().is_some_and(|extension| extension == "py") {
                    let file = std::fs::read(&path).unwrap();
                    let file = forebay::dags::with_end_date(&file, END.parse().unwrap());
                    let target = drained.join(path.file_name().unwrap());
                    std::fs::write(target, file.unwrap()).unwrap();
                }
            }
        }
    }

    fn machine(&self, project: &Project) -> Machine {
        Machine::new().with_python(&project.python)
    }

    fn folder(&self, project: &str, format: &str) -> PathBuf {
        let folder = self.scratch.path().join("dags").join(format);
        std::fs::create_dir_all(&folder).unwrap();
        folder.join(project)
    }

    /// Loads every project's DAG files of this format in one process of Airflow.
    fn load(&self, airflow: &Path, format: &str) -> BTreeMap<String, Loaded> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let home = tempfile::tempdir().unwrap();
        let [request, answer] = ["request.json", "answer.json"].map(|name| home.path().join(name));
        let folders: BTreeMap<_, _> = self
            .projects
            .iter()
            .map(|project| project.name.as_str())
            .chain([DRAINED_FOLDER])
            .map(|name| (name, self.folder(name, format)))
            .collect();
        let document = json!({"folders": folders, "variables": self.variables, "dates": DATES});
        std::fs::write(&request, document.to_string()).unwrap();
        let output = Machine::new()
            .with_variable("AIRFLOW_HOME", home.path().to_str().unwrap())
            .with_variable("AIRFLOW__CORE__LOAD_EXAMPLES", "False")
            .with_variable("AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT", "600")
            .with_variable("AIRFLOW__LOGGING__LOGGING_LEVEL", "CRITICAL")
            .command(airflow, home.path())
            .arg(root.join("tests/airflow_support/read_dags.py"))
            .args([&request, &answer])
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}:\n{}\n{}",
            airflow.display(),
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_value(read(&answer)).unwrap()
    }
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// A folder as Airflow loaded it.
#[derive(serde::Deserialize)]
struct Loaded {
    errors: BTreeMap<String, String>,
    dags: BTreeMap<String, Value>,
}

/// Takes out when runs are due.
fn split(dag: &Value) -> (Value, Value) {
    let mut dag = dag.clone();
    let object = dag.as_object_mut().unwrap();
    let runs = json!([
        object.remove("schedule").unwrap(),
        object.remove("runs").unwrap()
    ]);
    (dag, runs)
}

/// The paths at which two documents differ.
fn differences(path: &str, left: &Value, right: &Value, found: &mut Vec<String>) {
    match (left, right) {
        (Value::Object(left), Value::Object(right)) => {
            let keys: BTreeSet<_> = left.keys().chain(right.keys()).collect();
            for key in keys {
                let of = |object: &Map<String, Value>| object.get(key).cloned().unwrap_or_default();
                differences(&format!("{path}/{key}"), &of(left), &of(right), found);
            }
        }
        _ if left == right => {}
        _ => found.push(format!("{path}: {left} instead of {right}")),
    }
}

/// Takes the known differences out, which must be there.
fn take(found: &mut Vec<String>, known: &str, times: usize) {
    let all = found.len();
    found.retain(|difference| !difference.contains(known));
    assert_eq!(all - found.len(), times, "{known}");
}

fn workflow_of(project: &str, name: &str) -> String {
    let id = name.split("__v").next().unwrap();
    format!("{project}/{id}")
}

#[test]
fn every_airflow_understands_what_the_workflows_say() {
    let Some(airflows) = ["2_3", "2_9", "2_10", "3"]
        .into_iter()
        .map(|name| Some((name, installed(&format!("FOREBAY_TEST_AIRFLOW_{name}"))?)))
        .collect::<Option<Vec<_>>>()
    else {
        return;
    };
    let Some(scene) = Scene::new() else {
        return;
    };
    let loaded: BTreeMap<_, _> = std::thread::scope(|scope| {
        let both = airflows.iter().flat_map(|(name, python)| {
            ["default", "bigflow-1.11"].map(|format| (*name, python, format))
        });
        // As many at a time as there are formats: each takes a processor.
        both.collect::<Vec<_>>()
            .chunks(2)
            .flat_map(|chunk| {
                let running: Vec<_> = chunk
                    .iter()
                    .map(|&(name, python, format)| {
                        let scene = &scene;
                        (
                            (name, format),
                            scope.spawn(move || scene.load(python, format)),
                        )
                    })
                    .collect();
                running
                    .into_iter()
                    .map(|(key, handle)| (key, handle.join().unwrap()))
                    .collect::<Vec<_>>()
            })
            .collect()
    });
    the_default_format_is_the_workflow(&scene, &loaded);
    bigflows_format_has_the_faults_that_are_mended(&scene, &loaded);
    a_draining_dag_has_an_end_and_is_otherwise_the_same(&loaded);
}

fn a_draining_dag_has_an_end_and_is_otherwise_the_same(loaded: &AllLoaded) {
    for ((airflow, format), folders) in loaded {
        let drained = &folders[DRAINED_FOLDER];
        let before = &folders[DRAINED];
        assert_eq!(
            drained.errors.keys().collect::<Vec<_>>(),
            before.errors.keys().collect::<Vec<_>>(),
            "Airflow {airflow}, {format}: {:?}",
            drained.errors
        );
        assert_eq!(drained.dags.len(), before.dags.len());
        for (id, dag) in &drained.dags {
            let mut dag = dag.clone();
            let end = dag.as_object_mut().unwrap().remove("end_date").unwrap();
            assert_eq!(end, END, "Airflow {airflow}, {format}, {id}");
            assert_eq!(dag, before.dags[id], "Airflow {airflow}, {format}, {id}");
        }
    }
    let default = &loaded[&("3", "default")][DRAINED_FOLDER];
    assert!(!default.dags.is_empty());
}

type AllLoaded = BTreeMap<(&'static str, &'static str), BTreeMap<String, Loaded>>;

fn the_default_format_is_the_workflow(scene: &Scene, loaded: &AllLoaded) {
    let due = &loaded[&("2_9", "bigflow-1.11")];
    let mut found = Vec::new();
    let mut compared = 0;
    for ((airflow, _), folders) in loaded
        .iter()
        .filter(|((_, format), _)| *format == "default")
    {
        for (project, said) in &scene.said {
            let Loaded { errors, dags } = &folders[project];
            assert_eq!(errors, &BTreeMap::new(), "Airflow {airflow}, {project}");
            assert_eq!(
                dags.keys().collect::<Vec<_>>(),
                said.keys().collect::<Vec<_>>(),
                "Airflow {airflow}, {project}"
            );
            for (id, dag) in dags {
                let path = format!("Airflow {airflow}, {project}, {id}");
                let (dag, runs) = split(dag);
                differences(&path, &dag, &said[id], &mut found);
                // Without tasks there is nothing to run; only Airflow 3 does that on time.
                let has_tasks = said[id]["tasks"] != json!({});
                if let Some(bigflows) = due[project].dags.get(id).filter(|_| has_tasks) {
                    differences(
                        &format!("{path} runs"),
                        &runs,
                        &split(bigflows).1,
                        &mut found,
                    );
                    compared += 1;
                }
            }
        }
    }
    let shown: Vec<_> = found.iter().take(20).map(String::as_str).collect();
    assert!(
        found.is_empty(),
        "{} differences, the first of them:\n{}",
        found.len(),
        shown.join("\n")
    );
    assert!(compared > 300, "only {compared} DAGs were compared");
}

/// What each release makes of BigFlow's own files. If one of these is no longer so,
/// `default_format.rs` has a mend too many.
fn bigflows_format_has_the_faults_that_are_mended(scene: &Scene, loaded: &AllLoaded) {
    // A generator of secrets is used up after the first job.
    let secrets = "secrets/generated";
    for ((airflow, _), folders) in loaded
        .iter()
        .filter(|((_, format), _)| *format != "default")
    {
        for (project, Loaded { errors, dags }) in folders {
            let Some(said) = scene.said.get(project) else {
                continue;
            };
            let mut all_errors = errors.iter();
            if *airflow == "3" {
                assert_eq!(errors.len(), said.len(), "{project}");
                assert!(
                    all_errors
                        .all(|(_, error)| error.contains("No module named 'airflow.contrib'")),
                    "{errors:?}"
                );
                continue;
            }
            for (file, error) in all_errors {
                assert_eq!(workflow_of(project, file), WITHOUT_RETRY_DELAY, "{error}");
                assert!(error.contains("NoneType"), "{error}");
            }
            assert_eq!(errors.len() + dags.len(), said.len(), "{project}");
            for (id, dag) in dags {
                let mut found = Vec::new();
                differences("", &split(dag).0, &said[id], &mut found);
                // '2.10.5' < '2.3.0', as texts.
                if *airflow == "2_10" {
                    take(
                        &mut found,
                        "/config_file: null instead of",
                        said[id]["tasks"].as_object().unwrap().len(),
                    );
                }
                if workflow_of(project, id) == secrets {
                    take(&mut found, "/tasks/second/pod/secrets: [] instead of", 1);
                }
                assert_eq!(
                    found,
                    Vec::<String>::new(),
                    "Airflow {airflow}, {project}, {id}"
                );
            }
        }
    }
}
