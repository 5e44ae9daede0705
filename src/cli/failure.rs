//! Every error of the library as what, why, next step and exit status.

use super::describe::DriftDocument;
use crate::artifacts::BuildError;
use crate::bucket::BucketError;
use crate::credentials::CredentialError;
use crate::dags::RenderError;
use crate::environment::{Drifted, EnvironmentError};
use crate::http::{HttpClientError, SendError};
use crate::image::ImageError;
use crate::project::{ConfigError, ProjectError, ReleaseError, VersionError};
use crate::registry::RegistryError;
use crate::ui::{CommandError, Exit, closest};
use crate::wheels::WheelError;
use forebay_store::StoreError;

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
                failure.next("write the bucket's name, gs://NAME, or file://FOLDER")
            }
            BuildError::Project(ProjectError::NotFound { .. }) => {
                failure.next("go to the project's folder, or name it with --directory")
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
            BuildError::ReadFolder(_) => failure.next(
                "name the folder that `bigflow build-dags` or `forebay build-dags` has written: .dags",
            ),
            BuildError::StartTime(_) => failure.next("for example --start-time 2026-01-31"),
            _ => failure,
        }
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

fn wheel_next(failure: CommandError, error: &WheelError) -> CommandError {
    match error {
        WheelError::Requirements { .. } => failure.next("mend that line"),
        WheelError::NoWheel { .. } => failure.next(
            "require a version that has a wheel for the image's Python, or build one and require its file",
        ),
        WheelError::Pip { .. } => failure.next(
            "mend the requirement that pip names, or how pip reaches its index (pip.conf, PIP_INDEX_URL), and run the command again",
        ),
        WheelError::NoPip { .. } => failure.next(
            "install pip there (`python -m ensurepip`) or uv, or name another Python with --python",
        ),
        WheelError::TwoWheels { .. } | WheelError::Conflict { .. } => {
            failure.next("require one of them only")
        }
        WheelError::Refused { .. } | WheelError::FileName { .. } => {
            failure.next("require another version of it; this file is damaged or no wheel")
        }
        WheelError::Store(_) => {
            failure.next("set FOREBAY_STORE to a folder that can be written")
        }
        _ => failure.next("run the command again"),
    }
}

fn image_next(failure: CommandError, error: &ImageError) -> CommandError {
    match error {
        ImageError::Dockerfile { .. } => {
            failure.next("mend the Dockerfile; `forebay image plan` says what each line means")
        }
        ImageError::Lines { .. } => failure.next(
            "rewrite these lines, or move what they do into the base image; `forebay image plan` explains each",
        ),
        ImageError::Base { .. } => {
            failure.next("mend FROM, or take a base of Debian's with a CPython in it")
        }
        ImageError::NotInContext { .. } => {
            failure.next("add the file, or mend the line that names it (.dockerignore may hide it)")
        }
        ImageError::Wheel(error) => wheel_next(failure, error),
        ImageError::Registry(error) => base_registry_next(failure, error),
        ImageError::Store(error) => failure.next(store_next(error)),
        ImageError::Project { .. } => failure.next("mend the project and run the command again"),
        _ => failure.next("run the command again"),
    }
}

impl From<ReleaseError> for CommandError {
    fn from(error: ReleaseError) -> Self {
        let failure = Self::from_error(Exit::Failed, &error);
        match error {
            ReleaseError::NoGit(_) => failure.next("install git"),
            ReleaseError::Push { .. } => failure.next(
                "check `git remote -v` and whether you may push there, or name a key with --ssh-identity-file; the tag was taken back",
            ),
            ReleaseError::Taken { .. } => failure.next(
                "merge the commit that has it (after `git fetch --tags`), or tag by hand",
            ),
            ReleaseError::NoVersion { .. } => {
                failure.next("tag a version first, for example `git tag 0.1.0`")
            }
            ReleaseError::NoIdentity { .. } => failure.next("mend the path"),
            ReleaseError::Git { .. } => {
                failure.next("run it in a git repository with a commit")
            }
        }
    }
}

