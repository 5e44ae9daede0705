//! Why a project's workflows could not be found.

use std::fmt;
use std::path::PathBuf;

use forebay_store::StoreError;

use crate::project::{InvalidName, WorkflowId};
use crate::python::PythonError;

/// Why the workflows could not be found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeError {
    /// A module of the project cannot be imported.
    #[error("module {module} cannot be imported: {failure}")]
    Import {
        /// The module's dotted name.
        module: String,
        /// What happened, and where.
        failure: Box<ImportFailure>,
    },
    /// BigFlow itself cannot be imported.
    #[error("the Python at {} cannot import bigflow: {message}", interpreter.display())]
    NoBigflow {
        /// The interpreter.
        interpreter: PathBuf,
        /// Python's message.
        message: String,
    },
    /// A workflow is defined that no DAG file can be written from.
    #[error("workflow {workflow} ({place}) has no DAG: {message}")]
    Workflow {
        /// The workflow's id, as it is written.
        workflow: String,
        /// Where it is defined, or where the exception came from.
        place: Place,
        /// What is wrong.
        message: String,
    },
    /// A name in a workflow would break in Airflow or in the pod.
    #[error("{place}: {source}")]
    Name {
        /// Where the workflow is defined.
        place: Place,
        /// What is wrong with the name.
        source: InvalidName,
    },
    /// Two different workflows have one id.
    #[error("two workflows have the id {id}: one in {first}, one in {second}")]
    Duplicate {
        /// The id.
        id: WorkflowId,
        /// Where one is defined.
        first: Place,
        /// Where the other is.
        second: Place,
    },
    /// The project's packages cannot be listed.
    #[error("{} cannot be read: {source}", path.display())]
    Read {
        /// What.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// Python could not be run.
    #[error(transparent)]
    Python(#[from] PythonError),
    /// The image's wheels could not be unpacked for Python to import from.
    #[error(transparent)]
    Wheels(#[from] crate::wheels::WheelError),
    /// The store could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A place in the user's code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file, relative to the project's directory where it lies in it.
    pub file: PathBuf,
    /// The line, from 1, where it is known.
    pub line: Option<usize>,
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.file.display())?;
        match self.line {
            Some(line) => write!(formatter, ", line {line}"),
            None => Ok(()),
        }
    }
}

/// An exception that kept a module from being imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportFailure {
    /// Where in the user's code it came from.
    pub place: Place,
    /// The exception's type.
    pub exception: String,
    /// Python's message.
    pub message: String,
    /// The name of a module that is not installed, if that is the reason.
    pub missing_module: Option<String>,
}

impl fmt::Display for ImportFailure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{}: {}: {}",
            self.place, self.exception, self.message
        )
    }
}

impl ProbeError {
    /// What a person can do about it.
    pub fn next_step(&self) -> Option<String> {
        match self {
            Self::Import { failure, .. } => Some(match &failure.missing_module {
                Some(module) => format!(
                    "install {module} where the project's workflows are built (its requirements must name it), or name another Python with --python"
                ),
                None if failure.exception == "InvalidJobGraph" => "take one of these dependencies out of the workflow's definition: no job can wait for itself".to_owned(),
                None if failure.exception == "ValueError" => "mend the module; BigFlow would skip it with a printed line, and leave its workflows out".to_owned(),
                None => "mend the module: importing it in the project's folder shows the same error".to_owned(),
            }),
            Self::NoBigflow { .. } => Some(
                "install bigflow there, or name another Python with --python".to_owned(),
            ),
            Self::Duplicate { .. } => Some("give one of them another workflow_id".to_owned()),
            _ => None,
        }
    }
}
