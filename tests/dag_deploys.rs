//! DAG files on their way from workflows to `dags/`: when their workflows start, what their
//! DAGs are called, what is refused, what is taken from BigFlow's own build, and that nothing
//! is asked twice.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

#[path = "support/forebay.rs"]
#[allow(dead_code)]
mod forebay_support;

use forebay_support::{Finished, Machine, installed};

/// A project that is deployed into folders, on a machine that counts the programs it starts.
struct Scene {
    machine: Machine,
    python: PathBuf,
    directory: tempfile::TempDir,
}

const WORKFLOWS: &str = "import bigflow

class PrintJob(bigflow.Job):
    def execute(self, context):
        print('hello')

daily = bigflow.Workflow(workflow_id='daily', definition=[PrintJob('print')])
";

impl Scene {
    fn new() -> Option<Self> {
        let python = installed("FOREBAY_TEST_BIGFLOW_PYTHON")?;
        let directory = tempfile::tempdir().unwrap();
        let programs = directory.path().join("programs");
        std::fs::create_dir(&programs).unwrap();
        let log = directory.path().join("started");
        for (name, program) in [("git", Path::new("git")), ("python", &python)] {
            let program = match program.is_absolute() {
                true => program.to_owned(),
                false => std::env::split_paths(&std::env::var_os("PATH").unwrap())
                    .map(|folder| folder.join(program))
                    .find(|path| path.is_file())
                    .unwrap(),
            };
            let path = programs.join(name);
            let text = format!(
                "#!/bin/sh\necho {name} >> '{}'\nexec '{}' \"$@\"\n",
                log.display(),
                program.display()
            );
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let path = format!(
            "{}:{}",
            programs.display(),
            std::env::var("PATH").unwrap_or_default()
        );
        let scene = Self {
            machine: Machine::new()
                .with_python(&python)
                .with_variable("PATH", &path),
            python,
            directory,
        };
        std::fs::create_dir(scene.project()).unwrap();
        scene.write(
            "Dockerfile",
            "FROM python:3.11-slim\nWORKDIR /app\nCOPY ./dist dist\nRUN pip install dist/*.whl\n",
        );
        scene.write("resources/requirements.txt", "");
        scene.write(
            "setup.py",
            "import bigflow.build\n\nbigflow.build.setup(name='flow')\n",
        );
        scene.write(
            "deployment_config.py",
            "from bigflow import Config\n\ndeployment_config = Config('local', {\n    'docker_repository': 'oci:.local/images',\n    'dags_bucket': 'file://.local/composer',\n})\n",
        );
        scene.settings("");
        scene.write("flow/__init__.py", "");
        scene.write("flow/workflows.py", WORKFLOWS);
        scene.write(".gitignore", ".local\n.dags\n");
        scene.git(&["init", "-q"]);
        scene.commit();
        Some(scene)
    }

    fn project(&self) -> PathBuf {
        self.directory.path().join("project")
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.project().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn settings(&self, dags: &str) {
        self.write(
            "pyproject.toml",
            &format!("[tool.forebay.environments.local]\nbase = 'scratch'\npython = '3.11'\n\n[tool.forebay.dags]\n{dags}"),
        );
    }

    fn git(&self, arguments: &[&str]) {
        self.machine.run(&self.project(), "git", arguments);
    }

    fn commit(&self) {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "-m", "A change"]);
    }

    fn run(&self, arguments: &[&str]) -> Finished {
        self.machine.forebay(&self.project(), arguments)
    }

    fn json(&self, arguments: &[&str]) -> Value {
        self.machine.forebay_json(&self.project(), arguments)
    }

    /// Names in `dags/` with their texts.
    fn dags(&self) -> BTreeMap<String, String> {
        let Ok(folder) = std::fs::read_dir(self.project().join(".local/composer/dags")) else {
            return BTreeMap::new();
        };
        folder
            .map(|entry| {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                (name, std::fs::read_to_string(path).unwrap())
            })
            .filter(|(name, _)| name.ends_with(".py"))
            .collect()
    }