fn config_next(failure: CommandError, error: &ConfigError) -> CommandError {
    match error {
        ConfigError::NoSuchEnvironment { name, known } => match closest(name, known) {
            Some(known) => failure.next(format!("did you mean -c {known}?")),
            None => failure.next("name one of them with -c, or add it to the file"),
        },
        ConfigError::NoDefault { .. } => failure.next("name one of them with -c"),
        ConfigError::Unset { variable, .. } => {
            failure.next(format!("set {variable}, or write the value into the file"))
        }
        ConfigError::Missing { key, variable, .. } => failure.next(format!(
            "write {key} into the environment's properties, or set {variable}"
        )),
        _ => failure.next("mend the file and run the command again"),
    }
}

impl From<StoreError> for CommandError {
    fn from(error: StoreError) -> Self {
        Self::from_error(store_exit(&error), &error).next(store_next(&error))
    }
}

fn store_exit(error: &StoreError) -> Exit {
    match error {
        StoreError::NoArtifact { .. }
        | StoreError::NotFound { .. }
        | StoreError::Input { .. }
        | StoreError::NotUtf8 { .. }
        | StoreError::SpecialFile { .. } => Exit::Usage,
        StoreError::Io { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
            Exit::Denied
        }
        _ => Exit::Failed,
    }
}

fn store_next(error: &StoreError) -> &'static str {
    match error {
        StoreError::NotFound { .. } => {
            "look with `forebay store ls`; what was collected comes back with the next build"
        }
        StoreError::NoArtifact { .. } => {
            "look with `forebay store why DIGEST`: it names roots and recipes"
        }
        StoreError::Lost { .. } | StoreError::Damaged { .. } => {
            "run the command again: what is lost is fetched or built anew; `forebay store verify` looks for more"
        }
        StoreError::IndexDamaged { .. } => "run the command again: it makes the index anew",
        StoreError::InUse { .. } => {
            "wait until the other forebay commands are done, then run this one again"
        }
        StoreError::NewerSchema { .. } | StoreError::NewerPack { .. } => {
            "update forebay, or set FOREBAY_STORE to another folder"
        }
        StoreError::Pack { .. } => {
            "if it is an archive, export it again; if it is in the store, run `forebay store verify`"
        }
        StoreError::Changing { .. } => "run the command again when nobody writes to the file",
        StoreError::NotUtf8 { .. } | StoreError::SpecialFile { .. } => "rename or remove the file",
        _ => {
            "check that the folder of the store (FOREBAY_STORE) can be written and has room, then run the command again"
        }
    }
}

impl From<HttpClientError> for CommandError {
    fn from(error: HttpClientError) -> Self {
        Self::from_error(Exit::Usage, &error).next("name a file with certificates in PEM form")
    }
}

impl From<CredentialError> for CommandError {
    fn from(error: CredentialError) -> Self {
        Self::from_error(Exit::Denied, &error).next(LOG_IN)
    }
}

const LOG_IN: &str =
    "log in with `gcloud auth application-default login`, or choose another --auth-method";

fn registry_exit(error: &RegistryError) -> Exit {
    match error {
        RegistryError::Denied { .. } | RegistryError::Credential(_) => Exit::Denied,
        _ => Exit::Failed,
    }
}

fn registry_next(failure: CommandError, error: &RegistryError) -> CommandError {
    match error {
        RegistryError::Unreachable { source, .. }
            if matches!(source.downcast_ref(), Some(SendError::Tls(_))) =>
        {
            // It says itself what to do.
            failure
        }
        RegistryError::Unreachable { .. } => failure.next(
            "check that the registry runs and docker_repository is right, then run the command again; what was sent is not sent twice",
        ),
        RegistryError::Denied { repository, .. } => {
            let host = repository.split('/').next().unwrap_or(repository);
            match is_googles(host) {
                true => failure.next(
                    "give this identity roles/artifactregistry.writer on the repository, or log in as another",
                ),
                false => failure.next(format!(
                    "check user name and password (`docker login {host}` stores them), and that this user may do it"
                )),
            }
        }
        RegistryError::NoRepository { .. } => {
            failure.next("create the repository, or mend docker_repository; a push does not create one")
        }
        RegistryError::Credential(_) => failure.next(LOG_IN),
        RegistryError::Damaged { .. } => failure.next(
            "run the command again; if it happens again, something on the way changes bytes",
        ),
        _ => failure.next("run the command again; what was sent is not sent twice"),
    }
}

