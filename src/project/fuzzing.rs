//! See [`crate::fuzzing`].
#![allow(clippy::unwrap_used, missing_docs)]

use super::evaluate::evaluate;
use super::spec::read_pyproject;

/// A configuration is left to Python, or read; its environments can be resolved or say why not.
pub fn deployment_config(bytes: &[u8]) {
    let Ok(source) = std::str::from_utf8(bytes) else {
        return;
    };
    for module in ["deployment_config", "__main__"] {
        let Ok(evaluated) = evaluate(source, module) else {
            continue;
        };
        if let Some(config) = evaluated.deployment_config {
            let names: Vec<Option<&str>> = config.environments().into_iter().map(Some).collect();
            for name in names.into_iter().chain([None, Some("another")]) {
                let _ = config.resolve(name, &[("bf_x".to_owned(), "{y}".to_owned())]);
            }
        }
    }
}

/// `pyproject.toml` is refused, or read.
pub fn pyproject(bytes: &[u8]) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("pyproject.toml"), bytes).unwrap();
    let _ = read_pyproject(directory.path());
}
