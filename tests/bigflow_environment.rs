//! A Composer bucket that BigFlow 1.11.3 itself has filled, and that others share: a project
//! moves in, is asked what becomes of what is there, and can go back to BigFlow's own files.
//! A registry, a storage emulator and a terminal are real.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;

#[path = "support/docker_registry.rs"]
#[allow(dead_code)]
mod docker_registry;
#[path = "support/emulator.rs"]
#[allow(dead_code)]
mod emulator;
#[path = "support/forebay.rs"]
#[allow(dead_code)]
mod forebay_support;
#[path = "support/schema.rs"]
mod schema;

use docker_registry::DockerRegistry;
use emulator::Emulator;
use forebay_support::{Finished, Machine, installed};

const BUCKET: &str = "composer-bucket";
const START: &str = "2026-01-31 05:00:00";

const JOBS: &str = "import bigflow

class PrintJob(bigflow.Job):
    def execute(self, context):
        print('hello')

";

/// BigFlow's own `build-dags` and `deploy-dags`, without its questions to docker.
const BIGFLOW: &str = "
import sys
import bigflow.build.operate, bigflow.build.spec, bigflow.deploy
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage
bucket, repository, start, clear = sys.argv[1:]
project = bigflow.build.spec.get_project_spec()
bigflow.build.operate.build_dags(project, start_time=start, workflow_id=None)
bigflow.deploy.check_images_exist = lambda **arguments: None
bigflow.deploy.deploy_dags_folder(
    '.dags', bucket, 'project', repository, clear_dags_folder=clear == 'clear',
    gs_client=storage.Client(project='project', credentials=AnonymousCredentials()),
)
";

struct Scene {
    machine: Machine,
    registry: DockerRegistry,
    emulator: Emulator,
    runtime: tokio::runtime::Runtime,
    python: PathBuf,
    directory: tempfile::TempDir,
}

