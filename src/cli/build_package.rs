//! `forebay build-package`: the project's wheel.

use std::path::PathBuf;

use serde::Serialize;

use super::arguments::BuildArguments;
use super::context::Context;
use super::services::LazyServices;
use crate::artifacts::Build;
use crate::ui::{CommandError, Exit};

/// What `--json` prints (`schema/build-package.schema.json`).
#[derive(Debug, Serialize)]
struct Document {
    version: String,
    /// The wheel, in `dist/`.
    wheel: PathBuf,
}

pub(super) fn run(context: &Context, arguments: &BuildArguments) -> Result<Exit, CommandError> {
    let workspace = context.workspace()?;
    let (target, services) = LazyServices::of_build(&workspace, arguments)?;
    let open = services.opener();
    let build = Build::new(&workspace, &target, &open)?;
    let document = Document {
        wheel: build.package()?,
        version: build.version().to_string(),
    };
    context.printer.result(&document, || {
        format!(
            "version {}\nwheel   {}\n",
            document.version,
            document.wheel.display()
        )
    })?;
    Ok(Exit::Done)
}
