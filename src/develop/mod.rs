//! What a developer does before a deploy: run a job here, run the tests, compile the
//! requirements, begin a project, find the logs. BigFlow's commands of the same names decide
//! what each does; the project's own Python does it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::python::Interpreter;

mod error;
mod logs;
mod requirements;
mod run;
mod scaffold;
mod test_results;
mod tests_of_project;

pub use error::DevelopError;
pub use logs::{LogLinks, log_links};
pub use requirements::{compile_requirements, requirements_are_stale};
pub use run::{RunRequest, run_command};
pub use scaffold::{MadeProject, NewProject, import_paths_of_bigflow, start_project};
pub use test_results::{PassedTests, TestInputs};
pub use tests_of_project::{TestOutput, has_tests, run_tests};

/// A Python that can import BigFlow and what the project needs.
#[derive(Debug, Clone)]
pub struct ProjectPython {
    /// The interpreter.
    pub interpreter: Interpreter,
    /// Folders to import from besides what is installed: the image's wheels, laid out, if
    /// BigFlow is not installed.
    pub import_paths: Vec<PathBuf>,
    /// Where the project is, absolute.
    pub directory: PathBuf,
}

impl ProjectPython {
    /// This Python in the project's folder. What the code calls `python` is this one too.
    fn command(&self) -> Command {
        let executable = &self.interpreter.executable;
        let mut command = Command::new(executable);
        command.current_dir(&self.directory);
        if let Some(path) = preceded("PATH", executable.parent().into_iter()) {
            command.env("PATH", path);
        }
        if !self.import_paths.is_empty()
            && let Some(path) = preceded("PYTHONPATH", self.import_paths.iter())
        {
            command.env("PYTHONPATH", path);
        }
        command
    }
}

/// A list of folders in a variable, with `folders` before those that are there.
fn preceded<P: AsRef<Path>>(variable: &str, folders: impl Iterator<Item = P>) -> Option<OsString> {
    let known = std::env::var_os(variable).filter(|value| !value.is_empty());
    let known: Vec<PathBuf> = known
        .as_deref()
        .map(|value| std::env::split_paths(value).collect())
        .unwrap_or_default();
    let folders = folders
        .map(|folder| folder.as_ref().to_owned())
        .chain(known);
    std::env::join_paths(folders).ok()
}
