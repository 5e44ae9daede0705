//! A process that ends at a call, without any clean-up.

use std::process::Command;

use super::file_system::{Fault, FaultyFileSystem};
use super::*;

const ROOT: &str = "FOREBAY_TEST_ABORT_ROOT";
const AT: &str = "FOREBAY_TEST_ABORT_AT";
const COLLECTS: &str = "FOREBAY_TEST_ABORT_COLLECTS";

/// Does nothing unless the test below has started it.
#[test]
fn child_that_dies() {
    let Some(root) = std::env::var_os(ROOT) else {
        return;
    };
    let at = std::env::var(AT).unwrap().parse().unwrap();
    let file_system = FaultyFileSystem::new(Some((at, Fault::Abort)));
    let store = Store::open_with(Path::new(&root), file_system).unwrap();
    if std::env::var_os(COLLECTS).is_some() {
        let _ = collect(&store);
    } else {
        let _ = commit(&store, "second");
    }
}

/// Runs the child above until it dies at the call with that number.
fn die_at(at: usize, root: &Path, collects: bool) {
    let mut child = Command::new(std::env::current_exe().unwrap());
    if collects {
        child.env(COLLECTS, "");
    }
    let status = child
        .args(["faults::kill::child_that_dies", "--exact", "--quiet"])
        .env(ROOT, root)
        .env(AT, at.to_string())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(status.code().is_none(), "call {at}: {status}");
}

#[test]
fn a_collector_that_dies_at_any_call_loses_nothing() {
    let garbage = with_garbage();
    for at in 0..number_of_collecting_calls(garbage.path()) {
        let directory = tempfile::tempdir().unwrap();
        copy(garbage.path(), directory.path());
        die_at(at, directory.path(), true);
        assert_collectable(directory.path());
    }
}

#[test]
fn a_process_that_dies_at_any_call_leaves_nothing_behind() {
    let first = with_first();
    for at in 0..number_of_calls(first.path()) {
        let directory = tempfile::tempdir().unwrap();
        copy(first.path(), directory.path());
        die_at(at, directory.path(), false);
        let store = Store::open(directory.path()).unwrap();
        assert_sound(&store);
        assert_has(&store, "first");
        commit(&store, "second").unwrap();
        assert_has(&store, "second");
    }
}
