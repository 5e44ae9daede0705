//! `forebay project-version`

use clap::Args;
use serde::Serialize;

use super::context::Context;
use crate::artifacts::BuildError;
use crate::project::{find_project_directory, git_version};
use crate::ui::{CommandError, Exit};

#[derive(Debug, Args)]
#[command(
    after_help = "Writes nothing.\n\nExamples:\n  forebay project-version\n  forebay pv --git-commit HEAD~1"
)]
pub(super) struct Arguments {
    /// The version of this commit instead of the working tree's
    #[arg(long, value_name = "COMMIT")]
    git_commit: Option<String>,
}

/// What `--json` prints (`schema/project-version.schema.json`).
#[derive(Debug, Serialize)]
struct Document {
    version: String,
}

pub(super) fn run(context: &Context, arguments: &Arguments) -> Result<Exit, CommandError> {
    let directory = find_project_directory(context.directory()).map_err(BuildError::from)?;
    let version =
        git_version(&directory, arguments.git_commit.as_deref()).map_err(BuildError::from)?;
    let document = Document {
        version: version.to_string(),
    };
    context
        .printer
        .result(&document, || format!("{version}\n"))?;
    Ok(Exit::Done)
}
