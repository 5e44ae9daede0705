//! The first table of `docs/from-bigflow.md`: commands that BigFlow 1.11.3 can run here, run by it and
//! by Forebay, each in a fresh copy of the same project. `FOREBAY_TEST_UPDATE=1` writes it anew.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

#[path = "support/forebay.rs"]
#[allow(dead_code)]
mod forebay_support;

use forebay_support::{Finished, Machine, copy_folder, installed};

const BEGIN: &str = "<!-- begin: written by tests/from_bigflow.rs -->\n";
const END: &str = "<!-- end -->";

/// What is typed, and what cannot be seen from outside.
const ROWS: &[(&[&str], &str)] = &[
    (
        &["build-dags", "-c", "local"],
        "`--dag-format bigflow-1.11` gives the same bytes",
    ),
    (
        &["build-dags", "-c", "local", "-w", "greeting"],
        "That workflow alone",
    ),
    (
        &["build-dags", "-c", "local", "-t", "2024-01-31 00:00:00"],
        "A start time that is named stays part of the DAG",
    ),
    (
        &["build-dags", "-c", "nowhere"],
        "An environment that is not configured is an error here; the message names those that are",
    ),
    (
        &["build-package"],
        "Runs the tests, if there are any; the wheel has the same bytes from the same sources",
    ),
    (
        &[
            "run",
            "--job",
            "greeting.greet",
            "--runtime",
            "2024-01-31",
            "-c",
            "local",
        ],
        "In the project's Python; without BigFlow there, from the image's own wheels",
    ),
    (
        &[
            "run",
            "--workflow",
            "greeting",
            "--runtime",
            "2024-01-31",
            "-c",
            "local",
        ],
        "",
    ),
    (&["run", "--workflow", "absent"], ""),
    (&["project-version"], "From git, in BigFlow's scheme"),
    (&["pv"], ""),
    (
        &["project-version", "--colour", "red"],
        "What nobody knows is ignored, here with a warning",
    ),
];

/// What a command did.
struct Effect {
    status: i32,
    /// Files and folders at the top of the project that are new.
    leaves: String,
    printed: String,
}

fn project(machine: &Machine) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/hello");
    copy_folder(&example, folder.path());
    for generated in [".local", ".dags", "build", "dist"] {
        let _ = std::fs::remove_dir_all(folder.path().join(generated));
    }
    for arguments in [
        &["init", "--quiet"][..],
        &["add", "--all"],
        &["commit", "--quiet", "--message", "hello"],
        &["tag", "1.0"],
    ] {
        machine.run(folder.path(), "git", arguments);
    }
    folder
}

fn top(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    let entries = entries.filter(|entry| entry.file_name() != "__pycache__");
    let name = |entry: std::fs::DirEntry| {
        let slash = if entry.file_type().unwrap().is_dir() {
            "/"
        } else {
            ""
        };
        format!("{}{slash}", entry.file_name().to_str().unwrap())
    };
    entries.map(name).collect()
}

fn effect(machine: &Machine, run: impl Fn(&Path) -> Finished) -> Effect {
    let project = project(machine);
    let before = top(project.path());
    let finished = run(project.path());
    let new = top(project.path());
    let new: Vec<_> = new
        .difference(&before)
        .map(|name| format!("`{name}`"))
        .collect();
    Effect {
        status: finished.status,
        leaves: new.join(" "),
        printed: finished.stdout.replace("bf_env is : local\n", ""),
    }
}

fn cell(theirs: &str, ours: &str) -> String {
    let shown = |text: &str| if text.is_empty() { "nothing" } else { text }.to_owned();
    match theirs == ours {
        true => shown(ours),
        false => format!("{}; here {}", shown(theirs), shown(ours)),
    }
}

#[test]
fn the_side_by_side_table_is_what_both_do() {
    let Some(python) = installed("FOREBAY_TEST_BIGFLOW_PYTHON") else {
        return;
    };
    let path = std::env::var_os("PATH").unwrap();
    let folders = std::iter::once(python.parent().unwrap().to_owned());
    let path = std::env::join_paths(folders.chain(std::env::split_paths(&path))).unwrap();
    let machine = Machine::new()
        .with_python(&python)
        .with_variable("PATH", path.to_str().unwrap())
        .with_variable("GIT_AUTHOR_DATE", "2024-01-31T00:00:00Z")
        .with_variable("GIT_COMMITTER_DATE", "2024-01-31T00:00:00Z");
    let mut table = String::from(
        "| what you typed after `bigflow` | exit status | new in the project | what it prints | to know |\n| --- | --- | --- | --- | --- |\n",
    );
    for (arguments, note) in ROWS {
        let theirs = effect(&machine, |folder| {
            let mut command = machine.command(&python, folder);
            command.args(["-m", "bigflow"]).args(*arguments);
            Finished::from(command.output().unwrap())
        });
        let ours = effect(&machine, |folder| machine.forebay(folder, *arguments));
        let words: Vec<_> = (arguments.iter())
            .map(|word| {
                if word.contains(' ') {
                    format!("\"{word}\"")
                } else {
                    (*word).to_owned()
                }
            })
            .collect();
        let _ = writeln!(
            table,
            "| `{}` | {} | {} | {} | {note} |",
            words.join(" "),
            cell(&theirs.status.to_string(), &ours.status.to_string()),
            cell(&theirs.leaves, &ours.leaves),
            match (theirs.printed == ours.printed, ours.printed.is_empty()) {
                (true, true) => "nothing",
                (true, false) => "the same",
                (false, _) => "other words",
            },
        );
    }

    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/from-bigflow.md");
    let text = std::fs::read_to_string(&page).unwrap();
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let (written, after) = rest.split_once(END).unwrap();
    if std::env::var_os("FOREBAY_TEST_UPDATE").is_some() {
        std::fs::write(&page, format!("{before}{BEGIN}{table}{END}{after}")).unwrap();
        return;
    }
    assert_eq!(
        written, table,
        "docs/from-bigflow.md says something else; FOREBAY_TEST_UPDATE=1 writes it anew"
    );
}
