//! The installed BigFlow 1.11.3 that Forebay is compared with.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// The Python of `FOREBAY_TEST_BIGFLOW_PYTHON`, which has `bigflow==1.11.3`.
///
/// Without the variable the test ends with a message, but fails in CI.
#[allow(dead_code)]
pub(crate) fn bigflow_python() -> Option<PathBuf> {
    match std::env::var_os("FOREBAY_TEST_BIGFLOW_PYTHON") {
        Some(path) => Some(path.into()),
        None if std::env::var_os("CI").is_some() => {
            panic!("FOREBAY_TEST_BIGFLOW_PYTHON must name a Python with bigflow==1.11.3")
        }
        None => {
            eprintln!("skipped: FOREBAY_TEST_BIGFLOW_PYTHON names no Python with bigflow==1.11.3");
            None
        }
    }
}

/// Writes a program.
#[allow(dead_code)]
pub(crate) fn executable(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// A Python that sees no installed packages.
#[allow(dead_code)]
pub(crate) fn bare_python(python: &Path, path: &Path) {
    executable(
        path,
        &format!("#!/bin/sh\nexec '{}' -S \"$@\"\n", python.display()),
    );
}

/// Copies a folder, without what a build leaves in it.
#[allow(dead_code)]
pub(crate) fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_name() == "__pycache__" {
            continue;
        }
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The folder of projects that are built by both programs.
#[allow(dead_code)]
pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/projects")
}

/// Gives the scaffold's repository a host: without one, Forebay writes in full what Docker
/// reads the name as.
#[allow(dead_code)]
pub(crate) fn name_a_registry(config: &Path) {
    let text = std::fs::read_to_string(config).unwrap();
    let full = text.replace("'test_repository'", "'registry.test/test_repository'");
    assert_ne!(text, full);
    std::fs::write(config, full).unwrap();
}