    fn names(&self) -> Vec<String> {
        self.dags().into_keys().collect()
    }

    /// The record of a generation.
    fn record(&self, generation: u64) -> Value {
        let path =
            format!(".local/composer/forebay/v1/flow/local/generations/{generation:08}.json");
        serde_json::from_slice(&std::fs::read(self.project().join(path)).unwrap()).unwrap()
    }

    /// What `work` starts of git and Python.
    fn started<T>(&self, work: impl FnOnce() -> T) -> (T, String) {
        let log = self.directory.path().join("started");
        let _ = std::fs::remove_file(&log);
        let result = work();
        (result, std::fs::read_to_string(&log).unwrap_or_default())
    }
}

fn add_workflow(scene: &Scene, id: &str) {
    let path = scene.project().join("flow/workflows.py");
    let text = std::fs::read_to_string(&path).unwrap();
    let workflow =
        format!("{id} = bigflow.Workflow(workflow_id='{id}', definition=[PrintJob('print')])\n");
    std::fs::write(path, text + &workflow).unwrap();
    scene.commit();
}

#[test]
fn without_a_start_time_what_is_live_goes_on_as_it_began() {
    let Some(scene) = Scene::new() else { return };
    scene.json(&["deploy", "--start-time", "2026-01-31 05:00:00"]);
    let first = scene.names();
    assert!(
        first[0].ends_with("__2026_01_31_05_00_00_dag.py"),
        "{first:?}"
    );
    let recorded = |generation: u64| {
        let record = scene.record(generation);
        let dags = record["dags"].as_object().unwrap().clone();
        dags.into_values()
            .map(|dag| dag["start"].clone())
            .collect::<Vec<_>>()
    };
    let start =
        |explicit: bool| serde_json::json!({"time": "2026-01-31T05:00:00", "explicit": explicit});
    assert_eq!(recorded(1), [start(true)]);

    // Nothing has changed, and nobody says otherwise.
    assert_eq!(scene.json(&["deploy"])["changed"], false);
    assert_eq!(scene.json(&["plan"])["changes"], false);

    // A changed workflow keeps its start, a new one gets the generation's.
    add_workflow(&scene, "hourly");
    scene.json(&["deploy"]);
    let second = scene.names();
    assert_eq!(second.len(), 2);
    assert!(
        second
            .iter()
            .all(|name| name.ends_with("__2026_01_31_05_00_00_dag.py")),
        "{second:?}"
    );
    assert!(!second.contains(&first[0]), "another image, another file");
    assert_eq!(recorded(2), [start(true), start(false)]);
    assert_eq!(scene.json(&["deploy"])["changed"], false);

    // Another machine knows as much, from the bucket.
    let other = Machine::new().with_python(&scene.python);
    assert_eq!(
        other.forebay_json(&scene.project(), ["deploy"])["changed"],
        false
    );

    // NOW is what BigFlow does: the current hour, for what has changed.
    add_workflow(&scene, "weekly");
    scene.json(&["deploy", "--start-time", "NOW"]);
    let third = scene.names();
    assert!(
        third.iter().all(|name| !name.contains("__2026_01_31_05")),
        "{third:?}"
    );

    // A build has no environment to look at.
    let built = scene.json(&["build-dags"]);
    let built: Vec<_> = built["dags"].as_object().unwrap().keys().collect();
    assert!(
        built.iter().all(|name| !name.contains("__2026_01_31_05")),
        "{built:?}"
    );
}

#[test]
fn the_projects_own_start_time_factory_is_asked_for_the_live_start_time() {
    let Some(scene) = Scene::new() else { return };
    scene.write(
        "flow/workflows.py",
        &WORKFLOWS.replace(
            "definition=",
            "start_time_factory=lambda start: start.replace(minute=30), definition=",
        ),
    );
    scene.json(&["deploy", "--start-time", "2026-01-31 05:00:00"]);
    add_workflow(&scene, "hourly");
    scene.json(&["deploy"]);
    let dags = scene.dags();
    let daily = dags
        .iter()
        .find(|(name, _)| name.starts_with("daily__"))
        .unwrap()
        .1;
    assert!(
        daily.contains("datetime.datetime(2026, 1, 31, 5, 30)"),
        "{daily}"
    );
}