impl From<RegistryError> for CommandError {
    fn from(error: RegistryError) -> Self {
        registry_next(Self::from_error(registry_exit(&error), &error), &error)
    }
}

/// The registry was asked for the base image: nothing was being sent.
fn base_registry_next(failure: CommandError, error: &RegistryError) -> CommandError {
    let failure = failure.why("the base image that FROM names is looked up there");
    match error {
        RegistryError::Denied { .. } | RegistryError::Credential(_) => {
            registry_next(failure, error)
        }
        _ => failure.next(
            "check the network and the proxy settings, name a mirror in FROM, or set `base` in [tool.forebay.environments.NAME]",
        ),
    }
}

/// Whether Google's credentials open this registry.
fn is_googles(host: &str) -> bool {
    host.ends_with(".pkg.dev") || host == "gcr.io" || host.ends_with(".gcr.io")
}

/// What helps when a file of the project raises an exception.
fn raised_next(exception: &str, message: &str) -> &'static str {
    if message.contains("__bigflow_dump_params") {
        "call bigflow.build.setup() in setup.py instead of setuptools.setup()"
    } else if exception == "ModuleNotFoundError" {
        "name a Python that can import it with --python, or activate the project's virtual environment"
    } else {
        "mend the file and run the command again"
    }
}

fn bucket_exit(error: &BucketError) -> Exit {
    match error {
        BucketError::Denied { .. } | BucketError::Credential(_) => Exit::Denied,
        BucketError::ConditionFailed { .. } => Exit::Conflict,
        _ => Exit::Failed,
    }
}

fn bucket_next(failure: CommandError, error: &BucketError) -> CommandError {
    match error {
        BucketError::Unreachable { .. } => {
            failure.next("check the network and dags_bucket, then run the command again")
        }
        BucketError::NoBucket { .. } => failure.next(
            "mend dags_bucket in deployment_config.py: the Composer environment's page names its bucket",
        ),
        BucketError::Denied { .. } => failure.next(
            "give this identity roles/storage.objectAdmin on the bucket, or log in as another",
        ),
        BucketError::Credential(_) => failure.next(LOG_IN),
        BucketError::ConditionFailed { .. } => {
            failure.next("look with `forebay status`, then run the command again")
        }
        _ => failure.next("run the command again"),
    }
}

impl From<BucketError> for CommandError {
    fn from(error: BucketError) -> Self {
        bucket_next(Self::from_error(bucket_exit(&error), &error), &error)
    }
}

