//! A build failed.

use super::image::{base_registry_next, compiler_next, image_next, wheel_next};
use super::project::{config_next, raised_next};
use super::remote::registry_exit;
use super::store::{store_exit, store_next};
use crate::artifacts::{BuildError, NotReplaced, Placeholder};
use crate::dags::RenderError;
use crate::image::ImageError;
use crate::image::saved::SavedImageError;
use crate::project::{ProjectError, VersionError};
use crate::python::PythonError;
use crate::ui::{CommandError, Exit, closest};

impl From<BuildError> for CommandError {
    fn from(error: BuildError) -> Self {
        let exit = match &error {
            BuildError::Store(error) | BuildError::Image(ImageError::Store(error)) => {
                store_exit(error)
            }
            BuildError::Python(_) | BuildError::NoStoreDirectory => Exit::Failed,
            BuildError::Registry(error) | BuildError::Image(ImageError::Registry(error)) => {
                registry_exit(error)
            }
            BuildError::Wheels(_) | BuildError::Image(_) | BuildError::Probe(_) => Exit::Failed,
            BuildError::SavedImage(SavedImageError::Engine { .. }) => Exit::Failed,
            BuildError::NoWorkflow => Exit::Refused,
            _ => Exit::Usage,
        };
        let failure = Self::from_error(exit, &error);
        match &error {
            BuildError::Config(config) => config_next(failure, config),
            BuildError::NoDeploymentConfig {
                missing: "environment",
                ..
            } => failure.next(
                "run forebay in the project's folder, or name the file with --deployment-config-path",
            ),
            BuildError::NoDeploymentConfig { missing, .. } => failure.next(format!(
                "run forebay in the project's folder, name the file with --deployment-config-path, or give --{}",
                missing.replace('_', "-")
            )),
            BuildError::Repository { .. } => failure.next(
                "write HOST/NAME in lower case, for example europe-docker.pkg.dev/PROJECT/REPOSITORY/IMAGE",
            ),
            BuildError::Bucket { .. } => {
                failure.next("write the bucket's name, gs://NAME, s3://NAME, az://CONTAINER, or file://FOLDER")
            }
            BuildError::DagsPrefix { .. } => failure.next("for example dags_prefix = \"dags/team/\""),
            BuildError::Placeholder { placeholder, .. } => {
                failure.next(placeholder_next(placeholder))
            }
            BuildError::Project(ProjectError::NotFound { .. }) => {
                failure.next("go to the project's folder, or name it with --directory; `forebay start-project` begins a new one")
            }
            BuildError::NoSuchWorkflow { id, known } => match closest(id, known) {
                Some(known) => failure.next(format!("did you mean --workflow {known}?")),
                None => failure.next("name one of them"),
            },
            BuildError::Version(VersionError::Refused { .. }) => failure.next(
                "if the folder is yours to trust: git config --global --add safe.directory FOLDER",
            ),
            BuildError::Version(VersionError::NoSuchCommit { .. }) => {
                failure.next("name a commit that `git log` shows")
            }
            BuildError::Version(_) => failure.next(
                "name tags like 0.1.0, or write `version` into bigflow.build.setup()",
            ),
            BuildError::Python(error @ PythonError::NoCompiler { .. }) => compiler_next(failure, error),
            BuildError::Python(_) => {
                failure.next("activate the project's virtual environment, or name its Python with --python")
            }
            BuildError::Store(error) => failure.next(store_next(error)),
            BuildError::NoStoreDirectory => {
                failure.next("set FOREBAY_STORE to a folder that can be written")
            }
            BuildError::Project(ProjectError::Raised { exception, message, .. }) => {
                failure.next(raised_next(exception, message))
            }
            BuildError::Project(_) => failure.next("mend the file and run the command again"),
            BuildError::Lock(_) => failure.next(
                "mend forebay.lock, or delete it: the next build asks the registry again and writes a new one",
            ),
            BuildError::Engine { .. } => failure.next("name one of them, or unset FOREBAY_ENGINE"),
            BuildError::Registry(error) => base_registry_next(failure, error),
            BuildError::Probe(error) => {
                failure.next(error.next_step().unwrap_or_else(|| MEND_WORKFLOW.to_owned()))
            }
            BuildError::Check(error) => failure.next(error.next_step()),
            BuildError::Render { source, .. } => render_next(failure, source),
            BuildError::Wheels(error) => wheel_next(failure, error),
            BuildError::Image(error) => image_next(failure, error),
            BuildError::NoWorkflow => failure.next(
                "define a bigflow.Workflow at the top of a module in one of the project's packages; a package has an __init__.py",
            ),
            BuildError::ImageElsewhere { .. } => failure.next(
                "name that repository with --docker-repository, or build the DAG files for this environment",
            ),
            BuildError::SavedImage(error) => saved_image_next(failure, error),
            BuildError::OtherImage { .. } => failure.next(
                "name the DAG files that were built with the image with --dags-dir, or save the image that they run",
            ),
            BuildError::ReadFolder(_) => failure.next(
                "name the folder that `bigflow build-dags` or `forebay build-dags` has written: .dags",
            ),
            BuildError::StartTime(_) => failure.next("for example --start-time 2026-01-31"),
            _ => failure,
        }
    }
}

fn saved_image_next(failure: CommandError, error: &SavedImageError) -> CommandError {
    match error {
        SavedImageError::In { source, .. } => saved_image_next(failure, source),
        SavedImageError::NoVersion => {
            failure.next("give the file the name that BigFlow gives it, for example image-0.1.0.tar")
        }
        SavedImageError::Several { .. } => {
            failure.next("save one image alone, or name the tag: oci:FOLDER:TAG")
        }
        SavedImageError::Engine { .. } => failure.next(
            "run this where that engine is, or build with `export_image_tar=True` in setup.py and name the file",
        ),
        SavedImageError::Damaged { .. } => failure.next("save or copy the image again"),
        SavedImageError::Image(error) => image_next(failure, error),
        _ => failure.next(
            "name what `docker save`, `bigflow build-image` or `forebay build-image --export-image-tar` has written, or an OCI layout",
        ),
    }
}

fn placeholder_next(placeholder: &Placeholder) -> String {
    let Placeholder { name, known, .. } = placeholder;
    match (&placeholder.reason, closest(name, known)) {
        (NotReplaced::Unknown, Some(known)) => format!("did you mean {{{known}}}?"),
        (NotReplaced::Unknown, None) => format!(
            "add the property {name} to the deployment configuration, or write its value instead"
        ),
        (NotReplaced::NotText(_), _) => format!("put the value of {name} in quotes"),
        (NotReplaced::Order, _) => format!("write the value of {name} instead"),
    }
}

const MEND_WORKFLOW: &str = "mend the workflow and run the command again";

fn render_next(failure: CommandError, error: &RenderError) -> CommandError {
    match error {
        RenderError::StableIds => failure.next("mend [tool.forebay.dags] in pyproject.toml"),
        RenderError::StartDate { .. } => failure.next("name a later --start-time"),
        _ => failure.next(MEND_WORKFLOW),
    }
}