#[test]
fn a_stable_id_keeps_its_file_through_changes() {
    let Some(scene) = Scene::new() else { return };
    scene.json(&["deploy", "--start-time", "2026-01-31"]);
    assert!(scene.names()[0].starts_with("daily__v"));

    scene.settings("ids = 'stable'\n");
    let stable = scene.json(&["deploy"]);
    assert_eq!(
        stable["replaced"],
        serde_json::json!(["daily"]),
        "another id is another file"
    );
    assert_eq!(scene.names(), ["daily_dag.py"]);
    let before = scene.dags();
    assert!(before["daily_dag.py"].contains("DAG(\n    'daily',"));

    add_workflow(&scene, "hourly");
    let changed = scene.json(&["deploy"]);
    assert_eq!(changed["replaced"], serde_json::json!(["daily"]));
    assert_eq!(changed["added"], serde_json::json!(["hourly"]));
    assert_eq!(scene.names(), ["daily_dag.py", "hourly_dag.py"]);
    assert_ne!(scene.dags()["daily_dag.py"], before["daily_dag.py"]);
    assert_eq!(scene.json(&["deploy"])["changed"], false);

    // What somebody else has written under that name is not replaced.
    let file = scene.project().join(".local/composer/dags/daily_dag.py");
    std::fs::write(&file, "# somebody's").unwrap();
    add_workflow(&scene, "weekly");
    let refused = scene.run(&["deploy"]);
    assert_eq!(refused.status, 6, "{}", refused.stderr);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "# somebody's");

    // Back to the generation before, under the same names.
    scene.json(&["rollback", "2", "--restore-drift"]);
    assert_eq!(scene.dags(), before);

    let refused = scene.run(&["build-dags", "--dag-format", "bigflow-1.11"]);
    assert_eq!(refused.status, 2);
    assert!(
        refused.stderr.contains("ids = \"versioned\""),
        "{}",
        refused.stderr
    );
}

#[test]
fn what_would_break_is_refused_before_anything_is_sent() {
    let Some(scene) = Scene::new() else { return };
    let with =
        |argument: &str| WORKFLOWS.replace("definition=", &format!("{argument}, definition="));
    for (text, status, what, next) in [
        (
            with("schedule_interval='61 * * * *'"),
            2,
            "flow/workflows.py, line 7: workflow daily has the schedule_interval '61 * * * *', which Airflow cannot read: \"61\" is no minute",
            "next: write a cron expression",
        ),
        (
            with("schedule_interval='@dayly'"),
            2,
            "Airflow's presets are @once",
            "next: write a cron expression",
        ),
        (
            with("schedule_interval=__import__('datetime').timedelta(0)"),
            2,
            "longer than nothing",
            "next: write a cron expression",
        ),
        (
            with("secrets=['not a name']"),
            2,
            "flow/workflows.py, line 7: workflow daily has the secret 'not a name'",
            "next: write the secret's name",
        ),
        (
            format!(
                "{WORKFLOWS}again = bigflow.Workflow(workflow_id='daily', definition=[PrintJob('p')])\n"
            ),
            1,
            "two workflows have the id daily: one in flow/workflows.py, line 7, one in flow/workflows.py, line 8",
            "next: give one of them another workflow_id",
        ),
        (
            format!(
                "{WORKFLOWS}a, b = PrintJob('a'), PrintJob('b')\ncyclic = bigflow.Workflow(workflow_id='cyclic', definition=bigflow.Definition({{a: [b], b: [a]}}))\n"
            ),
            1,
            "flow/workflows.py, line 9: InvalidJobGraph: Found cyclic dependency",
            "next: take one of these dependencies out of the workflow's definition",
        ),
        (
            "import not_installed_anywhere\n".to_owned(),
            1,
            "flow/workflows.py, line 1: ModuleNotFoundError",
            "next: install not_installed_anywhere",
        ),
        (
            "x = 1\n".to_owned(),
            6,
            "define no workflow",
            "next: define a bigflow.Workflow",
        ),
    ] {
        scene.write("flow/workflows.py", &text);
        let refused = scene.run(&["deploy"]);
        assert_eq!(refused.status, status, "{}", refused.stderr);
        assert!(refused.stderr.contains(what), "{}", refused.stderr);
        assert!(refused.stderr.contains(next), "{}", refused.stderr);
        assert!(scene.dags().is_empty());
        assert!(!scene.project().join(".local/composer/forebay").exists());
        assert!(!scene.project().join(".local/images/index.json").exists());
    }
}

