//! What goes wrong every day: each failure says what, why and what to do next,
//! has its exit status, and leaves the environment as it was.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[path = "support/emulator.rs"]
#[allow(dead_code)]
mod emulator;
#[path = "support/forebay.rs"]
#[allow(dead_code)]
mod forebay_support;

use emulator::Emulator;
use forebay_support::{Finished, Machine, copy_folder};

/// `examples/hello`, deployed to its environment `local`.
struct Deployed {
    machine: Machine,
    project: tempfile::TempDir,
}

impl Deployed {
    fn new() -> Self {
        let machine = Machine::new()
            .with_variable("FOREBAY_ENGINE", "none")
            .with_python("/usr/bin/python3");
        let project = tempfile::tempdir().unwrap();
        copy_folder(
            &Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/hello"),
            project.path(),
        );
        machine.forebay_json(project.path(), ["deploy", "-c", "local"]);
        Self { machine, project }
    }

    /// Every file of the environment with its bytes.
    fn environment(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        walkdir::WalkDir::new(self.project.path().join(".local"))
            .into_iter()
            .map(Result::unwrap)
            .filter(|entry| entry.file_type().is_file())
            .map(|entry| {
                (
                    entry.path().to_owned(),
                    std::fs::read(entry.path()).unwrap(),
                )
            })
            .collect()
    }

    /// Runs a command that must fail and change nothing.
    fn fails(&self, arguments: &[&str]) -> Finished {
        let before = self.environment();
        let finished = self.machine.forebay(self.project.path(), arguments);
        assert_eq!(
            self.environment(),
            before,
            "{arguments:?} changed something"
        );
        finished
    }

    fn write(&self, file: &str, text: &str) {
        std::fs::write(self.project.path().join(file), text).unwrap();
    }
}

/// The message without progress and warnings.
fn error(finished: &Finished) -> &str {
    let start = finished.stderr.find("error: ").unwrap_or_default();
    &finished.stderr[start..]
}

