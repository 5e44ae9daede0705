//! A registry, a bucket or a login failed.

use crate::bucket::BucketError;
use crate::credentials::CredentialError;
use crate::http::{HttpClientError, SendError, TlsProblem};
use crate::registry::RegistryError;
use crate::ui::{CommandError, Exit};

impl From<HttpClientError> for CommandError {
    fn from(error: HttpClientError) -> Self {
        Self::from_error(Exit::Usage, &error).next("name a file with certificates in PEM form")
    }
}

impl From<CredentialError> for CommandError {
    fn from(error: CredentialError) -> Self {
        Self::from_error(Exit::Denied, &error).next(log_in(&error))
    }
}

/// What helps where a source of credentials gives nothing.
fn log_in(error: &CredentialError) -> &'static str {
    let (CredentialError::Misconfigured { source_name, .. }
    | CredentialError::Refused { source_name, .. }) = error;
    if source_name.contains("Vault") {
        "log in to Vault again (`vault login`), or name a token that is still good with VAULT_TOKEN; --auth-method local_account does without Vault"
    } else if source_name.starts_with("the access token file") {
        "write a token into that file that is still good: `gcloud auth print-access-token` prints one"
    } else if source_name.starts_with("GOOGLE_APPLICATION_CREDENTIALS") {
        "mend the file that GOOGLE_APPLICATION_CREDENTIALS names, or unset the variable"
    } else if source_name.starts_with("gcloud") {
        "log in with `gcloud auth login`"
    } else {
        "log in with `gcloud auth application-default login`, or choose another --auth-method"
    }
}

pub(super) fn registry_exit(error: &RegistryError) -> Exit {
    match error {
        RegistryError::Denied { .. } | RegistryError::Credential(_) => Exit::Denied,
        _ => Exit::Failed,
    }
}

/// An image could not be sent.
pub(in crate::cli) fn pushing(error: &RegistryError) -> CommandError {
    registry_next(CommandError::from_error(registry_exit(error), error), error)
}

pub(super) fn registry_next(failure: CommandError, error: &RegistryError) -> CommandError {
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
        RegistryError::Credential(error) => failure.next(log_in(error)),
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

/// Whether Google's credentials open this registry.
fn is_googles(host: &str) -> bool {
    host.ends_with(".pkg.dev") || host == "gcr.io" || host.ends_with(".gcr.io")
}

pub(super) fn bucket_exit(error: &BucketError) -> Exit {
    match error {
        BucketError::Denied { .. }
        | BucketError::Credential(_)
        | BucketError::NoCredential { .. } => Exit::Denied,
        BucketError::Setup { .. } | BucketError::NoChecksums { .. } => Exit::Usage,
        BucketError::ConditionFailed { .. } => Exit::Conflict,
        _ => Exit::Failed,
    }
}

pub(super) fn bucket_next(failure: CommandError, error: &BucketError) -> CommandError {
    match error {
        BucketError::Unreachable { source, .. } => match TlsProblem::among(source.as_ref()) {
            Some(problem) => failure.next(problem.to_string()),
            None => failure.next("check the network and dags_bucket, then run the command again")
        }
        BucketError::NoBucket { .. } => failure.next(
            "mend dags_bucket in deployment_config.py: the Composer environment's page names its bucket",
        ),
        BucketError::Setup { bucket, .. } | BucketError::NoCredential { bucket, .. } => {
            failure.next(match bucket.starts_with("az:") {
                true => {
                    "set AZURE_STORAGE_ACCOUNT and AZURE_STORAGE_KEY, AZURE_STORAGE_SAS_TOKEN, or AZURE_CLIENT_ID with its tenant and secret"
                }
                false => {
                    "set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION: `aws configure export-credentials --format env` prints those of a profile"
                }
            })
        }
        BucketError::NoChecksums { .. } => failure.next(
            "use a bucket whose default encryption is SSE-S3: under a key of KMS S3 keeps no MD5",
        ),
        BucketError::Denied { bucket, .. } if !bucket.starts_with("gs:") => failure.next(
            "give these credentials that permission on the bucket, or use others; a request that is signed with a wrong key, region or clock is refused, too",
        ),
        BucketError::Denied { .. } => failure.next(
            "give this identity roles/storage.objectAdmin on the bucket, or log in as another",
        ),
        BucketError::Credential(error) => failure.next(log_in(error)),
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
