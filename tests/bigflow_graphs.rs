//! Generated workflow graphs: the order of the jobs and what each waits for are those
//! of BigFlow 1.11.3's `generate_dag_file`.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

mod bigflow_support;
#[path = "support/forebay.rs"]
#[allow(dead_code)]
mod forebay_support;

use std::fmt::Write as _;
use std::process::Command;

use bigflow_support::bigflow_python;
use forebay_support::Machine;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

const GRAPHS: usize = 600;
const MOST_JOBS: usize = 12;

/// Writes the same workflows' files with BigFlow, all in one process.
const BIGFLOW_SIDE: &str = "
import sys
sys.path.insert(0, sys.argv[1])
import bigflow
from bigflow.dagbuilder import generate_dag_file
import app.workflow
for workflow in list(vars(app.workflow).values()):
    if isinstance(workflow, bigflow.Workflow):
        generate_dag_file(sys.argv[2], 'registry.test/app:1', workflow, '2026-01-01', '1', 'app')
";

/// A definition as Python source; the jobs are `j[0]`, `j[1]` and so on.
fn definition() -> impl Strategy<Value = String> {
    prop_oneof![
        1 => list(),
        1 => list().prop_map(|list| format!("D([W(job, job.id) for job in {list}])")),
        6 => dictionary(),
    ]
}

/// Jobs one after another.
fn list() -> impl Strategy<Value = String> {
    numbers().prop_map(|numbers| {
        let jobs: Vec<_> = numbers.iter().map(|number| job(*number)).collect();
        format!("[{}]", jobs.join(", "))
    })
}

/// The numbers of some jobs, in any order.
fn numbers() -> impl Strategy<Value = Vec<usize>> {
    prop::sample::subsequence((0..MOST_JOBS).collect::<Vec<_>>(), 0..=MOST_JOBS).prop_shuffle()
}

fn job(number: usize) -> String {
    format!("j[{number}]")
}

/// A graph without circles: edges lead from an earlier job of a random order to later
/// ones. Keys and targets are written in any order; a job may be a target alone, a key
/// without targets, wrapped, made a second time with the same id, or a target twice.
fn dictionary() -> impl Strategy<Value = String> {
    numbers()
        .prop_flat_map(|order| {
            let nodes = order.len();
            let targets = (0..nodes)
                .map(|position| {
                    let later = order[position + 1..].to_vec();
                    let most = later.len().min(5);
                    let chosen = prop::sample::subsequence(later, 0..=most).prop_shuffle();
                    let repeated = prop::bool::weighted(0.05);
                    (chosen, repeated).prop_map(|(mut chosen, repeated)| {
                        if repeated {
                            chosen.extend(chosen.first().copied());
                        }
                        chosen
                    })
                })
                .collect::<Vec<_>>();
            let spellings = prop::collection::vec(0..10_u8, nodes * 8);
            let left_out = prop::collection::vec(prop::bool::weighted(0.3), nodes);
            let keys = Just((0..nodes).collect::<Vec<_>>()).prop_shuffle();
            (Just(order), targets, spellings, left_out, keys)
        })
        .prop_map(|(order, targets, spellings, left_out, keys)| {
            let mut spellings = spellings.into_iter().cycle();
            let mut spell = |number: usize| match spellings.next() {
                Some(0) => format!("W({0}, {0}.id)", job(number)),
                Some(1) => format!("Job({}.id)", job(number)),
                _ => job(number),
            };
            let mut text = "D({".to_owned();
            for key in keys {
                if targets[key].is_empty() && left_out[key] {
                    continue;
                }
                let key_job = spell(order[key]);
                let list: Vec<_> = targets[key].iter().map(|target| spell(*target)).collect();
                let _ = write!(text, "{key_job}: [{}], ", list.join(", "));
            }
            text + "})"
        })
}

/// Each job's task with what it waits for, in the order of the file, whose format is told
/// by how it names a job's variable.
fn order_and_edges(file: &str, variable: &str) -> Vec<String> {
    file.lines()
        .filter_map(|line| {
            if let Some((name, call)) = line.split_once(" = ") {
                let name = name.strip_prefix(variable)?;
                return call
                    .starts_with("KubernetesPodOperator(")
                    .then(|| format!("job {name}"));
            }
            let (name, rest) = line.split_once(".set_upstream(")?;
            let name = name.strip_prefix(variable)?;
            let upstream = rest.strip_suffix(')')?.strip_prefix(variable)?;
            Some(format!("{name} waits for {upstream}"))
        })
        .collect()
}

#[test]
fn order_and_edges_of_generated_graphs_are_bigflows() {
    let Some(python) = bigflow_python() else {
        return;
    };
    let mut runner = TestRunner::default();
    let mut module = "import bigflow
from bigflow import Definition as D
from bigflow.workflow import WorkflowJob as W

class Job(bigflow.Job):
    def execute(self, context):
        pass

"
    .to_owned();
    let mut sources = Vec::new();
    for number in 0..GRAPHS {
        let source = definition().new_tree(&mut runner).unwrap().current();
        let _ = writeln!(
            module,
            "j = [Job('job_%d' % n) for n in range({MOST_JOBS})]\nw{number} = bigflow.Workflow('w{number}', {source})"
        );
        sources.push(source);
    }

    let scratch = tempfile::tempdir().unwrap();
    let project = scratch.path().join("project");
    std::fs::create_dir_all(project.join("app")).unwrap();
    for (file, text) in [
        (
            "setup.py",
            "import bigflow.build\nbigflow.build.setup(name='app', version='1')\n",
        ),
        (
            "deployment_config.py",
            "import bigflow\ndeployment_config = bigflow.Config('dev', {'docker_repository': 'registry.test/app'})\n",
        ),
        ("app/__init__.py", ""),
        ("app/workflow.py", &module),
    ] {
        std::fs::write(project.join(file), text).unwrap();
    }

    let output = Command::new(&python)
        .args(["-c", BIGFLOW_SIDE])
        .args([&project, scratch.path()])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let machine = Machine::new().with_python(&python);
    let build = |format: &str| {
        let arguments = ["build-dags", "-t", "2026-01-01", "--image-ref", "tag"];
        let finished = machine.forebay(
            &project,
            arguments.into_iter().chain(["--dag-format", format]),
        );
        assert_eq!(finished.status, 0, "{}", finished.stderr);
        let folder = scratch.path().join(format);
        std::fs::rename(project.join(".dags"), &folder).unwrap();
        folder
    };
    let [bigflows, same, default] = [
        scratch.path().join(".dags"),
        build("bigflow-1.11"),
        build("default"),
    ];

    let (mut edges, mut with_edges) = (0, 0);
    for (number, source) in sources.iter().enumerate() {
        let name = format!("w{number}__v1__2026_01_01_00_00_00_dag.py");
        let read = |folder: &std::path::Path| std::fs::read_to_string(folder.join(&name)).unwrap();
        let theirs = read(&bigflows);
        assert!(theirs == read(&same), "{source}");
        let theirs = order_and_edges(&theirs, "t");
        assert_eq!(
            order_and_edges(&read(&default), "task_"),
            theirs,
            "{source}"
        );
        let here = theirs
            .iter()
            .filter(|line| line.contains(" waits for "))
            .count();
        edges += here;
        with_edges += usize::from(here > 0);
    }
    // Most have a shape, and many join.
    assert!(with_edges > GRAPHS / 2, "{with_edges}");
    assert!(edges > 4 * GRAPHS, "{edges}");
}