#[test]
fn failures_say_what_why_and_what_to_do() {
    let deployed = Deployed::new();

    let finished = deployed.fails(&["deploy", "-c", "lokal"]);
    assert_eq!(finished.status, 2);
    insta::assert_snapshot!(error(&finished), @r#"
    error: there is no environment "lokal" in the deployment configuration; it has local, dev
      next: did you mean -c local?
    "#);

    // A registry that is down: nothing listens on the discard port.
    let finished = deployed.fails(&["deploy", "-c", "local", "-r", "127.0.0.1:9/team/hello"]);
    assert_eq!(finished.status, 1);
    insta::assert_snapshot!(error(&finished), @r"
    error: cannot reach the registry 127.0.0.1:9
      why: Connection refused (os error 111)
      next: check that the registry runs and docker_repository is right, then run the command again; what was sent is not sent twice
    ");

    let finished = deployed.fails(&["rollback", "-c", "local", "7"]);
    assert_eq!(finished.status, 8);
    insta::assert_snapshot!(error(&finished), @r"
    error: generation 7 is not in the history of this environment
      next: there is no generation to return to; `forebay deploy -c local` makes a new one
    ");

    let finished = deployed.fails(&["deploy", "-c", "local", "--workflow", "greetin"]);
    assert_eq!(finished.status, 2);
    insta::assert_snapshot!(error(&finished), @r#"
    error: there is no workflow "greetin" in the project; it has cleanup, greeting
      next: did you mean --workflow greeting?
    "#);

    // A file of ours that somebody changed.
    let dags = deployed.project.path().join(".local/composer/dags");
    let dag = std::fs::read_dir(&dags)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.to_string_lossy().contains("greeting"))
        .unwrap();
    let bytes = std::fs::read(&dag).unwrap();
    std::fs::write(&dag, "import this\n").unwrap();
    let finished = deployed.fails(&["deploy", "-c", "local"]);
    assert_eq!(finished.status, 6);
    let text = error(&finished).replace(dag.file_name().unwrap().to_str().unwrap(), "DAG");
    insta::assert_snapshot!(text, @r"
    error: somebody changed 1 of this environment's files since the last deploy
      why: dags/DAG was changed
      next: look with `forebay status -c local`; --restore-drift puts back what was recorded
    ");
    let finished = deployed.fails(&["status", "-c", "local", "--exit-code"]);
    assert_eq!(finished.status, 3);
    deployed.machine.forebay_json(
        deployed.project.path(),
        ["deploy", "-c", "local", "--restore-drift"],
    );
    assert_eq!(std::fs::read(&dag).unwrap(), bytes);

    deployed.write("hello/broken.py", "import not_there\n");
    let finished = deployed.fails(&["deploy", "-c", "local"]);
    assert_eq!(finished.status, 1);
    insta::assert_snapshot!(error(&finished), @r"
    error: module hello.broken cannot be imported: hello/broken.py, line 1: ModuleNotFoundError: No module named 'not_there'
      next: install not_there where the project's workflows are built (its requirements must name it), or name another Python with --python
    ");
    std::fs::remove_file(deployed.project.path().join("hello/broken.py")).unwrap();

    let dockerfile = deployed.project.path().join("Dockerfile");
    let text = std::fs::read_to_string(&dockerfile).unwrap();
    deployed.write("Dockerfile", &format!("{text}RUN make all\n"));
    let finished = deployed.fails(&["deploy", "-c", "local"]);
    assert_eq!(finished.status, 1);
    insta::assert_snapshot!(error(&finished), @r"
    error: line 10 of the Dockerfile (RUN make all) needs a container: it runs `make`
      next: start or install docker, podman or buildah, or run `forebay image base push -c local` where one is and commit forebay.lock, or move these lines into the base image
    ");
    deployed.write("Dockerfile", &text);

    deployed.write(
        "deployment_config.py",
        "from bigflow import Config\n\ndeployment_config = Config(\n    name='local',\n    properties={'a': 'b'},,\n)\n",
    );
    let finished = deployed.fails(&["deploy", "-c", "local"]);
    assert_eq!(finished.status, 2);
    let text = error(&finished).replace(
        deployed
            .project
            .path()
            .canonicalize()
            .unwrap()
            .to_str()
            .unwrap(),
        "PROJECT",
    );
    insta::assert_snapshot!(text, @r"
    error: PROJECT/deployment_config.py, line 5, column 27: invalid syntax: Expected an expression or a ')'
      next: mend the file and run the command again
    ");

    // The same failure for a program.
    let finished = deployed.fails(&["deploy", "-c", "local", "--json"]);
    let document: serde_json::Value = serde_json::from_str(&finished.stdout).unwrap();
    assert_eq!(document["error"]["exit"], 2);

    let elsewhere = tempfile::tempdir().unwrap();
    let finished = deployed.machine.forebay(elsewhere.path(), ["status"]);
    assert_eq!(finished.status, 2);
    let text = error(&finished).replace(
        elsewhere.path().canonicalize().unwrap().to_str().unwrap(),
        "ELSEWHERE",
    );
    insta::assert_snapshot!(text, @r"
    error: no BigFlow project at ELSEWHERE or above: there is no setup.py, pyproject.toml or project_setup.py
      next: go to the project's folder, or name it with --directory; `forebay start-project` begins a new one
    ");
}

#[test]
fn a_bucket_that_does_not_exist_is_said_so() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let Some(emulator) = runtime.block_on(Emulator::start()) else {
        return;
    };
    let machine = Machine::new()
        .with_python("/usr/bin/python3")
        .with_variable("STORAGE_EMULATOR_HOST", &emulator.address);
    let project = tempfile::tempdir().unwrap();
    copy_folder(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/hello"),
        project.path(),
    );
    let finished = machine.forebay(
        project.path(),
        ["deploy", "-c", "local", "-b", "no-such-bucket"],
    );
    assert_eq!(finished.status, 1);
    insta::assert_snapshot!(error(&finished), @r"
    error: the bucket gs://no-such-bucket does not exist
      next: mend dags_bucket in deployment_config.py: the Composer environment's page names its bucket
    ");
    // Nothing was pushed for an environment that cannot be.
    assert!(!project.path().join(".local/images/index.json").exists());
}

#[test]
fn ctrl_c_stops_at_once_and_says_what_that_means() {
    let machine = Machine::new().with_python("/usr/bin/python3");
    let project = tempfile::tempdir().unwrap();
    copy_folder(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/hello"),
        project.path(),
    );
    machine.forebay_json(project.path(), ["build", "-c", "local"]);
    // A bucket that takes connections and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let child = machine
        .command(env!("CARGO_BIN_EXE_forebay"), project.path())
        .env(
            "STORAGE_EMULATOR_HOST",
            silent.local_addr().unwrap().to_string(),
        )
        .args([
            "--python",
            "/usr/bin/python3",
            "deploy",
            "-c",
            "local",
            "-b",
            "some-bucket",
        ])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let _connection = silent.accept().unwrap();
    machine.run(project.path(), "kill", ["-INT", &child.id().to_string()]);
    let finished = Finished::from(child.wait_with_output().unwrap());
    assert_eq!(finished.status, 1);
    insta::assert_snapshot!(error(&finished), @r"
    error: interrupted; nothing visible was changed
      next: run the command again: what was built and sent is not built or sent twice
    ");
}
