//! DAG files against those of BigFlow 1.11.3.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

mod bigflow_support;
#[path = "support/forebay.rs"]
#[allow(dead_code)]
mod forebay_support;

use std::collections::BTreeMap;
use std::io::{Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use bigflow_support::{bigflow_python, copy_folder, fixtures, name_a_registry};
use forebay_support::{Finished, Machine, installed};

/// With the time zones that they are built in: BigFlow's hourly start depends on it.
const START_TIMES: [(&str, &str); 7] = [
    ("2026-03-01", "Europe/Warsaw"),
    ("2024-12-31 23:05:09", "America/New_York"),
    ("2024-02-29 00:00:00", "Asia/Kolkata"),
    ("2025-01-01 01:00:00", "Pacific/Auckland"),
    ("2026-10-25 02:30:00", "UTC"),
    ("2026-07-01 12:00:00", "Pacific/Marquesas"),
    ("2000-1-1", "Asia/Kathmandu"),
];

/// Projects whose files depend on the time zone are built in each; the others in one.
const OF_EVERY_TIME_ZONE: [&str; 2] = ["factories", "start_times"];

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

/// A machine with both programs.
struct Bench {
    python: PathBuf,
    scratch: tempfile::TempDir,
}

impl Bench {
    fn new() -> Option<Self> {
        Some(Self {
            python: bigflow_python()?,
            scratch: tempfile::tempdir().unwrap(),
        })
    }

    /// All time zones share one store: what one has built must not serve another.
    fn machine(&self, time_zone: &str) -> Machine {
        let store = self.scratch.path().join("store");
        Machine::new()
            .with_python(&self.python)
            .with_variable("TZ", time_zone)
            .with_variable("FOREBAY_STORE", store.to_str().unwrap())
    }

    fn copy_of(&self, source: &Path) -> PathBuf {
        let project = self.scratch.path().join(source.file_name().unwrap());
        copy_folder(source, &project);
        project
    }

    /// A project of one module `app/workflow.py`.
    fn project(&self, name: &str, workflow: &str) -> PathBuf {
        let project = self.scratch.path().join(name);
        std::fs::create_dir_all(project.join("app")).unwrap();
        for (file, text) in [
            (
                "setup.py",
                "import bigflow.build\nbigflow.build.setup(name='app', version='1', docker_repository='registry.test/app')\n",
            ),
            (
                "deployment_config.py",
                "import bigflow\ndeployment_config = bigflow.Config('dev', {'docker_repository': 'registry.test/app'})\n",
            ),
            ("app/__init__.py", ""),
            (
                "app/jobs.py",
                "import bigflow\nclass Job(bigflow.Job):\n    def execute(self, context): pass\n",
            ),
            ("app/workflow.py", workflow),
        ] {
            std::fs::write(project.join(file), text).unwrap();
        }
        project
    }

    /// Runs `bigflow build-dags`, and says yes to everything.
    fn bigflow(&self, project: &Path, start_time: &str, time_zone: &str) -> Output {
        let mut answer = tempfile::tempfile().unwrap();
        answer.write_all(b"y\ny\n").unwrap();
        answer.rewind().unwrap();
        let path = format!(
            "{}:{}",
            self.python.parent().unwrap().display(),
            std::env::var("PATH").unwrap_or_default()
        );
        Command::new(&self.python)
            .args(["-m", "bigflow", "build-dags", "--start-time", start_time])
            .current_dir(project)
            .env("PATH", path)
            .env("TZ", time_zone)
            .stdin(answer)
            .output()
            .unwrap()
    }

    fn forebay(&self, project: &Path, format: &str) -> Finished {
        let arguments = ["build-dags", "-t", "2026-01-01", "--image-ref", "tag"];
        self.machine("UTC").forebay(
            project,
            arguments.into_iter().chain(["--dag-format", format]),
        )
    }

    /// What is wrong with the file's syntax to Python.
    fn syntax_error(&self, file: &Path) -> Option<String> {
        let output = Command::new(&self.python)
            .args([
                "-c",
                "import sys; compile(open(sys.argv[1]).read(), sys.argv[1], 'exec')",
            ])
            .arg(file)
            .output()
            .unwrap();
        (!output.status.success()).then(|| String::from_utf8(output.stderr).unwrap())
    }
}

#[test]
fn the_bigflow_format_is_bigflows_byte_for_byte() {
    let Some(bench) = Bench::new() else {
        return;
    };
    let Some((scaffold, scaffold_python)) =
        installed("FOREBAY_TEST_SCAFFOLD").zip(installed("FOREBAY_TEST_SCAFFOLD_PYTHON"))
    else {
        return;
    };
    let bench_with_scaffold = Bench {
        python: scaffold_python,
        scratch: tempfile::tempdir().unwrap(),
    };
    let scaffold_copy = bench_with_scaffold.copy_of(&scaffold);
    name_a_registry(&scaffold_copy.join("deployment_config.py"));
    let mut projects = vec![(&bench_with_scaffold, scaffold_copy)];
    let mut sources: Vec<PathBuf> = std::fs::read_dir(fixtures())
        .unwrap()
        .map(|fixture| fixture.unwrap().path())
        .collect();
    sources.sort_unstable();
    projects.extend(sources.iter().map(|source| (&bench, bench.copy_of(source))));
    assert!(projects.len() > 12, "{}", projects.len());

    let mut compared = 0;
    for (index, (bench, project)) in projects.iter().enumerate() {
        let name = project.file_name().unwrap().to_str().unwrap();
        let start_times = if OF_EVERY_TIME_ZONE.contains(&name) {
            &START_TIMES[..]
        } else {
            &START_TIMES[index % START_TIMES.len()..][..1]
        };
        for &(start_time, time_zone) in start_times {
            // First ours: BigFlow renames the files of a project of its version 1.0.
            let folder = project.join(".dags");
            let arguments = ["build-dags", "--dag-format", "bigflow-1.11", "--start-time"];
            let finished = bench
                .machine(time_zone)
                .forebay(project, arguments.into_iter().chain([start_time]));
            assert_eq!(finished.status, 0, "{name}: {}", finished.stderr);
            let ours = read_folder(&folder);
            std::fs::remove_dir_all(&folder).unwrap();

            let output = bench.bigflow(project, start_time, time_zone);
            assert!(
                output.status.success(),
                "bigflow build-dags in {name}:\n{}",
                String::from_utf8_lossy(&output.stderr)
            );
            let theirs = read_folder(&folder);
            std::fs::remove_dir_all(&folder).unwrap();
            assert_eq!(
                theirs.keys().collect::<Vec<_>>(),
                ours.keys().collect::<Vec<_>>(),
                "{name}"
            );
            for (file, content) in &theirs {
                assert!(
                    *content == ours[file],
                    "{name} in {time_zone}, {file}\n--- BigFlow\n{content}\n--- Forebay\n{}",
                    ours[file]
                );
                compared += 1;
            }
        }
    }
    assert!(compared > 150, "only {compared} files were compared");
}

#[test]
fn mended_a_job_without_a_time_limit_gets_three_hours() {
    let Some(bench) = Bench::new() else {
        return;
    };
    let project = bench.project(
        "no_limit",
        "import bigflow\nfrom app.jobs import Job\nw = bigflow.Workflow('w', [Job('j', execution_timeout_sec=0)])\n",
    );
    let output = bench.bigflow(&project, "2026-01-01", "UTC");
    assert!(
        !output.status.success(),
        "BigFlow has no such fault any more"
    );
    let finished = bench.forebay(&project, "bigflow-1.11");
    assert_eq!(finished.status, 0, "{}", finished.stderr);
    let file = &read_folder(&project.join(".dags"))["w__v1__2026_01_01_00_00_00_dag.py"];
    assert!(file.contains("'execution_timeout': datetime.timedelta(seconds=10800),"));
}

#[test]
fn mended_a_dash_in_a_jobs_id_is_no_syntax_error() {
    let Some(bench) = Bench::new() else {
        return;
    };
    let project = bench.project(
        "dash",
        "import bigflow\nfrom app.jobs import Job\nw = bigflow.Workflow('w', [Job('my-job'), Job('next-job')])\n",
    );
    let file = project.join(".dags/w__v1__2026_01_01_00_00_00_dag.py");
    assert!(
        bench
            .bigflow(&project, "2026-01-01", "UTC")
            .status
            .success()
    );
    assert!(
        bench
            .syntax_error(&file)
            .is_some_and(|error| error.contains("SyntaxError")),
        "BigFlow has no such fault any more"
    );
    let finished = bench.forebay(&project, "bigflow-1.11");
    assert!(
        finished.status != 0 && finished.stderr.contains("my-job"),
        "{}",
        finished.stderr
    );
    let finished = bench.forebay(&project, "default");
    assert_eq!(finished.status, 0, "{}", finished.stderr);
    assert_eq!(bench.syntax_error(&file), None);
}

#[test]
fn mended_the_workflow_of_an_id_is_not_the_last_one_that_was_found() {
    let Some(bench) = Bench::new() else {
        return;
    };
    let text =
        "import bigflow\nfrom app.jobs import Job\nw = bigflow.Workflow('same', [Job('j')])\n";
    let project = bench.project("same_id", text);
    std::fs::write(project.join("app/other.py"), text).unwrap();
    assert!(
        bench
            .bigflow(&project, "2026-01-01", "UTC")
            .status
            .success()
    );
    assert_eq!(
        read_folder(&project.join(".dags")).len(),
        2,
        "one DAG and image_version.txt"
    );
    let finished = bench.forebay(&project, "bigflow-1.11");
    assert!(
        finished.status != 0
            && finished.stderr.contains("app/workflow.py")
            && finished.stderr.contains("app/other.py"),
        "{}",
        finished.stderr
    );
}

#[test]
fn mended_a_module_that_raises_a_value_error_is_not_skipped() {
    let Some(bench) = Bench::new() else {
        return;
    };
    let text = "import bigflow\nfrom app.jobs import Job\nw = bigflow.Workflow('w', [Job('j')])\n";
    let project = bench.project("skipped", text);
    std::fs::write(project.join("app/other.py"), "int('x')\n").unwrap();
    assert!(
        bench
            .bigflow(&project, "2026-01-01", "UTC")
            .status
            .success()
    );
    let finished = bench.forebay(&project, "bigflow-1.11");
    assert!(
        finished.status != 0 && finished.stderr.contains("app/other.py"),
        "{}",
        finished.stderr
    );
}
