//! `forebay image migrate`: a Dockerfile becomes a section of pyproject.toml.

use clap::Args;
use serde::Serialize;

use super::arguments::BuildArguments;
use super::context::Context;
use super::services::LazyServices;
use super::settings_file;
use crate::artifacts::Build;
use crate::ui::{CommandError, Exit};

/// Flags of `image migrate`.
#[derive(Debug, Args)]
#[command(
    after_help = "Writes nothing, and with --write the section into pyproject.toml. Both are planned first: it means the same as the Dockerfile.\n\nExamples:\n  forebay image migrate\n  forebay image migrate --write"
)]
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
        settings_file::append(target.project_directory(), &section)?;
    }
    let document = Document {
        section,
        written: arguments.write,
    };
    context
        .printer
        .verbatim(&document, || match document.written {
            true => "pyproject.toml now describes the image; the Dockerfile is no longer read\n"
                .to_owned(),
            false => document.section.clone(),
        })?;
    Ok(Exit::Done)
}
