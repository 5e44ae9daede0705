//! How the project's workflows are found: when Python is started, and what is refused.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

mod bigflow_support;

use std::path::PathBuf;
use std::process::Command;

use bigflow_support::{bare_python, bigflow_python, executable};
use forebay::dags::{
    DagFile, ProbeError, ProbeRequest, RenderContext, RenderError, StartTime, Workflow, probe,
    render,
};
use forebay::progress::Silent;
use forebay::project::{DagFormat, EnvironmentName};
use forebay::python::{self, Interpreter};
use forebay_store::Store;

/// A project, a store, and a Python that counts its starts.
struct Workshop {
    scratch: tempfile::TempDir,
    directory: PathBuf,
    interpreter: Interpreter,
    import_paths: Vec<PathBuf>,
    store: Store,
}

const JOB: &str = "import bigflow\nclass Job(bigflow.Job):\n    def execute(self, context): pass\n";

impl Workshop {
    fn new() -> Option<Self> {
        let python = bigflow_python()?;
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path().canonicalize().unwrap().join("project");
        std::fs::create_dir(&directory).unwrap();
        let store = Store::open(&scratch.path().join("store")).unwrap();
        let mut interpreter = python::find(Some(&python), &directory, &store).unwrap();
        assert_eq!(interpreter.bigflow.as_deref(), Some("1.11.3"));
        // The project lies below the interpreter's prefix, as /usr/src/app lies below /usr.
        std::fs::create_dir(scratch.path().join("site")).unwrap();
        std::fs::write(
            scratch.path().join("site/sitecustomize.py"),
            format!(
                "import sys\nsys.prefix = {:?}\n",
                directory.parent().unwrap()
            ),
        )
        .unwrap();
        let counting = scratch.path().join("python");
        let text = format!(
            "#!/bin/sh\necho start >> '{0}/starts'\nPYTHONPATH='{0}/site' exec '{1}' \"$@\"\n",
            scratch.path().display(),
            interpreter.executable.display()
        );
        executable(&counting, &text);
        interpreter.executable = counting;
        let workshop = Self {
            scratch,
            directory,
            interpreter,
            import_paths: Vec::new(),
            store,
        };
        workshop.write("app/__init__.py", "");
        workshop.write("app/jobs.py", JOB);
        Some(workshop)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.directory.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn starts(&self) -> usize {
        std::fs::read_to_string(self.scratch.path().join("starts"))
            .map_or(0, |log| log.lines().count())
    }

    fn probe(&self) -> Result<Vec<Workflow>, ProbeError> {
        self.probe_with(None, "2026-01-01")
    }

    fn probe_with(
        &self,
        environment: Option<&str>,
        start_time: &str,
    ) -> Result<Vec<Workflow>, ProbeError> {
        let tree = self.store.scan(&self.directory, &|_, _| false).unwrap();
        let environment: Option<EnvironmentName> = environment.map(|name| name.parse().unwrap());
        probe(
            &ProbeRequest {
                directory: &self.directory,
                packages: &["app".to_owned(), "app.inner".to_owned()],
                interpreter: &self.interpreter,
                import_paths: &self.import_paths,
                wheels: None,
                environment: environment.as_ref(),
                start_time: start(Some(start_time)),
                tree: Some(&tree),
            },
            &self.store,
            &Silent,
        )
    }
}

fn start(argument: Option<&str>) -> StartTime {
    StartTime::from_argument(argument, &jiff::Zoned::now()).unwrap()
}

fn rendered(
    workflow: &Workflow,
    format: DagFormat,
    version: &str,
    start_time: StartTime,
) -> Result<DagFile, RenderError> {
    render(
        workflow,
        &RenderContext {
            format,
            image: "registry.test/app@sha256:0",
            image_tag: Some(version),
            version: &version.parse().unwrap(),
            start_time,
        },
    )
}

fn identity(workflow: &Workflow, version: &str, start_time: Option<&str>) -> String {
    rendered(workflow, DagFormat::Default, version, start(start_time))
        .unwrap()
        .identity
        .to_string()
}

#[test]
fn python_is_started_only_when_something_that_was_read_has_changed() {
    let Some(workshop) = Workshop::new() else {
        return;
    };
    workshop.write("data.txt", "one");
    workshop.write("other.txt", "1");
    workshop.write(
        "app/workflow.py",
        "import os\nfrom pathlib import Path\nimport bigflow\nfrom app.jobs import Job\n\
         print('on standard output')\n\
         name = Path(__file__).parent.parent.joinpath('data.txt').read_text()\n\
         flag = 'set' if Path('flag').exists() else 'unset'\n\
         environment = os.environ.get('bf_env', 'none')\n\
         w = bigflow.Workflow(workflow_id='_'.join([name, flag, environment]), definition=[Job('j')])\n",
    );
    let id = |workflows: &[Workflow]| workflows[0].id.to_string();

    assert_eq!(id(&workshop.probe().unwrap()), "one_unset_none");
    assert_eq!(id(&workshop.probe().unwrap()), "one_unset_none");
    assert_eq!(workshop.starts(), 1, "unchanged");

    workshop.write("other.txt", "2");
    assert_eq!(
        id(&workshop.probe_with(None, "2026-02-02").unwrap()),
        "one_unset_none"
    );
    assert_eq!(
        workshop.starts(),
        1,
        "a file that is not read, and another start time"
    );

    // An edit of the same size within the same second: no stale bytecode is used.
    workshop.write("data.txt", "two");
    assert_eq!(id(&workshop.probe().unwrap()), "two_unset_none");
    workshop.write("app/jobs.py", &JOB.replace("pass", "None"));
    workshop.probe().unwrap();
    assert_eq!(workshop.starts(), 3);

    workshop.write("flag", "");
    assert_eq!(id(&workshop.probe().unwrap()), "two_set_none");
    assert_eq!(workshop.starts(), 4, "a file whose existence was asked for");

    assert_eq!(
        id(&workshop.probe_with(Some("prod"), "2026-01-01").unwrap()),
        "two_set_prod"
    );
    assert_eq!(workshop.starts(), 5);

    workshop.write("data.txt", "one");
    std::fs::remove_file(workshop.directory.join("flag")).unwrap();
    workshop.write("app/jobs.py", JOB);
    assert_eq!(id(&workshop.probe().unwrap()), "one_unset_none");
    assert_eq!(workshop.starts(), 5, "back to what was known");

    workshop.write("app/new.py", "from app.workflow import w as again\n");
    assert_eq!(workshop.probe().unwrap().len(), 1);
    assert_eq!(workshop.starts(), 6, "a new module");
    assert!(
        !workshop.directory.join("app/__pycache__").exists(),
        "nothing is left in the project"
    );
}

#[test]
fn what_is_read_outside_the_projects_folder_counts() {
    let Some(mut workshop) = Workshop::new() else {
        return;
    };
    let outside = workshop.directory.parent().unwrap().to_owned();
    let neighbour = |path: &str, text: &str| {
        let path = outside.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    let laid_out = outside.join("laid-out");
    workshop.import_paths = vec![laid_out.clone()];
    neighbour("settings.yaml", "one");
    // As a folder of PYTHONPATH, and as a distribution that is laid out for the project.
    neighbour("site/shared.py", "name = 'a'\n");
    neighbour("laid-out/library.py", "name = 'fixed'\n");
    workshop.write(
        "app/workflow.py",
        "from pathlib import Path\nimport bigflow, shared, library\nfrom app.jobs import Job\n\
         settings = Path(__file__).parent.parent.parent.joinpath('settings.yaml').read_text()\n\
         there = Path('../flag').exists()\n\
         w = bigflow.Workflow('_'.join([settings, shared.name, library.name, str(there)]), [Job('j')])\n",
    );
    let id = || workshop.probe().unwrap()[0].id.to_string();
    assert_eq!(id(), "one_a_fixed_False");
    assert_eq!(id(), "one_a_fixed_False");
    assert_eq!(workshop.starts(), 1, "unchanged");
    neighbour("settings.yaml", "two");
    assert_eq!(id(), "two_a_fixed_False");
    // The same size, within the same second.
    neighbour("site/shared.py", "name = 'b'\n");
    assert_eq!(id(), "two_b_fixed_False");
    neighbour("flag", "");
    assert_eq!(id(), "two_b_fixed_True");
    assert_eq!(workshop.starts(), 4);
    neighbour("other.txt", "not read");
    neighbour("laid-out/library.py", "name = 'known by its version'\n");
    assert_eq!(id(), "two_b_fixed_True");
    assert_eq!(
        workshop.starts(),
        4,
        "what is not read, and what is installed"
    );
}

#[test]
fn a_trace_that_grew_too_large_is_not_relied_on() {
    let Some(workshop) = Workshop::new() else {
        return;
    };
    workshop.write(
        "app/workflow.py",
        "import os\nimport bigflow\nfrom app.jobs import Job\n\
         found = [i for i in range(2001) if os.path.exists('../flag%d' % i)]\n\
         w = bigflow.Workflow('found_%d' % len(found), [Job('j')])\n",
    );
    assert_eq!(workshop.probe().unwrap()[0].id.to_string(), "found_0");
    let flag = workshop.directory.parent().unwrap().join("flag2000");
    std::fs::write(flag, "").unwrap();
    assert_eq!(workshop.probe().unwrap()[0].id.to_string(), "found_1");
    assert_eq!(workshop.starts(), 2);
}

#[test]
fn only_a_projects_own_start_time_factory_needs_python_for_another_start_time() {
    let Some(workshop) = Workshop::new() else {
        return;
    };
    workshop.write(
        "app/workflow.py",
        "import datetime\nimport bigflow\nfrom app.jobs import Job\n\
         w = bigflow.Workflow(workflow_id='w', definition=[Job('j')], start_time_factory=lambda start: start - datetime.timedelta(days=7))\n",
    );
    let first = workshop.probe_with(None, "2026-01-08").unwrap();
    let second = workshop.probe_with(None, "2026-01-09").unwrap();
    assert_eq!(workshop.starts(), 2);
    let file = |workflow, day| {
        let file = rendered(workflow, DagFormat::Default, "1", start(Some(day))).unwrap();
        String::from_utf8(file.bytes).unwrap()
    };
    assert!(
        file(&second[0], "2026-01-09").contains("start_date=datetime.datetime(2026, 1, 2, 0, 0)")
    );
    assert!(matches!(
        rendered(
            &first[0],
            DagFormat::Default,
            "1",
            start(Some("2026-01-09"))
        ),
        Err(RenderError::StartDate { .. })
    ));
}

#[test]
fn the_identity_knows_neither_version_nor_clock() {
    let Some(workshop) = Workshop::new() else {
        return;
    };
    let workflow = |schedule: &str| {
        workshop.write(
            "app/workflow.py",
            &format!("import bigflow\nfrom app.jobs import Job\nw = bigflow.Workflow(workflow_id='w', definition=[Job('j')], schedule_interval='{schedule}')\n"),
        );
        workshop.probe().unwrap().remove(0)
    };
    let daily = workflow("@daily");
    let known = identity(&daily, "1.0", None);
    assert_eq!(identity(&daily, "2.0", None), known);
    assert_eq!(identity(&daily, "2.0", Some("NOW")), known);
    let explicit = identity(&daily, "1.0", Some("2026-01-01"));
    assert_ne!(explicit, known);
    assert_eq!(identity(&daily, "2.0", Some("2026-01-01")), explicit);
    assert_ne!(identity(&daily, "1.0", Some("2026-01-02")), explicit);
    assert_ne!(identity(&workflow("@hourly"), "1.0", None), known);
    let bigflow = rendered(&daily, DagFormat::Bigflow1_11, "1.0", start(None)).unwrap();
    assert_ne!(bigflow.identity.to_string(), known);
    assert_eq!(bigflow.workflow, daily.id);
}

#[test]
fn an_import_that_fails_names_the_users_line() {
    let Some(workshop) = Workshop::new() else {
        return;
    };
    let failure = |text: &str| {
        workshop.write("app/workflow.py", text);
        let error = workshop.probe().unwrap_err();
        (error.to_string(), error.next_step().unwrap())
    };
    let (message, step) = failure("import bigflow\nimport not_installed_anywhere\n");
    assert_eq!(
        message,
        "module app.workflow cannot be imported: app/workflow.py, line 2: ModuleNotFoundError: No module named 'not_installed_anywhere'"
    );
    assert!(step.contains("install not_installed_anywhere"), "{step}");

    let (message, step) = failure("import json\n\njson.loads('{')\n");
    assert!(
        message.contains("app/workflow.py, line 3: JSONDecodeError: "),
        "{message}"
    );
    assert!(!step.is_empty());

    let (message, step) = failure("def parse():\n    raise ValueError('bad value')\nparse()\n");
    assert!(
        message.contains("app/workflow.py, line 2: ValueError: bad value"),
        "{message}"
    );
    assert!(step.contains("BigFlow would skip it"), "{step}");

    let (message, _) = failure("x = = 1\n");
    assert!(
        message.contains("app/workflow.py, line 1: SyntaxError: invalid syntax"),
        "{message}"
    );

    let (message, _) = failure("import sys\nsys.exit(3)\n");
    assert!(
        message.contains("app/workflow.py, line 2: SystemExit: 3"),
        "{message}"
    );

    workshop.write(
        "app/workflow.py",
        "import os\nprint('last words', flush=True)\nos._exit(3)\n",
    );
    let message = workshop.probe().unwrap_err().to_string();
    assert!(
        message.contains("exit status: 3") && message.contains("last words"),
        "{message}"
    );
}

#[test]
fn what_would_break_in_airflow_is_refused() {
    let Some(workshop) = Workshop::new() else {
        return;
    };
    let result = |arguments: &str| {
        workshop.write(
            "app/workflow.py",
            &format!("import bigflow, zoneinfo, datetime\nfrom app.jobs import Job\n\nw = bigflow.Workflow({arguments})\n"),
        );
        workshop.probe()
    };
    let refused = |arguments: &str| result(arguments).unwrap_err().to_string();
    for id in ["a b", "a.b", "it\\'s"] {
        let message = refused(&format!("'{id}', [Job('j')]"));
        assert!(
            message.starts_with("app/workflow.py, line 4: ") && message.contains("workflow id"),
            "{message}"
        );
    }
    let message = refused("'w', [Job('j.k')]");
    assert!(
        message.contains("\"j.k\" is not a valid job id"),
        "{message}"
    );
    let message = refused("'w', [Job('j')], schedule_interval=object()");
    assert!(
        message.starts_with(
            "workflow w (app/workflow.py, line 4) has no DAG: schedule_interval is a object"
        ),
        "{message}"
    );
    let message = refused(
        "'w', [Job('j')], start_time_factory=lambda s: s.replace(tzinfo=zoneinfo.ZoneInfo('Europe/Warsaw'))",
    );
    assert!(
        message.contains("start_time_factory is a datetime"),
        "{message}"
    );
    let message = refused("'w', [Job('j', retry_pause_sec='soon')]");
    assert!(
        message.contains("job j: retry_pause_sec is not a number of seconds"),
        "{message}"
    );

    let render_error = |arguments: &str, format| {
        rendered(&result(arguments).unwrap()[0], format, "1", start(None))
            .unwrap_err()
            .to_string()
    };
    let message = render_error("'w', [Job('a_b'), Job('a-b')]", DagFormat::Default);
    assert_eq!(
        message,
        "jobs a_b and a-b of workflow w would both be Airflow's task \"a-b\": give one of them another id"
    );
    assert!(
        render_error("'w', [Job('j')], env_variable='my-env'", DagFormat::Default)
            .contains("env_variable")
    );
    assert!(
        render_error("'w', [Job('a-b')]", DagFormat::Bigflow1_11)
            .contains("use the default format")
    );
    let dashed = rendered(
        &result("'w', [Job('a-b')]").unwrap()[0],
        DagFormat::Default,
        "1",
        start(None),
    )
    .unwrap();
    assert!(
        String::from_utf8(dashed.bytes)
            .unwrap()
            .contains("task_a_b = KubernetesPodOperator(\n    task_id='a-b',")
    );
    // BigFlow stops at a job without a time limit; it gets three hours.
    let unlimited = rendered(
        &result("'w', [Job('j', execution_timeout_sec=0)]").unwrap()[0],
        DagFormat::Bigflow1_11,
        "1",
        start(None),
    )
    .unwrap();
    assert!(
        String::from_utf8(unlimited.bytes)
            .unwrap()
            .contains("'execution_timeout': datetime.timedelta(seconds=10800),")
    );
}

#[test]
fn two_workflows_with_one_id_are_an_error_that_names_both_files() {
    let Some(workshop) = Workshop::new() else {
        return;
    };
    let text =
        "import bigflow\nfrom app.jobs import Job\nw = bigflow.Workflow('same', [Job('j')])\n";
    workshop.write("app/one.py", text);
    workshop.write("app/inner/two.py", text);
    assert_eq!(
        workshop.probe().unwrap_err().to_string(),
        "two workflows have the id same: one in app/inner/two.py, line 3, one in app/one.py, line 3"
    );
}

#[test]
fn a_python_without_bigflow_is_named_unless_packages_are_laid_out_for_it() {
    let Some(mut workshop) = Workshop::new() else {
        return;
    };
    let bare = workshop.scratch.path().join("bare-python");
    bare_python(&bigflow_python().unwrap(), &bare);
    workshop.interpreter = python::find(Some(&bare), &workshop.directory, &workshop.store).unwrap();
    workshop.interpreter.executable = bare;
    assert!(matches!(
        workshop.probe(),
        Err(ProbeError::NoBigflow { .. })
    ));
    let purelib = Command::new(bigflow_python().unwrap())
        .args([
            "-c",
            "import sysconfig; print(sysconfig.get_path('purelib'), end='')",
        ])
        .output()
        .unwrap();
    workshop.import_paths = vec![String::from_utf8(purelib.stdout).unwrap().into()];
    workshop.write(
        "app/workflow.py",
        "import bigflow\nfrom app.jobs import Job\nw = bigflow.Workflow('w', [Job('j')])\n",
    );
    assert_eq!(workshop.probe().unwrap().len(), 1);
}
