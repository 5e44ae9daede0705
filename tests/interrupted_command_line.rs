//! The program itself, stopped amid a deploy: by Ctrl-C and termination, by a full disk.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

#[path = "support/fake_gcs_http.rs"]
#[allow(dead_code)]
mod fake_gcs_http;
#[path = "support/forebay.rs"]
#[allow(dead_code)]
mod forebay_support;
#[path = "support/two_workflows.rs"]
mod two_workflows;

use std::path::PathBuf;
use std::process::Stdio;

use fake_gcs_http::FakeGcs;
use forebay_support::{Finished, Machine, installed};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, ChildStderr, Command};
use two_workflows::{change, example};

/// `examples/hello` with one generation live in a bucket behind HTTP, and changed since.
struct Scene<'m> {
    server: FakeGcs,
    machine: &'m Machine,
    python: PathBuf,
    project: tempfile::TempDir,
}

const PYTHON: &str = "FOREBAY_TEST_BIGFLOW_PYTHON";

/// What every upload of a DAG file has in it.
const UPLOAD: &str = "\"name\":\"dags/";

impl<'m> Scene<'m> {
    async fn new(machine: &'m Machine) -> Self {
        let scene = Self {
            server: FakeGcs::start().await,
            machine,
            python: installed(PYTHON).unwrap(),
            project: example(),
        };
        scene.json(&["deploy"]).await;
        change(scene.project.path());
        scene
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let program = env!("CARGO_BIN_EXE_forebay");
        let mut command = self.machine.command(program, self.project.path());
        command
            .arg("--python")
            .arg(&self.python)
            .args(arguments)
            .args(["-c", "local", "-b", "bucket"])
            .env("STORAGE_EMULATOR_HOST", self.server.address.to_string());
        let mut command = Command::from(command);
        command.kill_on_drop(true).stdin(Stdio::null());
        command
    }

    async fn run(&self, arguments: &[&str]) -> Finished {
        Finished::from(self.command(arguments).output().await.unwrap())
    }

    async fn json(&self, arguments: &[&str]) -> Value {
        let finished = self.run(&[arguments, &["--json"]].concat()).await;
        assert_eq!(finished.status, 0, "{arguments:?}: {}", finished.stderr);
        serde_json::from_str(&finished.stdout).unwrap()
    }

    /// A deploy whose uploads do not come through, after `signal`, which it has heard.
    async fn signalled(&self, signal: &str) -> (Child, BufReader<ChildStderr>) {
        self.server.close_gate(UPLOAD);
        let mut command = self.command(&["deploy"]);
        let command = command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        self.server.arrival().await;
        self.signal(&child, signal);
        let mut line = String::new();
        while !line.contains("stopping") {
            line.clear();
            assert_ne!(stderr.read_line(&mut line).await.unwrap(), 0, "it ended");
        }
        (child, stderr)
    }

    fn signal(&self, child: &Child, signal: &str) {
        let id = child.id().unwrap().to_string();
        self.machine.run(self.project.path(), "kill", [signal, &id]);
    }
}