impl From<EnvironmentError> for CommandError {
    fn from(error: EnvironmentError) -> Self {
        let exit = environment_exit(&error);
        let mut failure = Self::from_error(exit, &error);
        match &error {
            EnvironmentError::Drift { objects } => {
                failure = drifted(failure, objects);
                failure.next(
                    "look with `forebay status`; --restore-drift puts back what was recorded",
                )
            }
            EnvironmentError::Held { remaining, .. } if remaining.as_secs() == 0 => failure
                .next("`forebay resume` carries it to its end, `forebay abort` takes it back; `forebay deploy` does the first by itself"),
            EnvironmentError::Held { .. } => failure.next(
                "wait until it is done, then run the command again; if it was killed, its hold ends by itself",
            ),
            EnvironmentError::Lost { .. } => failure.next(
                "look with `forebay status`; run the command again if yours should still win",
            ),
            EnvironmentError::ForeignKeys { .. } => failure.next(
                "they may be live in another environment or project: give this environment a dags_bucket of its own, or rename the workflows; nothing was changed",
            ),
            EnvironmentError::OlderCommit { .. } => failure.next(
                "deploy a commit that contains the live one, or insist with --allow-older",
            ),
            EnvironmentError::EmptySet => {
                failure.next("check that the project's packages define bigflow.Workflow objects")
            }
            EnvironmentError::ImageMissing { .. } => {
                failure.next("deploy the image first: `forebay deploy-image`")
            }
            EnvironmentError::Interrupted { source, .. } => match source.as_ref() {
                EnvironmentError::Drift { objects } => drifted(failure, objects).next(
                    "`forebay resume` or `forebay abort` with --restore-drift writes over these files and ends what was begun",
                ),
                EnvironmentError::ForeignKeys { .. } => failure.next(
                    "remove or rename those files, then run `forebay resume`; or take back what was begun with `forebay abort`, and --restore-drift if our own files were changed too",
                ),
                EnvironmentError::ImageElsewhere { .. } => failure
                    .next("run `forebay resume` with that repository, or `forebay abort`"),
                _ => failure.next(
                "run `forebay deploy` again: it finishes what was begun, once the lease has run out, and goes on",
            )},
            EnvironmentError::NoRollbackTarget { usable, .. }
            | EnvironmentError::RollbackUnavailable { usable, .. } => {
                failure.next(usable_generations(usable))
            }
            EnvironmentError::Newer { .. } => failure.next("update forebay"),
            EnvironmentError::Bucket(error) => bucket_next(failure, error),
            EnvironmentError::Registry(error) => registry_next(failure, error),
            _ => failure.next("look with `forebay status`, then run the command again"),
        }
    }
}

fn drifted(failure: CommandError, objects: &[Drifted]) -> CommandError {
    objects.iter().fold(failure, |failure, object| {
        failure.why(DriftDocument::from(object).to_string())
    })
}

fn environment_exit(error: &EnvironmentError) -> Exit {
    match error {
        EnvironmentError::Held { .. } | EnvironmentError::Lost { .. } => Exit::Conflict,
        EnvironmentError::Drift { .. }
        | EnvironmentError::ForeignKeys { .. }
        | EnvironmentError::OlderCommit { .. }
        | EnvironmentError::EmptySet => Exit::Refused,
        EnvironmentError::Interrupted { .. } | EnvironmentError::NotVerified { .. } => {
            Exit::Interrupted
        }
        EnvironmentError::NoRollbackTarget { .. }
        | EnvironmentError::RollbackUnavailable { .. } => Exit::RollbackUnavailable,
        EnvironmentError::Bucket(error) => bucket_exit(error),
        EnvironmentError::Registry(error) => registry_exit(error),
        _ => Exit::Failed,
    }
}

fn usable_generations(usable: &[u64]) -> String {
    match usable {
        [] => "there is no generation to return to; `forebay deploy` makes a new one".to_owned(),
        _ => format!(
            "these can be restored: {}; for example `forebay rollback {}`",
            usable
                .iter()
                .map(u64::to_string)
                .collect::<Vec<_>>()
                .join(", "),
            usable[0]
        ),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::environment::DriftKind;

    #[test]
    fn an_interrupted_deploy_names_the_files_that_bar_its_way() {
        let drift = EnvironmentError::Drift {
            objects: vec![Drifted {
                key: "dags/daily.py".parse().unwrap(),
                change: DriftKind::Changed,
            }],
        };
        let foreign = EnvironmentError::ForeignKeys {
            keys: vec!["dags/daily.py".to_owned()],
        };
        for source in [drift, foreign] {
            let failure = CommandError::from(EnvironmentError::Interrupted {
                generation: 2,
                source: Box::new(source),
            });
            let text = failure.render(false);
            assert!(text.contains("dags/daily.py"), "{text}");
            assert!(text.contains("--restore-drift"), "{text}");
            assert_eq!(failure.exit(), Exit::Interrupted);
        }
        for command in ["resume", "abort"] {
            let arguments = ["forebay", command, "--restore-drift"];
            assert!(super::super::Arguments::try_parse_from(arguments).is_ok());
        }
    }
}
