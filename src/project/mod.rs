//! What the user wrote: the project's specification, its deployment
//! configuration, its settings, and its version.

use std::path::{Path, PathBuf};

mod config;
mod evaluate;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod git;
mod git_index;
mod load;
mod names;
mod packages;
mod release;
mod settings;
mod spec;
mod value;
mod working_tree;

pub use config::{
    ConfigError, DeploymentConfig, Property, PropertyOrigin, ResolvedConfig, process_variables,
};
pub use git::{GitState, VersionError, git_ancestors, git_commit, git_version};
pub use load::{FindInterpreter, LoadedConfig};
pub use names::{EnvironmentName, InvalidName, JobId, ProjectName, Version, WorkflowId};
pub use packages::find_packages;
pub use release::{ReleaseError, release};
pub use settings::{
    BytecodeSetting, CompressionSetting, CopySetting, DagFormat, DagIds, DagSettings, EngineChoice,
    EngineSettings, EnvironmentSettings, ImageSettings, Settings,
};
pub use spec::{ProjectSpec, TestFramework};
pub use value::PropertyValue;
pub use working_tree::WorkingTree;

use crate::python::PythonError;
use forebay_store::Store;

/// Why a project cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProjectError {
    /// No folder from the start upwards looks like a project.
    #[error("no BigFlow project at {} or above: there is no setup.py, pyproject.toml or project_setup.py", start.display())]
    NotFound {
        /// Where the search began.
        start: PathBuf,
    },
    /// A file or folder cannot be read.
    #[error("{} cannot be read: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// A Python file that Python could not read either.
    #[error("{}, line {line}, column {column}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// From 1, in characters.
        column: usize,
        /// As Python says it.
        message: String,
    },
    /// A Python file that raised an exception.
    #[error("{}{}: {exception}: {message}", path.display(), at_line(*line))]
    Raised {
        /// The user's file that raised it.
        path: PathBuf,
        /// From 1.
        line: Option<usize>,
        /// The exception's type.
        exception: String,
        /// Python's message.
        message: String,
    },
    /// `deployment_config.py` contradicts itself.
    #[error("{}{}: {source}", path.display(), at_line(*line))]
    Config {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: Option<usize>,
        /// What is wrong.
        source: ConfigError,
    },
    /// `deployment_config.py` defines no `Config` under the name `deployment_config`.
    #[error("{} must define `deployment_config` as a bigflow Config, but {}", path.display(),
        found.as_ref().map_or_else(|| "does not define it".to_owned(), |found| format!("it is {found}")))]
    NotAConfig {
        /// The file.
        path: PathBuf,
        /// What it is instead, if it is defined.
        found: Option<String>,
    },
    /// `setup.py` does not call `bigflow.build.setup`.
    #[error("{} does not call bigflow.build.setup()", path.display())]
    NoSetup {
        /// The file.
        path: PathBuf,
    },
    /// `pyproject.toml` is not TOML, or has a setting that is not known.
    #[error("{}: {message}", path.display())]
    Toml {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the place.
        message: String,
    },
    /// Nothing names the project.
    #[error("the project in {} has no name: neither `name` in setup.py's bigflow.build.setup() nor in [bigflow-project] of pyproject.toml", directory.display())]
    NoName {
        /// The project's directory.
        directory: PathBuf,
    },
    /// A parameter of the specification has a wrong type.
    #[error("the project's parameter {key:?} must be {expected}, but is a {found}")]
    Parameter {
        /// Which.
        key: String,
        /// What it must be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// The project's name cannot be used.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// A file needs the project's Python, and that fails.
    #[error(transparent)]
    Python(#[from] PythonError),
}

fn at_line(line: Option<usize>) -> String {
    line.map_or_else(String::new, |line| format!(", line {line}"))
}

/// A BigFlow project.
#[derive(Debug, Clone)]
pub struct Project {
    /// Its directory, absolute.
    pub directory: PathBuf,
    /// What it says about itself.
    pub spec: ProjectSpec,
    /// `[tool.forebay]`.
    pub settings: Settings,
}

impl Project {
    /// Finds and reads the project that `start` lies in.
    ///
    /// `interpreter` is only called when `setup.py` cannot be read without Python.
    pub fn open(start: &Path, interpreter: FindInterpreter<'_>) -> Result<Self, ProjectError> {
        Self::open_remembered(start, interpreter, None)
    }

    /// The same; what Python says about `setup.py` is remembered in `store`.
    pub fn open_remembered(
        start: &Path,
        interpreter: FindInterpreter<'_>,
        store: Option<&Store>,
    ) -> Result<Self, ProjectError> {
        let directory = find_project_directory(start)?;
        let mut pyproject = spec::read_pyproject(&directory)?;
        let settings = std::mem::take(&mut pyproject.settings);
        let spec = spec::read_spec(&directory, pyproject, interpreter, store)?;
        Ok(Self {
            directory,
            spec,
            settings,
        })
    }

    /// Where the deployment configuration is, if the command line does not say otherwise.
    pub fn deployment_config_path(&self) -> PathBuf {
        self.directory.join(&self.spec.deployment_config_file)
    }

    /// The version: the one written down, else git's.
    pub fn version(&self) -> Result<Version, VersionError> {
        match &self.spec.version {
            Some(version) => Ok(version.parse()?),
            None => git_version(&self.directory, None),
        }
    }
}

impl Project {
    /// Version and commit, as [`WorkingTree`] remembers them; a version that is written down wins.
    pub fn working_tree(&self, store: &Store) -> Result<WorkingTree, VersionError> {
        let mut tree = WorkingTree::of(&self.directory, store);
        if let Some(version) = &self.spec.version {
            let version = version.parse()?;
            tree = Ok(WorkingTree {
                version,
                commit: tree.ok().and_then(|tree| tree.commit),
            });
        }
        tree
    }
}

/// The nearest folder from `start` upwards with a project's file in it. Like
/// BigFlow, the search does not leave a git repository or the home directory.
pub fn find_project_directory(start: &Path) -> Result<PathBuf, ProjectError> {
    let read = |source| ProjectError::Read {
        path: start.to_owned(),
        source,
    };
    let absolute = start.canonicalize().map_err(read)?;
    let home = std::env::home_dir();
    for directory in absolute.ancestors() {
        let has = |name: &str| directory.join(name).exists();
        if has("pyproject.toml") || has("setup.py") || has("project_setup.py") {
            return Ok(directory.to_owned());
        }
        if has(".git") || Some(directory) == home.as_deref() {
            break;
        }
    }
    Err(ProjectError::NotFound { start: absolute })
}

#[cfg(test)]
mod tests;