impl Scene {
    fn new() -> Option<Self> {
        let python = installed("FOREBAY_TEST_BIGFLOW_PYTHON")?;
        let registry = DockerRegistry::start()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let emulator = runtime.block_on(Emulator::start())?;
        for bucket in [BUCKET, "bigflows-bucket"] {
            runtime.block_on(emulator.create_bucket(bucket));
        }
        let path = format!(
            "{}:{}",
            python.parent().unwrap().display(),
            std::env::var("PATH").unwrap()
        );
        let scene = Self {
            machine: Machine::new()
                .with_python(&python)
                .with_variable("PATH", &path)
                .with_variable(
                    "STORAGE_EMULATOR_HOST",
                    &format!("http://{}", emulator.address),
                ),
            registry,
            emulator,
            runtime,
            python,
            directory: tempfile::tempdir().unwrap(),
        };
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
            &format!(
                "from bigflow import Config\n\ndeployment_config = Config('dev', {{\n    'docker_repository': '{}',\n    'dags_bucket': '{BUCKET}',\n}}, is_default=True).add_configuration('prod', {{\n    'dags_bucket': '{BUCKET}',\n}}).add_configuration('elsewhere', {{\n    'dags_bucket': 'file://.local/elsewhere',\n}})\n",
                scene.repository()
            ),
        );
        let environment = "base = 'scratch'\npython = '3.11'\n";
        scene.write(
            "pyproject.toml",
            &format!("[tool.forebay.environments.dev]\n{environment}[tool.forebay.environments.elsewhere]\n{environment}[tool.forebay.environments.prod]\n{environment}"),
        );
        scene.write("flow/__init__.py", "");
        scene.write(
            ".gitignore",
            ".local\n.dags\nbuild\n*.egg-info\nforebay.lock\n",
        );
        scene.git(&["init", "-q"]);
        Some(scene)
    }

    fn project(&self) -> &Path {
        self.directory.path()
    }

    fn repository(&self) -> String {
        format!("{}/team/flow", self.registry.address())
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.project().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn git(&self, arguments: &[&str]) {
        self.machine.run(self.project(), "git", arguments);
    }

    /// A released version of the project with these workflows.
    fn release(&self, version: &str, workflows: &[&str]) {
        let workflow = |id: &&str| {
            format!("{id} = bigflow.Workflow(workflow_id='{id}', definition=[PrintJob('print')])\n")
        };
        let workflows: String = workflows.iter().map(workflow).collect();
        self.write(
            "flow/workflows.py",
            &format!("{JOBS}{workflows}# {version}\n"),
        );
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "-m", version]);
        self.git(&["tag", version]);
    }

    /// What `bigflow deploy` of this version leaves in registry and bucket.
    fn bigflow(&self, bucket: &str, clear: &str) {
        // The image goes to the registry under the version's tag; what else that records is elsewhere.
        self.json(&["deploy-image", "-c", "elsewhere", "-r", &self.repository()]);
        let repository = self.repository();
        let arguments = ["-c", BIGFLOW, bucket, &repository, START, clear];
        self.machine.run(self.project(), &self.python, arguments);
        self.git(&["checkout", "-q", "."]);
    }

    fn run(&self, arguments: &[&str]) -> Finished {
        self.machine.forebay(self.project(), arguments)
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let document = self.machine.forebay_json(self.project(), arguments);
        schema::assert_follows(arguments, &document);
        document
    }

    /// The same in a terminal, where somebody types `answers`.
    fn in_terminal(&self, arguments: &[&str], answers: &str) -> (i32, String) {
        let words = [
            env!("CARGO_BIN_EXE_forebay"),
            "--python",
            self.python.to_str().unwrap(),
        ];
        let line: Vec<_> = words
            .iter()
            .chain(arguments)
            .map(|word| format!("'{word}'"))
            .collect();
        let mut child = self
            .machine
            .command("script", self.project())
            .env("TERM", "dumb")
            .env("NO_COLOR", "1")
            .args(["-qec", &line.join(" "), "/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(answers.as_bytes())
            .unwrap();
        let finished = Finished::from(child.wait_with_output().unwrap());
        (finished.status, finished.stdout.replace('\r', ""))
    }

    fn request(&self, method: http::Method, path: &str, body: &'static str) -> bytes::Bytes {
        let url = format!("http://{}{path}", self.emulator.address);
        let http = forebay::http::HttpClient::new(&Default::default()).unwrap();
        self.runtime.block_on(async {
            let request = http.request(method, url.parse().unwrap()).body(body);
            let answer = request.send().await.unwrap();
            assert!(answer.status().is_success(), "{path}: {}", answer.status());
            answer.bytes().await.unwrap()
        })
    }

    fn upload(&self, bucket: &str, key: &str, body: &'static str) {
        let path = format!("/upload/storage/v1/b/{bucket}/o?uploadType=media&name={key}");
        self.request(http::Method::POST, &path, body);
    }

    /// Everything of the bucket that is not our records.
    fn objects(&self, bucket: &str) -> BTreeMap<String, bytes::Bytes> {
        let listing = self.request(http::Method::GET, &format!("/storage/v1/b/{bucket}/o"), "");
        let listing: Value = serde_json::from_slice(&listing).unwrap();
        let names = listing["items"].as_array().unwrap().iter();
        names
            .map(|item| item["name"].as_str().unwrap().to_owned())
            .filter(|name| !name.starts_with("forebay/"))
            .map(|name| {
                let path = format!(
                    "/storage/v1/b/{bucket}/o/{}?alt=media",
                    name.replace('/', "%2F")
                );
                let bytes = self.request(http::Method::GET, &path, "");
                (name, bytes)
            })
            .collect()
    }

    fn has_tag(&self, tag: &str) -> bool {
        let url = format!(
            "http://{}/v2/team/flow/manifests/{tag}",
            self.registry.address()
        );
        let http = forebay::http::HttpClient::new(&Default::default()).unwrap();
        self.runtime.block_on(async {
            let request = http.request(http::Method::HEAD, url.parse().unwrap());
            let request = request.header("accept", "application/vnd.oci.image.manifest.v1+json");
            request.send().await.unwrap().status().is_success()
        })
    }

    /// A message without what differs from run to run.
    fn plain(&self, text: &str) -> String {
        text.replace(&self.repository(), "REPOSITORY")
    }
}

/// The message without progress and warnings.
fn error(finished: &Finished) -> &str {
    let start = finished.stderr.find("error: ").unwrap_or_default();
    &finished.stderr[start..]
}

fn names(objects: &BTreeMap<String, bytes::Bytes>) -> Vec<&str> {
    objects.keys().map(String::as_str).collect()
}

#[test]
fn a_project_moves_into_what_bigflow_has_filled() {
    let Some(scene) = Scene::new() else { return };
    for bucket in [BUCKET, "bigflows-bucket"] {
        scene.upload(bucket, "dags/airflow_monitoring.py", "composer's own");
        scene.upload(bucket, "dags/other_team.py", "another team's");
        scene.upload(bucket, "dags_backup/old.py", "nobody's business");
    }
    scene.release("0.1.0", &["daily"]);
    scene.bigflow(BUCKET, "keep");
    scene.release("0.2.0", &["daily", "hourly"]);
    scene.bigflow(BUCKET, "keep");
    let bigflows = scene.objects(BUCKET);
    insta::assert_debug_snapshot!(names(&bigflows), @r#"
    [
        "dags/airflow_monitoring.py",
        "dags/daily__v0_1_0__2026_01_31_05_00_00_dag.py",
        "dags/daily__v0_2_0__2026_01_31_05_00_00_dag.py",
        "dags/hourly__v0_2_0__2026_01_31_05_00_00_dag.py",
        "dags/image_version.txt",
        "dags/other_team.py",
        "dags_backup/old.py",
    ]
    "#);

    old_files_are_found_and_adopted(&scene, &bigflows);
    what_bigflow_left_comes_back(&scene, &bigflows);
    a_retired_workflow_comes_to_its_end(&scene);
    two_environments_share_the_bucket(&scene);
    the_folder_is_cleared_by_consent(&scene);
    the_doctor_finds_what_is_wrong(&scene);
}

fn old_files_are_found_and_adopted(scene: &Scene, bigflows: &BTreeMap<String, bytes::Bytes>) {
    scene.release("0.3.0", &["daily", "hourly"]);
    // Nobody is there to be asked.
    let refused = scene.run(&["deploy"]);
    assert_eq!(refused.status, 6);
    insta::assert_snapshot!(scene.plain(error(&refused)), @r#"
    error: 3 files of this project that Forebay did not deploy are in dags/, and would run beside the new ones
      why: dags/daily__v0_1_0__2026_01_31_05_00_00_dag.py: workflow daily, version 0.1.0
      why: dags/daily__v0_2_0__2026_01_31_05_00_00_dag.py: workflow daily, version 0.2.0
      why: dags/hourly__v0_2_0__2026_01_31_05_00_00_dag.py: workflow hourly, version 0.2.0
      next: --adopt records them as a generation, which can be rolled back to, and replaces them; --no-adopt leaves them running beside the new ones
    "#);
    let planned = scene.run(&["plan", "--json"]);
    assert_eq!(planned.status, 6);
    let planned: Value = serde_json::from_str(&planned.stdout).unwrap();
    assert_eq!(planned["generation"], Value::Null);
    assert_eq!(planned["obstacles"][0]["exit"], 6);
    let planned = scene.json(&["plan", "--adopt"]);
    assert_eq!(planned["adopted"].as_array().unwrap().len(), 3);
    assert_eq!(planned["replaced"], serde_json::json!(["daily", "hourly"]));
    assert_eq!(
        (&planned["uploads"], &planned["deletes"]),
        (&2.into(), &3.into())
    );
    assert_eq!(planned["obstacles"], serde_json::json!([]));
    let examined = scene.json(&["doctor"]);
    assert_eq!(examined["healthy"], true, "{examined}");
    assert_eq!(found(&examined, "warning"), ["bigflow"], "{examined}");
    assert_eq!(&scene.objects(BUCKET), bigflows, "nothing was changed");

    // Somebody is there, and agrees.
    let (status, text) = scene.in_terminal(&["deploy", "-q"], "perhaps\ny\n");
    assert_eq!(status, 0, "{text}");
    let shown = text.find("3 DAG files").unwrap();
    let end = text.find("image sha256").unwrap();
    insta::assert_snapshot!(scene.plain(&text[shown..end]), @r#"
    3 DAG files of this project that Forebay did not deploy:
      dags/daily__v0_1_0__2026_01_31_05_00_00_dag.py: workflow daily, version 0.1.0
      dags/daily__v0_2_0__2026_01_31_05_00_00_dag.py: workflow daily, version 0.2.0
      dags/hourly__v0_2_0__2026_01_31_05_00_00_dag.py: workflow hourly, version 0.2.0
    Left alone, they run beside the new ones.
    Adopt them: record them as a generation that can be rolled back to, and replace them now? [Y/n] Adopt them: record them as a generation that can be rolled back to, and replace them now? [Y/n] dev: 3 DAG files of BigFlow's are recorded as generation 1
    dev: generation 2 is live
    "#);
    let left = scene.objects(BUCKET);
    insta::assert_debug_snapshot!(names(&left), @r#"
    [
        "dags/airflow_monitoring.py",
        "dags/daily__v0_3_0__2026_01_31_05_00_00_dag.py",
        "dags/hourly__v0_3_0__2026_01_31_05_00_00_dag.py",
        "dags/image_version.txt",
        "dags/other_team.py",
        "dags_backup/old.py",
    ]
    "#);
    assert_eq!(scene.json(&["deploy"])["changed"], false);
}

fn what_bigflow_left_comes_back(scene: &Scene, bigflows: &BTreeMap<String, bytes::Bytes>) {
    let history = scene.json(&["history"]);
    let actions: Vec<_> = history["generations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|generation| generation["action"].as_str().unwrap())
        .collect();
    assert_eq!(actions, ["deploy", "adopt"]);
    assert!(scene.has_tag("forebay-flow_dev-1") && scene.has_tag("forebay-flow_dev-1.1"));
    // On a machine that has seen nothing.
    let other = Machine::new()
        .with_python(&scene.python)
        .with_variable("STORAGE_EMULATOR_HOST", &scene.emulator.address);
    let back = other.forebay_json(scene.project(), ["rollback", "1"]);
    assert_eq!(
        (&back["generation"], &back["rollback_of"]),
        (&3.into(), &1.into())
    );
    assert_eq!(&scene.objects(BUCKET), bigflows);
}

fn a_retired_workflow_comes_to_its_end(scene: &Scene) {
    scene.release("0.4.0", &["daily"]);
    let drained = scene.run(&["deploy", "-q", "--retire", "drain"]);
    assert_eq!(drained.status, 0, "{}", drained.stderr);
    let dags = drained
        .stdout
        .lines()
        .find(|line| line.starts_with("DAGs"))
        .unwrap();
    insta::assert_snapshot!(dags, @"DAGs: 1 replaced, 2 draining until the next deploy");
    let objects = scene.objects(BUCKET);
    let ends = objects.values().filter(|bytes| {
        String::from_utf8_lossy(bytes).contains("\n    end_date=datetime.datetime(")
    });
    assert_eq!(ends.count(), 3);
    let status = scene.run(&["status"]).stdout;
    let draining = status.lines().filter(|line| line.starts_with("draining: "));
    assert_eq!(draining.count(), 3, "{status}");
    let planned = scene.json(&["plan"]);
    assert_eq!(
        (&planned["deletes"], &planned["uploads"]),
        (&3.into(), &0.into())
    );
    assert_eq!(planned["retired"], serde_json::json!(["hourly"]));
    assert_eq!(
        scene.json(&["deploy"])["retired"],
        serde_json::json!(["hourly"])
    );
    insta::assert_debug_snapshot!(names(&scene.objects(BUCKET)), @r#"
    [
        "dags/airflow_monitoring.py",
        "dags/daily__v0_4_0__2026_01_31_05_00_00_dag.py",
        "dags/image_version.txt",
        "dags/other_team.py",
        "dags_backup/old.py",
    ]
    "#);
    assert_eq!(scene.json(&["deploy"])["changed"], false);
}

fn two_environments_share_the_bucket(scene: &Scene) {
    let before = scene.objects(BUCKET);
    let refused = scene.run(&["deploy", "-c", "prod", "--start-time", START]);
    assert_eq!(refused.status, 6);
    insta::assert_snapshot!(scene.plain(error(&refused)), @r#"
    error: 1 of the keys to be written belongs to somebody else: dags/daily__v0_4_0__2026_01_31_05_00_00_dag.py (project flow, environment dev)
      next: rename the workflows, or give this environment a folder of its own with dags_prefix, as in dags/NAME/; nothing was changed
    "#);
    assert_eq!(scene.objects(BUCKET), before);
    // With a folder of its own there is room for both.
    let settings = std::fs::read_to_string(scene.project().join("pyproject.toml")).unwrap();
    scene.write(
        "pyproject.toml",
        &format!("{settings}dags_prefix = 'dags/prod'\n"),
    );
    scene.json(&["deploy", "-c", "prod", "--start-time", START]);
    let after = scene.objects(BUCKET);
    let new: Vec<_> = names(&after)
        .into_iter()
        .filter(|name| !before.contains_key(*name))
        .collect();
    assert_eq!(new.len(), 1);
    assert!(new[0].starts_with("dags/prod/daily__v0_4_0"), "{new:?}");
    scene.write(
        "pyproject.toml",
        &settings.replace(
            "[tool.forebay.environments.prod]\n",
            "[tool.forebay.environments.prod]\ndags_prefix = 'plugins/'\n",
        ),
    );
    let refused = scene.run(&["plan", "-c", "prod"]);
    assert_eq!(refused.status, 2);
    insta::assert_snapshot!(error(&refused), @r#"
    error: dags_prefix of environment prod cannot be used
      why: "plugins/" cannot be a folder of DAG files: Composer reads `dags/` and folders below it, as in `dags/team/`
      next: for example dags_prefix = "dags/team/"
    "#);
    scene.write("pyproject.toml", &settings);
    // A placeholder that nothing replaces: BigFlow would build everything first.
    let refused = scene.run(&["plan", "-r", "127.0.0.1:9/{projekt}/flow"]);
    assert_eq!(refused.status, 2);
    insta::assert_snapshot!(error(&refused), @r#"
    error: environment dev: docker_repository has the placeholder {projekt}, and no property is called projekt
      next: add the property projekt to the deployment configuration, or write its value instead
    "#);
}

fn the_folder_is_cleared_by_consent(scene: &Scene) {
    // What BigFlow leaves of the same files, in a bucket of its own.
    scene.bigflow("bigflows-bucket", "clear");
    let theirs = scene.objects("bigflows-bucket");
    assert!(
        !theirs.contains_key("dags_backup/old.py"),
        "BigFlow's prefix has no slash"
    );

    let before = scene.objects(BUCKET);
    let refused = scene.run(&["deploy", "-cdf"]);
    assert_eq!(refused.status, 6);
    let of_prod = before
        .keys()
        .find(|name| name.starts_with("dags/prod/"))
        .unwrap();
    insta::assert_snapshot!(error(&refused).replace(of_prod, "dags/prod/FILE"), @r#"
    error: 3 files of others would be deleted
      why: dags/image_version.txt
      why: dags/other_team.py
      why: dags/prod/FILE (live in environment prod of project flow)
      next: agree with --yes, or deploy without --clear-dags-folder: they stay as they are
    "#);
    let (status, text) = scene.in_terminal(&["deploy", "-q", "-cdf"], "\n");
    assert_eq!(status, 6, "{text}");
    assert!(text.contains("Delete them? [y/N]"), "{text}");
    assert!(
        text.contains("that was declined; nothing was changed"),
        "{text}"
    );
    assert_eq!(scene.objects(BUCKET), before);

    let (status, text) = scene.in_terminal(&["deploy", "-q", "-cdf"], "yes\n");
    assert_eq!(status, 0, "{text}");
    assert!(text.contains("cleared: 3 files"), "{text}");
    let left = scene.objects(BUCKET);
    let dags = |objects: &BTreeMap<String, bytes::Bytes>| {
        let names = objects.keys().filter(|name| name.starts_with("dags/"));
        names
            .filter(|name| *name != "dags/image_version.txt")
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(dags(&left), dags(&theirs));
    assert!(left.contains_key("dags_backup/old.py"));
    // The other environment learns that somebody has deleted its file.
    let status = scene.json(&["status", "-c", "prod"]);
    assert_eq!(status["generation"], 1);
    // Without a terminal consent is a flag, and nothing is left to be done.
    assert_eq!(scene.json(&["deploy", "-cdf", "--yes"])["changed"], false);
}

/// What the findings with this verdict are about.
fn found(examined: &Value, verdict: &str) -> Vec<String> {
    let findings = examined["findings"].as_array().unwrap().iter();
    findings
        .filter(|finding| finding["verdict"] == verdict)
        .map(|finding| finding["about"].as_str().unwrap().to_owned())
        .collect()
}

fn the_doctor_finds_what_is_wrong(scene: &Scene) {
    scene.upload(BUCKET, "dags//odd.py", "an odd name");
    scene.upload(BUCKET, "dags/late.py/late.py", "an odder one");
    let before = scene.objects(BUCKET);
    let examined = scene.run(&["doctor"]);
    assert_eq!(examined.status, 0, "{}", examined.stderr);
    let python = scene.python.canonicalize().unwrap();
    let text = examined.stdout.replace(python.to_str().unwrap(), "PYTHON");
    let text = text.replace(scene.registry.address(), "REGISTRY");
    let (_, text) = text.split_once('\n').unwrap();
    insta::assert_snapshot!(text, @r#"
    ok       airflow   the DAG files are written for Airflow from 2.3 to 3
    ok       engine    no line of the Dockerfile needs a container
    ok       login     STORAGE_EMULATOR_HOST is set: the bucket is an emulator's, which needs no login
    ok       login     to REGISTRY: nobody (no login was found; run `docker login REGISTRY`)
    ok       bucket    objects can be listed, written, read and deleted
    ok       clock     this machine's clock agrees with the bucket's server
    ok       deploys   generation 5 is live as it was recorded
    ok       others    3 files in dags/ belong to others, and no deploy touches them
    warning  names     dags//odd.py: it has two slashes in a row
                       delete or rename it: Composer's synchronisation of all of dags/ stops at it
    warning  names     dags/late.py/late.py: it is in a folder that is called like a Python file
                       delete or rename it: Composer's synchronisation of all of dags/ stops at it
    ok       rollback  the images of the last 5 generations are in the registry
    ok       registry  images can be read and pushed
    dev: a deploy can work; 2 warnings
    "#);
    // What is not there is bad, and says what to do.
    let examined = scene.run(&["doctor", "--json", "-r", "127.0.0.1:9/team/flow"]);
    assert_eq!(examined.status, 1);
    let examined: Value = serde_json::from_str(&examined.stdout).unwrap();
    assert_eq!(examined["healthy"], false);
    assert!(
        found(&examined, "bad").contains(&"registry".to_owned()),
        "{examined}"
    );
    let examined = scene.run(&["doctor", "-b", "no-such-bucket"]);
    assert_eq!(examined.status, 1);
    assert!(
        examined
            .stdout
            .contains("BAD      bucket    the bucket gs://no-such-bucket does not exist"),
        "{}",
        examined.stdout
    );
    assert_eq!(scene.objects(BUCKET), before);
    let listing = scene.request(
        http::Method::GET,
        &format!("/storage/v1/b/{BUCKET}/o?prefix=forebay/"),
        "",
    );
    assert!(
        !String::from_utf8_lossy(&listing).contains("probe"),
        "the probe is gone"
    );
}
