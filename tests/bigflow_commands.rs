//! BigFlow's commands for developers, side by side with BigFlow 1.11.3: the same effect, the
//! same exit status.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

#[path = "support/forebay.rs"]
#[allow(dead_code)]
mod forebay_support;

use forebay_support::{Finished, Machine, copy_folder, installed};

#[path = "support/schema.rs"]
mod schema;

const WORKFLOW: &str = "\
import os, sys
import bigflow

class Say(bigflow.Job):
    id = 'say'
    def execute(self, context):
        print('at', context.runtime, 'in', os.environ.get('bf_env'))

class Fail(bigflow.Job):
    id = 'fail'
    def execute(self, context):
        raise SystemExit(7)

speaking = bigflow.Workflow(workflow_id='speaking', definition=[Say()])
failing = bigflow.Workflow(workflow_id='failing', definition=[Say(), Fail()])
";

/// `examples/hello` with two more workflows and a test, and a Python that has BigFlow.
struct Project {
    machine: Machine,
    directory: tempfile::TempDir,
    python: PathBuf,
}

impl Project {
    fn new() -> Option<Self> {
        let python = installed("FOREBAY_TEST_BIGFLOW_PYTHON")?;
        let directory = tempfile::tempdir().unwrap();
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/hello");
        copy_folder(&example, directory.path());
        let path = std::env::var_os("PATH").unwrap();
        let folders = std::iter::once(python.parent().unwrap().to_owned());
        let path = std::env::join_paths(folders.chain(std::env::split_paths(&path))).unwrap();
        let project = Self {
            machine: Machine::new()
                .with_python(&python)
                .with_variable("PATH", path.to_str().unwrap()),
            directory,
            python,
        };
        project.write("hello/more.py", WORKFLOW);
        Some(project)
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn write(&self, file: &str, text: &str) {
        let path = self.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn forebay(&self, arguments: &[&str]) -> Finished {
        self.machine.forebay(self.path(), arguments)
    }

    fn bigflow(&self, arguments: &[&str]) -> Finished {
        let mut command = self.machine.command(&self.python, self.path());
        command.args(["-m", "bigflow"]).args(arguments);
        Finished::from(command.output().unwrap())
    }
}

#[test]
fn run_does_what_bigflow_does() {
    let Some(project) = Project::new() else {
        return;
    };
    let runtime = ["--runtime", "2024-01-31"];
    for (arguments, status) in [
        (&["run", "--workflow", "speaking", "-c", "dev"][..], 0),
        (&["run", "--job", "failing.say"], 0),
        (&["run", "-w", "failing"], 7),
        (&["run", "--job", "failing.fail"], 7),
        (&["run", "--job", "failing.absent"], 1),
        (&["run", "--workflow", "absent"], 1),
    ] {
        let arguments = [arguments, &runtime].concat();
        let ours = project.forebay(&arguments);
        let theirs = project.bigflow(&arguments);
        assert_eq!(ours.status, status, "{arguments:?}: {}", ours.stderr);
        assert_eq!(theirs.status, status, "{arguments:?}: {}", theirs.stderr);
        // BigFlow says on standard output, too, which environment it works for.
        let theirs = theirs.stdout.replace("bf_env is : dev\n", "");
        assert_eq!(ours.stdout, theirs, "{arguments:?}");
    }
    let finished = project.forebay(&["run", "--job", "failing.sayy"]);
    assert_eq!(
        finished.stderr,
        "error: there is no job 'sayy' in the workflow failing; it has say, fail\n  next: did you mean say?\n"
    );
    for wrong in [
        &["run", "--job", "speaking"][..],
        &["run", "-w", "speaking", "--runtime", "tomorrow"],
        &["run"],
    ] {
        assert_eq!(project.forebay(wrong).status, 2, "{wrong:?}");
    }
}

#[test]
fn run_needs_no_bigflow_on_the_machine() {
    let Some(project) = Project::new() else {
        return;
    };
    let machine = Machine::new().with_python("/usr/bin/python3");
    let command = [
        "run",
        "--job",
        "speaking.say",
        "-c",
        "local",
        "-r",
        "2024-01-31",
    ];
    let finished = machine.forebay(project.path(), command);
    assert_eq!(finished.status, 0, "{}", finished.stderr);
    assert_eq!(finished.stdout, "at 2024-01-31 00:00:00 in local\n");
}

#[test]
fn build_package_runs_the_tests_first_and_leaves_their_report() {
    let Some(project) = Project::new() else {
        return;
    };
    let report = project.path().join("build/junit-reports");
    let reports = || std::fs::read_dir(&report).map_or(0, Iterator::count);
    let test = |assertion: &str| {
        let text = format!(
            "import unittest\n\nclass T(unittest.TestCase):\n    def test_it(self):\n        {assertion}\n"
        );
        project.write("test/__init__.py", "");
        project.write("test/test_it.py", &text);
    };
    let document = project
        .machine
        .forebay_json(project.path(), ["build-package"]);
    assert!(document["tests"].is_null(), "there is no test to run");

    test("self.assertEqual(1, 1)");
    let document = project
        .machine
        .forebay_json(project.path(), ["build-package"]);
    let tests = &document["tests"];
    assert_eq!(tests["report"].as_str().unwrap(), report.to_str().unwrap());
    assert_eq!(
        (&tests["passed"], &tests["cached"]),
        (&1.into(), &false.into())
    );
    assert_eq!(reports(), 1);
    let wheels = || {
        std::fs::read_dir(project.path().join("dist"))
            .unwrap()
            .count()
    };
    assert_eq!(wheels(), 1);

    // Of another size: Python tells modules apart by second and size.
    test("self.assertEqual(1, 1 + 1)");
    let ours = project.forebay(&["build-package"]);
    assert_eq!(ours.status, 1, "{}", ours.stderr);
    assert!(
        ours.stderr.contains("error: the project's tests failed"),
        "{}",
        ours.stderr
    );
    assert_eq!((ours.stdout.as_str(), reports()), ("", 1));
    assert_eq!(project.bigflow(&["build-package"]).status, 1);
    assert_eq!(project.forebay(&["build-package", "--no-tests"]).status, 0);
}

#[test]
fn build_runs_the_tests_as_bigflow_does_but_once_for_the_same_sources() {
    let Some(project) = Project::new() else {
        return;
    };
    let runs = project.path().join(".local/runs");
    std::fs::create_dir_all(runs.parent().unwrap()).unwrap();
    let test = |expected: &str| {
        let text = format!(
            "import unittest\n\nopen({runs:?}, 'a').write('x')\n\nclass T(unittest.TestCase):\n    def test_it(self):\n        self.assertEqual('x', {expected:?})\n"
        );
        project.write("test/__init__.py", "");
        project.write("test/test_it.py", &text);
    };
    let runs = || std::fs::read(&runs).map_or(0, |bytes| bytes.len());
    let build = |flags: &[&str]| {
        let arguments = [&["build", "-c", "local"], flags].concat();
        project.machine.forebay_json(project.path(), arguments)
    };
    let exists = |path: &str| project.path().join(path).exists();

    // What fails its tests is not built, as with BigFlow.
    test("another");
    let ours = project.forebay(&["build", "-c", "local"]);
    assert_eq!(ours.status, 1, "{}", ours.stderr);
    assert_eq!(project.bigflow(&["build"]).status, 1);
    let (theirs_too, failed) = (runs(), runs());
    assert!(theirs_too >= 2 && !exists("dist"), "BigFlow ran them too");
    assert!(
        ours.stderr.contains("error: the project's tests failed"),
        "{}",
        ours.stderr
    );

    test("x");
    let first = build(&[]);
    assert_eq!(runs(), failed + 1);
    assert_eq!(first["tests"]["cached"], false);
    for path in [
        first["wheel"].as_str().unwrap(),
        ".dags",
        "build/junit-reports",
    ] {
        assert!(exists(path), "{path}");
    }
    // The same sources: not again, but the report is there for whoever collects it.
    std::fs::remove_dir_all(project.path().join("build")).unwrap();
    let second = build(&[]);
    assert_eq!(runs(), failed + 1);
    assert_eq!(second["tests"]["cached"], true);
    assert_eq!(second["tests"]["report"], first["tests"]["report"]);
    assert!(exists("build/junit-reports"));
    let document = project
        .machine
        .forebay_json(project.path(), ["build-package"]);
    assert_eq!(document["tests"]["cached"], true);

    assert!(build(&["--no-tests"])["tests"].is_null());
    assert_eq!(build(&["--rerun-tests"])["tests"]["cached"], false);
    assert_eq!(runs(), failed + 2);
    project.write("hello/greeting_text.py", "TEXT = 'x'\n");
    assert_eq!(build(&[])["tests"]["cached"], false);
    assert_eq!(runs(), failed + 3);
    // Lines of the tests are events where events are wanted.
    let events = [
        "build",
        "-c",
        "local",
        "--rerun-tests",
        "--log-format",
        "json",
    ];
    let finished = project.forebay(&events);
    assert_eq!(finished.status, 0, "{}", finished.stderr);
    for line in finished.stderr.lines() {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(event["event"].is_string(), "{line}");
    }
    assert!(
        finished.stderr.contains("\"output\""),
        "{}",
        finished.stderr
    );
}

/// The flags of every command of BigFlow's own parser, one `COMMAND FLAG` a line.
const FLAGS: &str = "
import argparse, bigflow.cli as cli
subs = []
parse = argparse.ArgumentParser.parse_known_args
def spy(self, *arguments, **named):
    for action in self._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, parser in action.choices.items():
                for option in parser._actions:
                    for flag in option.option_strings:
                        print(name, flag, 0 if option.nargs == 0 else 1)
    raise SystemExit(0)
argparse.ArgumentParser.parse_known_args = spy
cli._parse_args(None, ['build'])
";

#[test]
fn every_flag_of_bigflow_is_known() {
    let Some(project) = Project::new() else {
        return;
    };
    let flags = project
        .machine
        .run(project.path(), &project.python, ["-c", FLAGS]);
    let mut seen = 0;
    for line in flags.lines() {
        let parts: Vec<_> = line.split(' ').collect();
        let [command, flag, values] = parts[..] else {
            panic!("{line}");
        };
        // It generates code for one kind of job, and has no command of its own.
        if command == "codegen" {
            continue;
        }
        let value = match flag {
            "-a" | "--auth-method" => "vault",
            "-t" | "--start-time" => "2024-01-01",
            _ => "x",
        };
        let mut arguments = vec![command, flag];
        arguments.extend((values == "1").then_some(value));
        // The help is printed once all before it is understood.
        arguments.push("--help");
        let finished = project.forebay(&arguments);
        assert_eq!(finished.status, 0, "{line}: {}", finished.stderr);
        assert_eq!(finished.stderr, "", "{line}");
        seen += 1;
    }
    assert!(seen > 60, "{seen}: {flags}");
}

#[test]
fn logs_are_found_for_every_workflow() {
    let Some(project) = Project::new() else {
        return;
    };
    let command = ["logs", "-c", "local", "-p", "my-project"];
    let document = project.machine.forebay_json(project.path(), command);
    let workflows = document["workflows"].as_array().unwrap();
    let ids: Vec<_> = workflows.iter().map(|links| &links["workflow"]).collect();
    assert_eq!(ids, ["cleanup", "failing", "greeting", "speaking"]);
    let finished = project.forebay(&["logs", "-c", "local"]);
    assert_eq!(finished.status, 2, "{}", finished.stderr);
}

#[test]
fn arguments_that_bigflow_ignores_are_ignored_with_a_warning() {
    let Some(project) = Project::new() else {
        return;
    };
    let ours = project.forebay(&["project-version", "--colour", "red"]);
    assert_eq!(ours.status, 0, "{}", ours.stderr);
    assert!(ours.stderr.contains("ignored --colour"), "{}", ours.stderr);
    assert!(ours.stderr.contains("ignored red"), "{}", ours.stderr);
    let theirs = project.bigflow(&["project-version", "--colour", "red"]);
    assert_eq!((theirs.status, theirs.stdout), (0, ours.stdout));
    // argparse understands the beginning of a flag.
    let abbreviated = project.forebay(&["build-dags", "--conf", "local", "--start", "2024-01-01"]);
    assert_eq!(abbreviated.status, 0, "{}", abbreviated.stderr);
}

#[test]
fn events_can_be_read_by_programs_and_details_hold_no_query() {
    let Some(project) = Project::new() else {
        return;
    };
    let arguments = ["build-dags", "-c", "local", "-v", "--log-format", "json"];
    let finished = project.forebay(&arguments);
    assert_eq!(finished.status, 0, "{}", finished.stderr);
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema/event.schema.json");
    let validate = "
import json, sys
from jsonschema import Draft202012Validator
validator = Draft202012Validator(json.load(open(sys.argv[1])))
for line in sys.argv[2].splitlines():
    validator.validate(json.loads(line))
";
    project.machine.run(
        project.path(),
        &project.python,
        ["-c", validate, schema.to_str().unwrap(), &finished.stderr],
    );
    for event in ["\"started\"", "\"finished\"", "\"detail\""] {
        assert!(
            finished.stderr.contains(event),
            "{event}: {}",
            finished.stderr
        );
    }
    let failed = project.forebay(&["build-dags", "-c", "nowhere", "--log-format", "json"]);
    assert_eq!(failed.status, 2);
    let last = failed.stderr.lines().last().unwrap();
    let event: serde_json::Value = serde_json::from_str(last).unwrap();
    assert_eq!(event["error"]["exit"], 2);
}

/// The files below a folder by their path, as text.
fn files(folder: &Path) -> BTreeMap<String, String> {
    walkdir::WalkDir::new(folder)
        .into_iter()
        .map(Result::unwrap)
        .filter(|entry| entry.file_type().is_file())
        .map(|entry| {
            let path = entry.path().strip_prefix(folder).unwrap();
            let text = std::fs::read_to_string(entry.path()).unwrap();
            (path.to_str().unwrap().to_owned(), text)
        })
        .collect()
}

#[test]
fn start_project_makes_what_bigflow_makes() {
    let Some(python) = installed("FOREBAY_TEST_SCAFFOLD_PYTHON") else {
        return;
    };
    let Some(uv) = installed("FOREBAY_TEST_UV") else {
        return;
    };
    let tools = tempfile::tempdir().unwrap();
    let program = |name: &str, text: String| {
        let path = tools.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    program("gcloud", "#!/bin/sh\necho my-project\n".to_owned());
    // pip-compile takes many minutes on these requirements; uv answers for it in both runs.
    program(
        "pip-compile",
        format!(
            "#!/bin/sh\necho 'setuptools<82' > {0}/bound\nexec {1} pip compile --python {2} --constraint {0}/bound \"$@\"\n",
            tools.path().display(),
            uv.display(),
            python.display()
        ),
    );
    std::os::unix::fs::symlink(&uv, tools.path().join("uv")).unwrap();
    let path = std::env::var_os("PATH").unwrap();
    let folders = [tools.path().to_owned(), python.parent().unwrap().to_owned()];
    let folders = folders.into_iter().chain(std::env::split_paths(&path));
    let path = std::env::join_paths(folders).unwrap();
    let machine = Machine::new().with_variable("PATH", path.to_str().unwrap());

    let made = |program: &Path, arguments: &[OsString]| {
        let folder = tempfile::tempdir().unwrap();
        let mut child = machine
            .command(program, folder.path())
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let answers = b"flow\n\nmy-composer\n";
        child.stdin.take().unwrap().write_all(answers).unwrap();
        let finished = Finished::from(child.wait_with_output().unwrap());
        assert_eq!(finished.status, 0, "{}{}", finished.stdout, finished.stderr);
        if let Ok(document) = serde_json::from_str(&finished.stdout) {
            let problems = schema::violations("start-project.schema.json", &document);
            assert_eq!(problems, [""; 0]);
        }
        (files(&folder.path().join("flow_project")), finished.stderr)
    };
    let arguments = |list: &[&str]| list.iter().map(OsString::from).collect::<Vec<_>>();
    let (theirs, _) = made(&python, &arguments(&["-m", "bigflow", "start-project"]));
    let forebay = Path::new(env!("CARGO_BIN_EXE_forebay"));
    let given = [
        "--python",
        python.to_str().unwrap(),
        "start-project",
        "--json",
    ];
    let (ours, said) = made(forebay, &arguments(&given));

    assert_eq!(
        ours.keys().collect::<Vec<_>>(),
        theirs.keys().collect::<Vec<_>>()
    );
    let pins = |text: &str| -> Vec<String> {
        let is_pin = |line: &&str| !line.trim_start().starts_with('#') && !line.is_empty();
        text.lines().filter(is_pin).map(str::to_owned).collect()
    };
    for (name, text) in &theirs {
        if name.ends_with("requirements.txt") {
            assert_eq!(pins(&ours[name]), pins(text));
            assert!(!pins(text).is_empty());
            // The digest that BigFlow computes. After it, BigFlow names a folder of this machine.
            let header = |text: &str| text.lines().take(2).collect::<Vec<_>>().join("\n");
            assert_eq!(header(&ours[name]), header(text));
        } else if &ours[name] != text {
            assert!(text.contains("log_config"), "{name}");
            assert!(!ours[name].contains("log_config"), "{name}");
            assert!(said.contains(name.as_str()), "{name}: {said}");
        }
    }
}

#[test]
fn requirements_are_compiled_where_they_are() {
    let (Some(project), Some(uv)) = (Project::new(), installed("FOREBAY_TEST_UV")) else {
        return;
    };
    project.write("resources/none.in", "# nothing is required\n");
    let path = std::env::var_os("PATH").unwrap();
    let folders = std::iter::once(uv.parent().unwrap().to_owned());
    let path = std::env::join_paths(folders.chain(std::env::split_paths(&path))).unwrap();
    let machine = Machine::new()
        .with_python(&project.python)
        .with_variable("PATH", path.to_str().unwrap());
    let command = ["build-requirements", "resources/none.in"];
    let document = machine.forebay_json(project.path(), command);
    let problems = schema::violations("build-requirements.schema.json", &document);
    assert_eq!(problems, [""; 0]);
    assert!(project.path().join("resources/none.txt").exists());
}

#[test]
fn start_project_refuses_what_cannot_be() {
    let Some(project) = Project::new() else {
        return;
    };
    let given = |name: &str| {
        let arguments = ["start-project", "--name", name, "-p", "gcp", "-b", "bucket"];
        project.forebay(&arguments)
    };
    assert_eq!(given("not-a-package").status, 2);
    std::fs::create_dir(project.path().join("taken_project")).unwrap();
    let finished = given("taken");
    assert_eq!(finished.status, 2);
    assert!(
        finished.stderr.contains("is there already"),
        "{}",
        finished.stderr
    );
    // Nobody to ask.
    let finished = project.forebay(&["start-project", "--name", "flow", "-p", "gcp"]);
    assert_eq!(finished.status, 2, "{}", finished.stderr);
    assert!(
        finished.stderr.contains("give --dags-bucket"),
        "{}",
        finished.stderr
    );
}
