//! Every error of the library as what, why, next step and exit status.

use super::describe::DriftDocument;
use crate::bucket::BucketError;
use crate::build::BuildError;
use crate::credentials::CredentialError;
use crate::environment::EnvironmentError;
use crate::http::HttpClientError;
use crate::project::ConfigError;
use crate::registry::RegistryError;
use crate::ui::{CommandError, Exit};
use forebay_store::StoreError;

impl From<BuildError> for CommandError {
    fn from(error: BuildError) -> Self {
        let exit = match &error {
            BuildError::Store(_) | BuildError::Python(_) | BuildError::NoStoreDirectory => {
                Exit::Failed
            }
            BuildError::Registry(error) => registry_exit(error),
            BuildError::Wheels(_) | BuildError::Image(_) | BuildError::Probe(_) => Exit::Failed,
            _ => Exit::Usage,
        };
        let failure = Self::from_error(exit, &error);
        match &error {
            BuildError::Config(config) => config_next(failure, config),
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
            BuildError::Project(_) => failure.next("mend the file and run the command again"),
            BuildError::Version(_) => failure.next(
                "name tags like 0.1.0, or write `version` into bigflow.build.setup()",
            ),
            BuildError::Python(_) => {
                failure.next("activate the project's virtual environment, or name its Python with --python")
            }
            BuildError::Store(_) | BuildError::NoStoreDirectory => {
                failure.next("set FOREBAY_STORE to a folder that can be written")
            }
            BuildError::Lock(_) => failure.next(
                "mend forebay.lock, or delete it: the next build asks the registry again and writes a new one",
            ),
            BuildError::Registry(error) => registry_next(failure, error),
            _ => failure,
        }
    }
}

fn config_next(failure: CommandError, error: &ConfigError) -> CommandError {
    match error {
        ConfigError::NoSuchEnvironment { known, .. } | ConfigError::NoDefault { known } => {
            match known.first() {
                Some(first) => failure.next(format!("name one of them: -c {first}")),
                None => failure.next("add an environment to the file"),
            }
        }
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
        let exit = match &error {
            StoreError::NoArtifact { .. }
            | StoreError::NotFound { .. }
            | StoreError::Input { .. }
            | StoreError::NotUtf8 { .. }
            | StoreError::SpecialFile { .. } => Exit::Usage,
            StoreError::Io { source, .. }
                if source.kind() == std::io::ErrorKind::PermissionDenied =>
            {
                Exit::Denied
            }
            _ => Exit::Failed,
        };
        let next = match &error {
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
            StoreError::NotUtf8 { .. } | StoreError::SpecialFile { .. } => {
                "rename or remove the file"
            }
            _ => {
                "check that the folder of the store (FOREBAY_STORE) can be written and has room, then run the command again"
            }
        };
        Self::from_error(exit, &error).next(next)
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
        RegistryError::Unreachable { .. } => failure.next(
            "check that the registry runs and docker_repository is right, then run the command again; what was sent is not sent twice",
        ),
        RegistryError::Denied { .. } => failure.next(
            "check that this identity may push to the repository (roles/artifactregistry.writer), or log in as another",
        ),
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
                for object in objects {
                    failure = failure.why(DriftDocument::from(object).to_string());
                }
                failure.next(
                    "look with `forebay status`; --restore-drift puts back what was recorded",
                )
            }
            EnvironmentError::Held { .. } => {
                failure.next("wait until it is done, then run the command again")
            }
            EnvironmentError::Lost { .. } => failure.next(
                "look with `forebay status`; run the command again if yours should still win",
            ),
            EnvironmentError::ForeignKeys { .. } => failure.next(
                "remove those files if nobody needs them, or rename the workflow; nothing was changed",
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
            EnvironmentError::Interrupted { .. } => failure.next(
                "run `forebay deploy` again: it finishes what was begun, once the lease has run out, and goes on",
            ),
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
