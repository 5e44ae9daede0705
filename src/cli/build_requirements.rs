//! `forebay build-requirements`

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::context::Context;
use crate::artifacts::BuildError;
use crate::develop::{ProjectPython, compile_requirements};
use crate::ui::{CommandError, Exit};

#[derive(Debug, Args)]
#[command(
    after_help = "Writes the .txt file beside the .in file. uv compiles where it is installed, pip-compile otherwise. Pins that fit stay as they are.\n\nExamples:\n  forebay build-requirements\n  forebay build-requirements resources/dev.in"
)]
pub(super) struct Arguments {
    /// The file to compile [default: the .in file beside the project's requirements.txt]
    #[arg(value_name = "FILE")]
    in_file: Option<PathBuf>,
}

/// What `--json` prints (`schema/build-requirements.schema.json`).
#[derive(Debug, Serialize)]
struct Document {
    requirements: PathBuf,
}

pub(super) fn run(context: &Context, arguments: &Arguments) -> Result<Exit, CommandError> {
    let workspace = context.workspace()?;
    let project = workspace.project();
    let python = ProjectPython {
        interpreter: workspace.interpreter().map_err(BuildError::from)?,
        import_paths: Vec::new(),
        directory: project.directory.clone(),
    };
    let shown = arguments
        .in_file
        .clone()
        .unwrap_or_else(|| PathBuf::from(&project.spec.requirements_file));
    let document = Document {
        requirements: compile_requirements(&python, &project.directory.join(&shown), &shown)?,
    };
    context.printer.result(&document, || {
        format!("{}\n", document.requirements.display())
    })?;
    Ok(Exit::Done)
}
