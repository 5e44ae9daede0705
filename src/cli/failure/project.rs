//! What the user wrote, or its repository, is not as it should be.

use crate::project::{ConfigError, ReleaseError};
use crate::ui::{CommandError, Exit, closest};

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

pub(super) fn config_next(failure: CommandError, error: &ConfigError) -> CommandError {
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

/// What helps when a file of the project raises an exception.
pub(super) fn raised_next(exception: &str, message: &str) -> &'static str {
    if message.contains("__bigflow_dump_params") {
        "call bigflow.build.setup() in setup.py instead of setuptools.setup()"
    } else if exception == "ModuleNotFoundError" {
        "name a Python that can import it with --python, or activate the project's virtual environment"
    } else {
        "mend the file and run the command again"
    }
}