#[test]
fn a_folder_that_bigflow_built_is_deployed_and_recorded() {
    let Some(scene) = Scene::new() else { return };
    let build = |start_time: &str| {
        let arguments = ["-m", "bigflow", "build-dags", "--start-time", start_time];
        scene.machine.run(&scene.project(), "python", arguments);
    };
    build("2025-12-24");
    let missing = scene.run(&["deploy-dags", "--dags-dir", ".dags"]);
    assert_eq!(missing.status, 1, "{}", missing.stderr);
    assert!(
        missing.stderr.contains("is not in the registry"),
        "{}",
        missing.stderr
    );
    assert!(scene.dags().is_empty());

    let image = scene.json(&["deploy-image"])["image"].clone();
    let deployed = scene.json(&["deploy-dags", "-dd", ".dags"]);
    assert_eq!(deployed["image"], image);
    assert_eq!(deployed["added"], serde_json::json!(["daily"]));
    let built: BTreeMap<_, _> = std::fs::read_dir(scene.project().join(".dags"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "py"))
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, std::fs::read_to_string(path).unwrap())
        })
        .collect();
    assert_eq!(scene.dags(), built);
    let record = scene.record(2);
    let dag = record["dags"].as_object().unwrap().values().next().unwrap();
    assert_eq!(dag["workflow"], "daily");
    assert_eq!(dag["image"], image);
    assert_eq!(dag["start"]["time"], "2025-12-24T00:00:00");
    assert_eq!(record["action"], "deploy-dags");
    assert_eq!(
        scene.json(&["deploy", "--dags-dir", ".dags"])["changed"],
        false
    );

    // Whatever is in the files counts, and what was there can be had again.
    build("2025-12-25");
    let changed = scene.json(&["deploy", "--dags-dir", ".dags"]);
    assert_eq!(changed["replaced"], serde_json::json!(["daily"]));
    scene.json(&["rollback"]);
    assert_eq!(scene.dags(), built);

    // Our own build of the same sources goes on from the start time of the folder.
    scene.json(&["deploy"]);
    assert!(
        scene.names()[0].contains("__2025_12_24_"),
        "{:?}",
        scene.names()
    );

    let elsewhere = scene.run(&[
        "deploy-dags",
        "--dags-dir",
        ".dags",
        "-r",
        "oci:.local/other",
    ]);
    assert_eq!(elsewhere.status, 2);
    assert!(
        elsewhere.stderr.contains("--docker-repository"),
        "{}",
        elsewhere.stderr
    );
    let nothing = scene.run(&["deploy-dags", "--dags-dir", "flow"]);
    assert_eq!(nothing.status, 2);
    assert!(
        nothing.stderr.contains("no DAG file of BigFlow's"),
        "{}",
        nothing.stderr
    );
    let both = scene.run(&["deploy", "--dags-dir", ".dags", "--start-time", "NOW"]);
    assert_eq!(both.status, 2);
}

