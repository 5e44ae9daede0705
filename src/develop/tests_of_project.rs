//! Runs the project's own tests, with the framework that its specification names, and leaves
//! their report as JUnit XML below `build/junit-reports`, where CI services look for it.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use forebay_store::Tree;

use super::{DevelopError, ProjectPython};
use crate::progress::{Event, Phase, Progress};
use crate::project::TestFramework;

/// Where the report is, in the project's folder.
pub(super) const REPORT: &str = "build/junit-reports";

/// Where what the tests print goes.
#[derive(Clone, Copy)]
pub enum TestOutput<'a> {
    /// To standard error, as it comes.
    StandardError,
    /// Line by line to whoever watches.
    Events(&'a dyn Progress),
}

/// Runs the tests, and gives the folder of their report.
///
/// # Errors
/// [`DevelopError::TestsFailed`], or the framework cannot be started.
pub fn run_tests(
    python: &ProjectPython,
    framework: TestFramework,
    output: TestOutput<'_>,
) -> Result<PathBuf, DevelopError> {
    let report = python.directory.join(REPORT);
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
    let status = finish(command, output).map_err(|source| DevelopError::Start {
        program: executable.display().to_string(),
        source,
    })?;
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

/// Standard output is for this program's result.
fn finish(mut command: Command, output: TestOutput<'_>) -> std::io::Result<ExitStatus> {
    command.stdin(Stdio::null());
    let progress = match output {
        TestOutput::StandardError => return command.stdout(std::io::stderr()).status(),
        TestOutput::Events(progress) => progress,
    };
    let (reader, writer) = std::io::pipe()?;
    let mut child = command.stdout(writer.try_clone()?).stderr(writer).spawn()?;
    // The command holds the pipe's other end open.
    drop(command);
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        progress.report(Event::Output {
            phase: Phase::Tests,
            line: String::from_utf8_lossy(&line).trim_end().to_owned(),
        });
        line.clear();
    }
    child.wait()
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

/// Whether any file has a name that the framework looks for.
pub fn has_tests(tree: &Tree, framework: TestFramework) -> bool {
    tree.entries.iter().any(|entry| {
        let path = Path::new(&entry.path);
        let is_hidden = entry.path.split('/').any(|part| part.starts_with('.'));
        let is_python = path.extension().is_some_and(|extension| extension == "py");
        let Some(stem) = path.file_stem().and_then(|stem| stem.to_str()) else {
            return false;
        };
        let is_test = match framework {
            TestFramework::Unittest => stem.starts_with("test"),
            TestFramework::Pytest => stem.starts_with("test_") || stem.ends_with("_test"),
        };
        is_python && !is_hidden && is_test
    })
}
