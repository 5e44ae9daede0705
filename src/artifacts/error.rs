//! Why artifacts could not be made.

use std::path::PathBuf;

use forebay_store::StoreError;

use super::LockError;
use super::placeholder::Placeholder;
use crate::bucket::ParseBucketError;
use crate::dags::{
    CheckError, FolderError, InvalidStartTime, Place, ProbeError, ReadFolderError, RenderError,
};
use crate::environment::InvalidDagsPrefix;
use crate::image::ImageError;
use crate::image::saved::SavedImageError;
use crate::oci::ParseReferenceError;
use crate::oci::Sha256Digest;
use crate::project::{ConfigError, InvalidName, ProjectError, VersionError};
use crate::python::PythonError;
use crate::registry::RegistryError;
use crate::wheels::{UnknownPlatform, WheelError};

/// What stands between a project and its artifacts.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The project cannot be read.
    #[error(transparent)]
    Project(#[from] ProjectError),
    /// The environment has no meaning.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// There is no deployment configuration, and the command line does not replace it.
    #[error("there is no {}, so nothing says which {missing} to use", path.display())]
    NoDeploymentConfig {
        /// Where it was looked for.
        path: PathBuf,
        /// What it would have said.
        missing: &'static str,
    },
    /// `docker_repository` names no repository.
    #[error("docker_repository of environment {environment} cannot be used")]
    Repository {
        /// The environment.
        environment: String,
        /// Why.
        source: ParseReferenceError,
    },
    /// `dags_bucket` names no bucket.
    #[error("dags_bucket of environment {environment} cannot be used")]
    Bucket {
        /// The environment.
        environment: String,
        /// Why.
        source: ParseBucketError,
    },
    /// `dags_prefix` names no folder below `dags/`.
    #[error("dags_prefix of environment {environment} cannot be used")]
    DagsPrefix {
        /// The environment.
        environment: String,
        /// Why.
        source: InvalidDagsPrefix,
    },
    /// A property has a placeholder that nothing has replaced.
    #[error("environment {environment}: {placeholder}")]
    Placeholder {
        /// The environment.
        environment: String,
        /// Which.
        placeholder: Box<Placeholder>,
    },
    /// A name on the command line cannot be used.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// The version cannot be told.
    #[error(transparent)]
    Version(#[from] VersionError),
    /// The project's Python cannot be found or run.
    #[error(transparent)]
    Python(#[from] PythonError),
    /// The local store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The lock file cannot be used.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The base image's registry failed.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The workflows cannot be found.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// A DAG file cannot be written.
    #[error("{place}: {source}")]
    Render {
        /// Where its workflow is defined.
        place: Place,
        /// Why.
        source: Box<RenderError>,
    },
    /// A workflow would break once it is deployed.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// The start time is none.
    #[error(transparent)]
    StartTime(#[from] InvalidStartTime),
    /// The folder `.dags` cannot be written.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The version makes no image tag.
    #[error(transparent)]
    Tag(#[from] ParseReferenceError),
    /// No workflow has the id that was asked for.
    #[error("there is no workflow {id:?} in the project; it has {}", known.join(", "))]
    NoSuchWorkflow {
        /// What was asked for.
        id: String,
        /// What there is.
        known: Vec<String>,
    },
    /// Built DAG files name an image of another repository.
    #[error(
        "the DAG files run the image {image}, which is not in the environment's docker_repository {repository}"
    )]
    ImageElsewhere {
        /// As the files name it.
        image: String,
        /// The environment's repository.
        repository: String,
    },
    /// A folder of built DAG files cannot be used.
    #[error(transparent)]
    ReadFolder(#[from] ReadFolderError),
    /// A saved image cannot be used.
    #[error(transparent)]
    SavedImage(#[from] SavedImageError),
    /// Built DAG files run another image than the one that was saved with them.
    #[error(
        "the DAG files run the image {dags}, and the saved image is of version {version} ({digest})"
    )]
    OtherImage {
        /// As the files name it.
        dags: String,
        /// The saved image's version.
        version: String,
        /// Its digest.
        digest: Sha256Digest,
    },
    /// The project defines no workflow.
    #[error("the project's packages define no workflow")]
    NoWorkflow,
    /// The requirements' wheels cannot be had.
    #[error(transparent)]
    Wheels(#[from] WheelError),
    /// The image cannot be built.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The base in the settings names no image.
    #[error("the base {name:?} in [tool.forebay.environments] cannot be used")]
    Base {
        /// As it is written.
        name: String,
        /// Why.
        source: ParseReferenceError,
    },
    /// A platform in the settings that is not known.
    #[error("platforms in [tool.forebay.image]")]
    Platform(#[from] UnknownPlatform),
    /// `$FOREBAY_ENGINE` names no engine.
    #[error("FOREBAY_ENGINE: {problem}")]
    Engine {
        /// What is wrong.
        problem: String,
    },
    /// The Python version in the settings is none.
    #[error("the python {text:?} in [tool.forebay.environments] is no version")]
    PythonVersion {
        /// As it is written.
        text: String,
    },
    /// `SOURCE_DATE_EPOCH` is no number.
    #[error("SOURCE_DATE_EPOCH is {text:?}, which is no number of seconds")]
    SourceDateEpoch {
        /// Its value.
        text: String,
    },
    /// Nowhere to keep the store.
    #[error("there is no home directory to keep the store in")]
    NoStoreDirectory,
}
