//! `forebay release`

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::context::Context;
use crate::artifacts::BuildError;
use crate::project::{find_project_directory, release};
use crate::ui::{CommandError, Exit};

#[derive(Debug, Args)]
#[command(
    after_help = "Writes a tag into the repository, and pushes it; where it cannot be pushed it is taken back.\n\nExamples:\n  forebay release\n  forebay release -i ~/.ssh/release_key"
)]
pub(super) struct Arguments {
    /// The SSH key that may push to origin [default: as ssh is set up]
    #[arg(short = 'i', long, value_name = "PATH")]
    ssh_identity_file: Option<PathBuf>,
}

/// What `--json` prints (`schema/release.schema.json`).
#[derive(Debug, Serialize)]
struct Document {
    tag: String,
}

pub(super) fn run(context: &Context, arguments: &Arguments) -> Result<Exit, CommandError> {
    let directory = find_project_directory(context.directory()).map_err(BuildError::from)?;
    let document = Document {
        tag: release(&directory, arguments.ssh_identity_file.as_deref())?,
    };
    context
        .printer
        .result(&document, || format!("{}\n", document.tag))?;
    Ok(Exit::Done)
}
