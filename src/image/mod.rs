//! Sources and wheels to an OCI image, without a daemon and without a container.
//!
//! A Dockerfile is planned line by line ([`plan`]); wheels become layers that
//! are spliced, not compressed ([`splice`]); the project becomes one layer as
//! pip would have left it; the base is only named. Every step is looked up in the
//! store first, so that what did not change is not made again.

use std::path::PathBuf;

use forebay_store::StoreError;
use serde::Serialize;

mod assemble;
mod base;
mod base_python;
mod blobs;
mod built;
mod bytecode;
mod compare;
mod config;
mod contents;
mod context;
mod copy_layer;
mod credentials;
mod declared;
mod decompress;
mod dockerfile;
mod engine;
mod file_layer;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod glob;
mod guard;
mod gzip;
mod index;
mod inputs;
mod kept_modules;
mod layer;
mod layer_check;
mod layers_of;
mod members;
mod metadata;
mod packages;
mod pip_command;
mod plan;
mod project;
mod project_install;
mod project_layer;
mod project_wheel;
mod recompress;
mod run;
pub mod saved;
mod shelf;
mod splice;
mod tar;
#[cfg(test)]
mod tests;
mod wheel_layers;

pub use base::{BaseImage, BaseRequest};
pub use base_python::BasePython;
pub use built::{BuiltImage, ImageRequest, build, build_below};
pub use bytecode::Bytecode;
pub use compare::{Stored, first_difference};
pub use contents::{ContentsBase, ImageContents};
pub use context::BuildContext;
pub use declared::{
    declaration_of, declaration_text, declared_dockerfile, with_declared_requirements,
};
pub use dockerfile::{Dockerfile, DockerfileError, Heredoc, Instruction};
pub use engine::{
    ContainerRequest, Engine, EngineProgram, engine_layers, known_layers, make_layers, step_key,
};
pub use glob::IgnoreFile;
pub use index::BuiltImages;
pub use inputs::image_inputs;
pub use layer::{Layer, LayerSource};
pub use layers_of::{LayerOfImage, layers_of_image};
pub use plan::{
    BaseName, ContainerSettings, CopiedFile, EngineLine, EngineStep, ImagePlan, LineClass,
    PlanContext, PlannedLine, Step, base_of, plan,
};
pub use project::ProjectSource;
pub use project_wheel::project_wheel;
pub use shelf::Shelved;

use crate::python::PythonError;
use crate::registry::RegistryError;
use crate::wheels::WheelError;

/// Layers of wheels that an image has at most: with base, COPY and project it
/// stays far below the 127 that container runtimes take.
const MAX_WHEEL_LAYERS: usize = 64;

