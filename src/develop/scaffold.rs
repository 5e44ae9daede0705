//! Begins a project with BigFlow's own scaffold, so that what comes out is what its tutorial
//! speaks of.

use std::path::{Path, PathBuf};

use forebay_store::Store;
use serde::{Deserialize, Serialize};

use super::{DevelopError, ProjectPython};
use crate::progress::Progress;
use crate::python::{Interpreter, run_script};
use crate::wheels::{Platform, ResolveRequest, TargetPython, lay_out, resolve};

/// What is fetched where BigFlow is not installed.
const BIGFLOW: &str = "bigflow==1.11.3";

const SCRIPT: &str = concat!(
    include_str!("../python/scripts/common.py"),
    include_str!("scripts/scaffold.py")
);

/// What the scaffold is asked.
#[derive(Debug, Clone, Serialize)]
pub struct NewProject {
    /// The name of the project and of its package.
    pub name: String,
    /// The Google Cloud project that it runs in.
    pub gcp_project: String,
    /// The bucket of its Composer.
    pub dags_bucket: String,
}

/// A project that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadeProject {
    /// Its folder.
    pub directory: PathBuf,
    /// Files in which an argument was left out that the installed BigFlow does not know, although
    /// its scaffold writes it.
    pub mended: Vec<PathBuf>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Mended(Vec<PathBuf>),
    Failed { exception: String, message: String },
}

/// Where `interpreter` can import BigFlow from; where it is not installed, its wheels are fetched.
///
/// # Errors
/// The wheels cannot be had.
pub fn import_paths_of_bigflow(
    interpreter: &Interpreter,
    store: &Store,
    progress: &dyn Progress,
) -> Result<Vec<PathBuf>, DevelopError> {
    if interpreter.bigflow.is_some() {
        return Ok(Vec::new());
    }
    let version = interpreter.version;
    let target = TargetPython {
        major: version.major,
        minor: version.minor,
        platform: match interpreter.platform.ends_with("aarch64") {
            true => Platform::LinuxArm64,
            false => Platform::LinuxAmd64,
        },
    };
    let request = ResolveRequest {
        requirements: &[],
        lines: &[BIGFLOW.to_owned()],
        directory: Path::new("."),
        target: &target,
        executable: &interpreter.executable,
        version: (version.major, version.minor, version.micro),
        platform: &interpreter.platform,
        constraints: &[],
        locked: None,
        refresh: false,
    };
    let wheels = resolve(&request, store, progress)?;
    Ok(vec![lay_out(&wheels.set, store)?])
}

/// Makes the folder `NAME_project` in the folder of `python`.
///
/// # Errors
/// A name that is no Python package, something that is in the way, or BigFlow fails.
pub fn start_project(
    python: &ProjectPython,
    project: &NewProject,
) -> Result<MadeProject, DevelopError> {
    if !is_package_name(&project.name) {
        return Err(DevelopError::PackageName {
            name: project.name.clone(),
        });
    }
    let folder = format!("{}_project", project.name);
    let directory = python.directory.join(&folder);
    if directory.exists() {
        return Err(DevelopError::Exists { path: directory });
    }
    let paths = std::env::join_paths(&python.import_paths).unwrap_or_default();
    let paths = paths.to_string_lossy();
    let variables = [("PYTHONPATH", paths.as_ref())];
    let variables = match python.import_paths.is_empty() {
        true => &variables[..0],
        false => &variables,
    };
    let executable: &Path = &python.interpreter.executable;
    match run_script(executable, SCRIPT, project, &python.directory, variables)? {
        Answer::Mended(mended) => Ok(MadeProject { directory, mended }),
        Answer::Failed { exception, message } => Err(DevelopError::Scaffold {
            message: format!("{exception}: {message}"),
        }),
    }
}

/// Letters, digits and `_`, no digit first: what an import statement can name.
fn is_package_name(name: &str) -> bool {
    let mut characters = name.chars();
    characters
        .next()
        .is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && characters.all(|character| character.is_ascii_alphanumeric() || character == '_')
}
