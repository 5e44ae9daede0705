//! A second build of unchanged sources starts no Python and makes nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

#[path = "support/forebay.rs"]
#[allow(dead_code)]
mod forebay_support;

use forebay_support::{Machine, copy_folder};

/// Every object, pack and laid-out file of the store, with the time of its last change.
fn stored(store: &Path) -> BTreeMap<PathBuf, SystemTime> {
    walkdir::WalkDir::new(store)
        .into_iter()
        .map(Result::unwrap)
        .filter(|entry| entry.file_type().is_file())
        .filter(|entry| {
            let text = entry.path().to_string_lossy().into_owned();
            !text.contains("index") && !text.contains("lock") && !text.contains("staging")
        })
        .map(|entry| {
            (
                entry.path().to_owned(),
                entry.metadata().unwrap().modified().unwrap(),
            )
        })
        .collect()
}

#[test]
fn a_second_build_starts_no_python_and_makes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (project, hook) = (
        directory.path().join("project"),
        directory.path().join("hook"),
    );
    let (store, log) = (
        directory.path().join("store"),
        directory.path().join("starts"),
    );
    copy_folder(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/hello"),
        &project,
    );
    // Python imports this module at every start.
    std::fs::create_dir(&hook).unwrap();
    std::fs::write(
        hook.join("sitecustomize.py"),
        format!(
            "open({:?}, 'a').write('started\\n')\n",
            log.display().to_string()
        ),
    )
    .unwrap();
    let machine = Machine::new()
        .with_python("/usr/bin/python3")
        .with_variable("PYTHONPATH", hook.to_str().unwrap())
        .with_variable("FOREBAY_STORE", store.to_str().unwrap());
    let starts = || {
        std::fs::read_to_string(&log)
            .unwrap_or_default()
            .lines()
            .count()
    };

    let first = machine.forebay_json(&project, ["build", "-c", "local"]);
    let (first_starts, first_stored) = (starts(), stored(&store));
    assert!(first_starts > 0, "the hook does not work");
    assert!(!first_stored.is_empty());

    let second = machine.forebay_json(&project, ["build", "-c", "local"]);
    assert_eq!(second, first);
    assert_eq!(starts(), first_starts);
    assert_eq!(stored(&store), first_stored);

    // A file that no workflow reads starts no Python either.
    std::fs::write(project.join("NOTES.md"), "A remark.\n").unwrap();
    machine.forebay_json(&project, ["build", "-c", "local"]);
    assert_eq!(starts(), first_starts);

    // One that is a workflow's does.
    let greeting = project.join("hello/greeting.py");
    let text = std::fs::read_to_string(&greeting).unwrap();
    std::fs::write(&greeting, text + "\n# One more line.\n").unwrap();
    machine.forebay_json(&project, ["build", "-c", "local"]);
    assert_eq!(starts(), first_starts + 1);
}
