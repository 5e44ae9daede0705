//! Reads `deployment_config.py` and `setup.py`: in Rust where that is exact,
//! otherwise by running them in the project's Python.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::ProjectError;
use super::config::DeploymentConfig;
use super::evaluate::{EvaluateError, Evaluated, evaluate};
use super::value::PropertyValue;
use crate::python::{Interpreter, PythonError, Traced, TracedScript};
use forebay_store::Store;

/// Finds the project's Python. Called only when a file cannot be read without it.
pub type FindInterpreter<'a> = &'a dyn Fn() -> Result<Interpreter, PythonError>;

const DEPLOYMENT_CONFIG_SCRIPT: &str = concat!(
    include_str!("../python/scripts/common.py"),
    include_str!("../python/scripts/trace.py"),
    include_str!("scripts/deployment_config.py")
);
const SETUP_SCRIPT: &str = concat!(
    include_str!("../python/scripts/common.py"),
    include_str!("../python/scripts/trace.py"),
    include_str!("scripts/setup.py")
);

/// What `deployment_config` is instead of a `Config`, if it is anything.
#[derive(Deserialize)]
struct Found {
    type_name: Option<String>,
}

/// The arguments of `setup()`, if it was called.
#[derive(Serialize, Deserialize)]
struct Call {
    parameters: Option<Vec<(String, PropertyValue)>>,
}

/// An exception in the user's code.
#[derive(Deserialize)]
struct Raised {
    exception: String,
    message: String,
    file: Option<PathBuf>,
    line: Option<usize>,
}

impl Raised {
    fn into_error(self, path: &Path) -> ProjectError {
        ProjectError::Raised {
            path: self.file.unwrap_or_else(|| path.to_owned()),
            line: self.line,
            exception: self.exception,
            message: self.message,
        }
    }
}

/// What both readers have in common: the source, and the exact part of the evaluation.
enum Reading {
    Evaluated(Evaluated),
    NeedsPython,
}

fn read(path: &Path, module_name: &str) -> Result<Reading, ProjectError> {
    let bytes = std::fs::read(path).map_err(|source| ProjectError::Read {
        path: path.to_owned(),
        source,
    })?;
    // Python reads other encodings if the file declares them.
    let Ok(source) = String::from_utf8(bytes) else {
        return Ok(Reading::NeedsPython);
    };
    match evaluate(&source, module_name) {
        Ok(evaluated) => Ok(Reading::Evaluated(evaluated)),
        Err(EvaluateError::NeedsPython { .. }) => Ok(Reading::NeedsPython),
        Err(EvaluateError::Syntax {
            line,
            column,
            message,
        }) => Err(ProjectError::Syntax {
            path: path.to_owned(),
            line,
            column,
            message,
        }),
        Err(EvaluateError::Config { line, source }) => Err(ProjectError::Config {
            path: path.to_owned(),
            line: Some(line),
            source,
        }),
    }
}

/// A file's folder, as the directory that its code is run in.
fn directory_of(path: &Path) -> Result<PathBuf, ProjectError> {
    let absolute = std::path::absolute(path).map_err(|source| ProjectError::Read {
        path: path.to_owned(),
        source,
    })?;
    Ok(absolute
        .parent()
        .map_or_else(|| absolute.clone(), Path::to_owned))
}

/// A deployment configuration, and what its file should not say though it is understood.
#[derive(Debug, Serialize, Deserialize)]
pub struct LoadedConfig {
    /// The configuration.
    pub config: DeploymentConfig,
    /// Wrong spellings that were accepted, with their lines.
    pub warnings: Vec<String>,
    /// The environment variables that its code read: their values may be secrets. `*` stands
    /// for all of them.
    #[serde(default)]
    pub variables: Vec<String>,
}

impl DeploymentConfig {
    /// Reads a `deployment_config.py`.
    pub fn load(
        path: &Path,
        interpreter: FindInterpreter<'_>,
    ) -> Result<LoadedConfig, ProjectError> {
        Self::load_remembered(path, interpreter, None)
    }

    /// Reads a `deployment_config.py`. Where that needs Python, its answer is remembered in
    /// `store`, unless the file's code read variables: what they hold may be secret.
    pub fn load_remembered(
        path: &Path,
        interpreter: FindInterpreter<'_>,
        store: Option<&Store>,
    ) -> Result<LoadedConfig, ProjectError> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Answer {
            Config(Box<Traced<LoadedConfig>>),
            NotAConfig { not_a_config: Found },
            Raised { error: Raised },
        }
        let not_a_config = |found: Option<String>| ProjectError::NotAConfig {
            path: path.to_owned(),
            found,
        };
        match read(path, "deployment_config")? {
            Reading::Evaluated(evaluated) => match evaluated.deployment_config {
                Some(config) => Ok(LoadedConfig {
                    config,
                    warnings: evaluated.warnings,
                    variables: evaluated.variables,
                }),
                None => Err(not_a_config(
                    evaluated
                        .has_deployment_config
                        .then(|| "something else".to_owned()),
                )),
            },
            Reading::NeedsPython => {
                let directory = directory_of(path)?;
                let script = TracedScript {
                    purpose: "deployment-config",
                    source: DEPLOYMENT_CONFIG_SCRIPT,
                    path: &directory.join(path.file_name().unwrap_or_default()),
                    directory: &directory,
                    keeps_variables: false,
                };
                script.run(&interpreter()?, store, |answer| match answer {
                    Answer::Config(mut loaded) => {
                        loaded
                            .answer
                            .variables
                            .clone_from(&loaded.trace.read_by_project);
                        Ok(*loaded)
                    }
                    Answer::NotAConfig {
                        not_a_config: found,
                    } => Err(not_a_config(found.type_name)),
                    Answer::Raised { error } => Err(error.into_error(path)),
                })
            }
        }
    }
}

/// The arguments that a `setup.py` gives to `bigflow.build.setup`. Where telling them needs
/// Python, its answer is remembered in `store`: a package's metadata are no secret.
pub(super) fn load_setup(
    path: &Path,
    interpreter: FindInterpreter<'_>,
    store: Option<&Store>,
) -> Result<Vec<(String, PropertyValue)>, ProjectError> {
    #[derive(Serialize, Deserialize)]
    struct Setup {
        setup: Call,
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Answer {
        Raised { error: Raised },
        Setup(Traced<Setup>),
    }
    let no_setup = || ProjectError::NoSetup {
        path: path.to_owned(),
    };
    match read(path, "__main__")? {
        Reading::Evaluated(evaluated) => evaluated.setup.ok_or_else(no_setup),
        Reading::NeedsPython => {
            let script = TracedScript {
                purpose: "setup",
                source: SETUP_SCRIPT,
                path,
                directory: &directory_of(path)?,
                keeps_variables: true,
            };
            let setup = script.run(&interpreter()?, store, |answer| match answer {
                Answer::Setup(setup) => Ok(setup),
                Answer::Raised { error } => Err(error.into_error(path)),
            })?;
            setup.setup.parameters.ok_or_else(no_setup)
        }
    }
}
