//! What can go wrong while a developer works.

use std::path::PathBuf;

use forebay_store::StoreError;

use crate::python::PythonError;
use crate::wheels::WheelError;

/// Why a command of a developer failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DevelopError {
    /// `--job` is not `WORKFLOW.JOB`.
    #[error("{text:?} does not name a job: a job is named WORKFLOW.JOB")]
    JobName {
        /// What was given.
        text: String,
    },
    /// `--runtime` is no time.
    #[error("{text:?} is not a time")]
    Runtime {
        /// What was given.
        text: String,
    },
    /// A program could not be started.
    #[error("{program} cannot be started: {source}")]
    Start {
        /// Its name or path.
        program: String,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// The project's tests failed.
    #[error("the project's tests failed")]
    TestsFailed {
        /// Where their report is, if they got so far.
        report: Option<PathBuf>,
    },
    /// The Python has no module that the tests need.
    #[error("{} has no {module}, which runs the tests", executable.display())]
    NoTestRunner {
        /// The interpreter.
        executable: PathBuf,
        /// The module.
        module: &'static str,
    },
    /// There is nothing that compiles requirements.
    #[error("neither uv nor pip-compile is there to compile requirements")]
    NoCompiler,
    /// Compiling the requirements failed.
    #[error("{compiler} cannot compile {}: {message}", file.display())]
    Compile {
        /// uv or pip-compile.
        compiler: &'static str,
        /// The file that was to be compiled.
        file: PathBuf,
        /// Its own words.
        message: String,
    },
    /// A file could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was being done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// What was asked for is no name of a package.
    #[error("{name:?} cannot be a project's name: it becomes a Python package")]
    PackageName {
        /// What was given.
        name: String,
    },
    /// There is something where the new project would be.
    #[error("{} is there already", path.display())]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// BigFlow's own scaffold failed.
    #[error("BigFlow cannot make the project: {message}")]
    Scaffold {
        /// What it said.
        message: String,
    },
    /// BigFlow's wheels.
    #[error(transparent)]
    Wheels(#[from] WheelError),
    /// The store on this machine.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The project's Python.
    #[error(transparent)]
    Python(#[from] PythonError),
}
