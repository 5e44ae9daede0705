//! `forebay image migrate`: a Dockerfile becomes a section of pyproject.toml.

use std::io::Write as _;

use clap::Args;
use serde::Serialize;

use super::arguments::BuildArguments;
use super::context::Context;
use super::services::LazyServices;
use crate::artifacts::Build;
use crate::ui::{CommandError, Exit};

/// Flags of `image migrate`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    build: BuildArguments,

    /// Append the section to pyproject.toml instead of printing it; from then on the Dockerfile is not read
    #[arg(long)]
    write: bool,
}

/// What `--json` prints (`schema/image-migrate.schema.json`).
#[derive(Debug, Serialize)]
struct Document {
    /// The section, in TOML.
    section: String,
    written: bool,
}

pub(super) fn run(context: &Context, arguments: &Arguments) -> Result<Exit, CommandError> {
    let workspace = context.workspace()?;
    let (target, services) = LazyServices::of_build(&workspace, &arguments.build)?;
    let open = services.opener();
    let build = Build::new(&workspace, &target, &open)?;
    if build.has_image_section() {
        return Err(CommandError::new(
            Exit::Usage,
            "pyproject.toml has a section [tool.forebay.image] already",
        )
        .next("take that section out first, to have it written anew"));
    }
    let section = context.block_on(async { Ok(build.declaration().await?) })?;
    if arguments.write {
        let path = build.settings_file();
        let mut options = std::fs::OpenOptions::new();
        let appended = options
            .append(true)
            .create(true)
            .open(&path)
            .and_then(|mut file| write!(file, "\n{section}"));
        appended.map_err(|error| {
            CommandError::new(Exit::Failed, format!("cannot write {}", path.display()))
                .why(error.to_string())
                .next("print the section without --write, and put it there yourself")
        })?;
    }
    let document = Document {
        section,
        written: arguments.write,
    };
    context
        .printer
        .result(&document, || match document.written {
            true => "pyproject.toml now describes the image; the Dockerfile is no longer read\n"
                .to_owned(),
            false => document.section.clone(),
        })?;
    Ok(Exit::Done)
}