#[test]
fn a_build_of_unchanged_sources_starts_no_process() {
    let Some(scene) = Scene::new() else { return };
    // Files that only Python understands, too.
    scene.write(
        "setup.py",
        "import bigflow.build\n\nbigflow.build.setup(name=''.join(['fl', 'ow']))\n",
    );
    scene.write(
        "deployment_config.py",
        "from bigflow import Config\n\ndeployment_config = Config('local', {\n    'docker_repository': '{}:{}'.format('oci', '.local/images'),\n    'dags_bucket': 'file://.local/composer',\n})\n",
    );
    scene.commit();
    let python = scene.directory.path().join("programs/python");
    let python = python.to_str().unwrap();
    let build = || scene.machine.forebay(&scene.project(), ["build", "--json"]);
    let with_shim = Machine::new().with_variable(
        "PATH",
        &format!(
            "{}:{}",
            scene.directory.path().join("programs").display(),
            std::env::var("PATH").unwrap()
        ),
    );
    let build_with_shim = || {
        let finished = with_shim.forebay(&scene.project(), ["build", "--python", python]);
        assert_eq!(finished.status, 0, "{}", finished.stderr);
    };
    build();
    // What was written a moment ago is judged again; then it is settled.
    for _ in 0..2 {
        build_with_shim();
    }
    let ((), started) = scene.started(build_with_shim);
    assert_eq!(started, "");

    // A dirty tree is no less unchanged.
    scene.write("README.md", "new");
    scene.git(&["add", "-N", "README.md"]);
    scene.write(
        "setup.py",
        "import bigflow.build\n\n\nbigflow.build.setup(name=''.join(['fl', 'ow']))\n",
    );
    for _ in 0..2 {
        build_with_shim();
    }
    let ((), started) = scene.started(build_with_shim);
    assert_eq!(started, "");
}

#[test]
fn properties_are_shown_but_not_what_variables_hold() {
    let Some(scene) = Scene::new() else { return };
    scene.write(
        "deployment_config.py",
        "import os\nfrom bigflow import Config\n\ndeployment_config = Config('local', {\n    'docker_repository': 'oci:.local/images',\n    'dags_bucket': 'file://{folder}',\n    'folder': None,\n    'url': 'https://{token}@host',\n    'token': os.environ['ACCESS'],\n    'flags': [1, {'a': os.getenv('ACCESS')}],\n    'limit': 3,\n}).add_configuration('prod', {'folder': 'there'})\n",
    );
    let machine = Machine::new()
        .with_variable("ACCESS", "hunter2")
        .with_variable("bf_folder", "somewhere");
    let json = machine.forebay_json(&scene.project(), ["config"]);
    assert_eq!(
        json,
        serde_json::json!({
            "environment": "local",
            "properties": {
                "docker_repository": "oci:.local/images",
                "dags_bucket": "***",
                "folder": "***",
                "url": "***",
                "token": "***",
                "flags": "***",
                "limit": 3,
                "env": "local",
            },
            "masked": {
                "dags_bucket": "bf_folder",
                "folder": "bf_folder",
                "url": "ACCESS",
                "token": "ACCESS",
                "flags": "ACCESS",
            },
        })
    );
    let text = machine.forebay(&scene.project(), ["config", "-c", "prod"]);
    assert_eq!(text.status, 0, "{}", text.stderr);
    assert!(text.stdout.contains("file://there"), "{}", text.stdout);
    assert!(
        text.stdout.contains("*** (from $ACCESS)"),
        "{}",
        text.stdout
    );
    assert!(!text.stdout.contains("hunter2"));
    assert_eq!(
        machine
            .forebay(&scene.project(), ["config", "-c", "qa"])
            .status,
        2
    );
}

#[test]
fn a_release_is_pushed() {
    let Some(scene) = Scene::new() else { return };
    let origin = scene.directory.path().join("origin");
    scene.git(&["init", "-q", "--bare", origin.to_str().unwrap()]);
    scene.git(&["remote", "add", "origin", origin.to_str().unwrap()]);
    assert_eq!(scene.json(&["release"])["tag"], "0.1");
    assert_eq!(scene.run(&["release"]).stdout, "0.2\n");
    let tags = scene.machine.run(&origin, "git", ["tag"]);
    assert_eq!(tags, "0.1\n0.2\n");
    assert_eq!(
        scene.run(&["pv"]).stdout,
        "0.1\n",
        "of two tags git describes by the first"
    );
    let key = scene.run(&["release", "-i", "/nowhere/key"]);
    assert_eq!(key.status, 1);
    assert!(key.stderr.contains("no identity file"), "{}", key.stderr);
}