/// Why an image could not be planned or built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The Dockerfile could not be read.
    #[error("{}: {problem}", path.display())]
    Dockerfile {
        /// Its path.
        path: PathBuf,
        /// What is wrong, with the line if there is one.
        problem: String,
    },
    /// Lines of the Dockerfile that cannot be done without a container.
    #[error("{}", lines.iter().map(|l| format!("line {} of the Dockerfile ({}): {}", l.line, l.text, l.reason)).collect::<Vec<_>>().join("\n"))]
    Lines {
        /// The lines.
        lines: Vec<PlannedLine>,
    },
    /// Lines that need a container, and no engine is there (or none is allowed).
    #[error("{}", lines.iter().map(|l| format!("line {} of the Dockerfile ({}) needs a container: {}", l.line, l.text, l.reason)).collect::<Vec<_>>().join("\n"))]
    NoEngine {
        /// The lines.
        lines: Vec<PlannedLine>,
    },
    /// A container engine failed; its own last words.
    #[error("{command} failed:\n{output}")]
    Engine {
        /// Which command.
        command: String,
        /// The relevant lines, without credentials.
        output: String,
    },
    /// The base cannot be used.
    #[error("the base image {name}: {problem}")]
    Base {
        /// As the Dockerfile names it.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// Something about the project that its wheel cannot be made from.
    #[error("{problem}")]
    Project {
        /// What is wrong, and what to do instead.
        problem: String,
    },
    /// A link of the project's folder that leads to no file of it.
    #[error("{path} is a link to {target}, {}", if *is_absolute { "an absolute path, which another machine does not have" } else { "where the project's folder has no file" })]
    Link {
        /// The link.
        path: String,
        /// What it says.
        target: String,
        /// Whether that begins with a slash.
        is_absolute: bool,
    },
    /// A file that is not (or no longer) in the project's folder.
    #[error("the project's folder has no file {path}")]
    NotInContext {
        /// The path.
        path: String,
    },
    /// Something that cannot stand at its path of a layer.
    #[error(transparent)]
    PathRefused(#[from] tar::PathRefused),
    /// A layer of wheels could not be spliced.
    #[error("cannot make a layer of {}: {source}", wheels.join(", "))]
    Splice {
        /// Their file names.
        wheels: Vec<String>,
        /// What went wrong.
        source: std::io::Error,
    },
    /// A file could not be read or written.
    #[error("{action}: {source}")]
    Io {
        /// What was being done, with the path.
        action: String,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// The wheels.
    #[error(transparent)]
    Wheel(#[from] WheelError),
    /// The interpreter that compiles modules.
    #[error(transparent)]
    Python(#[from] PythonError),
    /// The base's repository.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ImageError {
    fn io(action: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let action = action.into();
        move |source| Self::Io { action, source }
    }
}

/// `1 layer`, `2 layers`.
fn count(number: usize, word: &str) -> String {
    format!("{number} {word}{}", if number == 1 { "" } else { "s" })
}

/// Compact JSON, as descriptions and recipes are kept.
fn json(value: &impl Serialize) -> Result<Vec<u8>, ImageError> {
    serde_json::to_vec(value).map_err(|error| ImageError::Io {
        action: "cannot write JSON".to_owned(),
        source: error.into(),
    })
}

/// Reads the project's Dockerfile.
///
/// # Errors
/// A file that is not there or is not a Dockerfile.
pub fn read_dockerfile(path: &std::path::Path) -> Result<Dockerfile, ImageError> {
    let refused = |problem: String| ImageError::Dockerfile {
        path: path.to_owned(),
        problem,
    };
    let text = std::fs::read_to_string(path)
        .map_err(|error| refused(format!("it cannot be read: {error}")))?;
    Dockerfile::parse(&text).map_err(|error| refused(error.to_string()))
}

/// What a project says about planning, beside its Dockerfile; see [`PlanContext`].
#[derive(Debug, Clone, Copy)]
pub struct PlanOptions<'a> {
    /// The requirements file that the project's wheel is built with.
    pub project_requirements: &'a str,
    /// Whether lines that are about system packages alone run before all others.
    pub hoists_packages: bool,
    /// The base that the environment's settings put in the place of FROM's.
    pub replaced_base: Option<&'a str>,
}

/// Plans a project's Dockerfile on a base; `.dockerignore` is read if it is there.
///
/// # Errors
/// A `.dockerignore` that cannot be read.
pub fn plan_project(
    dockerfile: &Dockerfile,
    base: &BaseImage,
    context: &BuildContext<'_>,
    options: &PlanOptions<'_>,
) -> Result<ImagePlan, ImageError> {
    let path = context.directory.join(".dockerignore");
    let ignore = match std::fs::read_to_string(&path) {
        Ok(text) => IgnoreFile::parse(&text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => IgnoreFile::default(),
        Err(error) => {
            return Err(ImageError::io(format!("cannot read {}", path.display()))(
                error,
            ));
        }
    };
    Ok(plan(
        dockerfile,
        &PlanContext {
            tree: context.tree,
            ignore: &ignore,
            base_environment: &base.environment(),
            base_directory: base.working_directory(),
            project_requirements: options.project_requirements,
            platform: base.platform,
            hoists_packages: options.hoists_packages,
            replaced_base: options.replaced_base,
        },
    ))
}