async fn ended(mut child: Child, mut stderr: BufReader<ChildStderr>) -> (i32, String) {
    let mut text = String::new();
    stderr.read_to_string(&mut text).await.unwrap();
    let status = child.wait().await.unwrap().code().unwrap();
    let start = text.find("error: ").unwrap_or_default();
    (status, text[start..].to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_program_leaves_what_can_be_carried_on() {
    let Some(python) = installed(PYTHON) else {
        return;
    };
    let machine = Machine::new().with_python(python);
    told_to_stop_it_gives_the_environment_free(&machine).await;
    on_a_dead_line_it_stops_too(&machine).await;
    a_full_disk_spoils_nothing(&machine);
}

async fn told_to_stop_it_gives_the_environment_free(machine: &Machine) {
    for signal in ["-TERM", "-INT"] {
        let scene = Scene::new(machine).await;
        let (child, stderr) = scene.signalled(signal).await;
        // Nobody else may deploy meanwhile, and is told so.
        let finished = scene.run(&["deploy"]).await;
        assert_eq!(finished.status, 5, "{}", finished.stderr);
        scene.server.open_gate();
        let (status, error) = ended(child, stderr).await;
        assert_eq!(status, 7, "{error}");
        assert_eq!(
            error,
            "error: interrupted while applying generation 2\n\
             \x20 why: it was told to stop after 1 of 3 changes to dags/; generation 1 is still what is recorded as live\n\
             \x20 next: run `forebay deploy -c local` again, whenever you like: it finishes what was begun and goes on; `forebay abort -c local` takes it back\n"
        );
        let status = scene.json(&["status"]).await;
        assert_eq!(status["state"], "applying", "{status}");
        // Without waiting for anything.
        scene.json(&["deploy"]).await;
        let status = scene.json(&["status"]).await;
        assert_eq!(status["state"], "committed", "{status}");
        assert_eq!(status["drift"].as_array().unwrap().len(), 0, "{status}");
    }
}

/// The network stands still: it ends all the same, and at once if it is told so twice.
async fn on_a_dead_line_it_stops_too(machine: &Machine) {
    for twice in [false, true] {
        let scene = Scene::new(machine).await;
        let (child, stderr) = scene.signalled("-INT").await;
        if twice {
            scene.signal(&child, "-INT");
        }
        let (status, error) = ended(child, stderr).await;
        assert_eq!(status, 7, "{error}");
        assert!(
            error.starts_with("error: interrupted while applying\n"),
            "{error}"
        );
        assert!(
            error.contains("once this deploy's hold has run out"),
            "{error}"
        );
        scene.server.open_gate();
        let finished = scene.run(&["deploy"]).await;
        assert_eq!(finished.status, 5, "{}", finished.stderr);
        scene.server.pass_an_hour();
        scene.json(&["deploy"]).await;
        let status = scene.json(&["status"]).await;
        assert_eq!(status["state"], "committed", "{status}");
    }
}

/// No file may grow beyond a limit, which fails as a full disk does, at an ever later write: of
/// the store, its index, the image, the bucket.
fn a_full_disk_spoils_nothing(machine: &Machine) {
    let project = example();
    let json = |arguments: &[&str]| machine.forebay_json(project.path(), arguments);
    json(&["deploy", "-c", "local"]);
    change(project.path());
    let mut failures = 0;
    for kilobytes in [0, 4, 16, 64] {
        let limited = format!(
            "trap '' XFSZ; ulimit -f {kilobytes}; exec '{}' --python '{}' deploy -c local",
            env!("CARGO_BIN_EXE_forebay"),
            installed(PYTHON).unwrap().display()
        );
        let mut command = machine.command("bash", project.path());
        let output = command.args(["-c", &limited]).output().unwrap();
        let finished = Finished::from(output);
        if finished.status == 0 {
            break;
        }
        failures += 1;
        assert!([1, 7].contains(&finished.status), "{}", finished.stderr);
        assert!(finished.stderr.contains("error: "), "{}", finished.stderr);
        assert!(!finished.stderr.contains("panicked"), "{}", finished.stderr);
        let status = json(&["status", "-c", "local"]);
        assert_eq!(status["generation"], 1, "{status}");
        assert_eq!(status["drift"].as_array().unwrap().len(), 0, "{status}");
    }
    assert!(failures > 1, "{failures}");
    json(&["deploy", "-c", "local"]);
    // What the dead have left (64) is for `gc`; nothing is missing (16) or corrupt (32).
    let verified = machine.forebay(project.path(), ["store", "verify"]);
    assert_eq!(verified.status & !64, 0, "{}", verified.stdout);
    let status = json(&["status", "-c", "local"]);
    assert_eq!(status["state"], "committed", "{status}");
}
