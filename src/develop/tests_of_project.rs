//! Runs the project's own tests, with the framework that its specification names, and leaves
//! their report as JUnit XML below `build/junit-reports`, where CI services look for it.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use walkdir::WalkDir;

use super::{DevelopError, ProjectPython};
use crate::project::TestFramework;

/// Runs the tests, and gives the folder of their report. What they print goes to standard error.
///
/// # Errors
/// [`DevelopError::TestsFailed`], or the framework cannot be started.
pub fn run_tests(
    python: &ProjectPython,
    framework: TestFramework,
) -> Result<PathBuf, DevelopError> {
    let report = python.directory.join("build").join("junit-reports");
    let file = |action| {
        let path = report.clone();
        move |source| DevelopError::File {
            action,
            path,
            source,
        }
    };
    // An old report must not be taken for this run's.
    if report.exists() {
        std::fs::remove_dir_all(&report).map_err(file("remove"))?;
    }
    std::fs::create_dir_all(&report).map_err(file("make"))?;
    let module = match framework {
        TestFramework::Unittest => "xmlrunner",
        TestFramework::Pytest => "pytest",
    };
    let mut command = python.command();
    command.args(["-u", "-m", module]);
    match framework {
        TestFramework::Unittest => command
            .args(["discover", "-s", ".", "-t"])
            .arg(&python.directory)
            .arg("-o")
            .arg(&report),
        TestFramework::Pytest => command.arg("--junit-xml").arg(report.join("report.xml")),
    };
    let executable = &python.interpreter.executable;
    let start = |source| DevelopError::Start {
        program: executable.display().to_string(),
        source,
    };
    // Standard output is for this program's result.
    let status = command
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .map_err(start)?;
    if status.success() {
        return Ok(report);
    }
    let is_empty = std::fs::read_dir(&report).is_ok_and(|mut files| files.next().is_none());
    if is_empty && !can_import(python, module)? {
        return Err(DevelopError::NoTestRunner {
            executable: executable.clone(),
            module,
        });
    }
    Err(DevelopError::TestsFailed {
        report: (!is_empty).then_some(report),
    })
}

fn can_import(python: &ProjectPython, module: &str) -> Result<bool, DevelopError> {
    let status = python
        .command()
        .arg("-c")
        .arg(format!("import {module}"))
        .stderr(Stdio::null())
        .status()
        .map_err(|source| DevelopError::Start {
            program: python.interpreter.executable.display().to_string(),
            source,
        })?;
    Ok(status.success())
}

/// Whether any file has a name that the framework looks for. Hidden folders and virtual
/// environments are not searched.
pub fn has_tests(directory: &Path, framework: TestFramework) -> bool {
    let is_searched = |entry: &walkdir::DirEntry| {
        let name = entry.file_name().to_string_lossy();
        let is_hidden = entry.depth() > 0 && name.starts_with('.');
        !(is_hidden || entry.path().join("pyvenv.cfg").exists())
    };
    WalkDir::new(directory)
        .into_iter()
        .filter_entry(is_searched)
        .filter_map(Result::ok)
        .any(|entry| {
            let name = entry.file_name().to_string_lossy();
            let Some(stem) = name.strip_suffix(".py") else {
                return false;
            };
            match framework {
                TestFramework::Unittest => stem.starts_with("test"),
                TestFramework::Pytest => stem.starts_with("test_") || stem.ends_with("_test"),
            }
        })
}
