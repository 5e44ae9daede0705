//! `forebay build-package`: the project's tests, and then its wheel.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::arguments::BuildArguments;
use super::context::Context;
use super::project_python::project_python;
use super::services::LazyServices;
use crate::artifacts::{Build, Workspace};
use crate::develop::{has_tests, run_tests};
use crate::ui::{CommandError, Exit};

/// Flags of `build-package`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    build: BuildArguments,

    /// Build the wheel without running the project's tests
    #[arg(long)]
    no_tests: bool,
}

/// What `--json` prints (`schema/build-package.schema.json`).
#[derive(Debug, Serialize)]
struct Document {
    version: String,
    /// The wheel, in `dist/`.
    wheel: PathBuf,
    /// The folder with the tests' JUnit XML; null if none were run.
    report: Option<PathBuf>,
}

pub(super) fn run(context: &Context, arguments: &Arguments) -> Result<Exit, CommandError> {
    let workspace = context.workspace()?;
    let report = match arguments.no_tests {
        true => None,
        false => test(context, &workspace, &arguments.build)?,
    };
    let (target, services) = LazyServices::of_build(&workspace, &arguments.build)?;
    let open = services.opener();
    let build = Build::new(&workspace, &target, &open)?;
    let document = Document {
        wheel: build.package()?,
        version: build.version().to_string(),
        report,
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

/// Runs the project's tests, if it has any.
fn test(
    context: &Context,
    workspace: &Workspace,
    arguments: &BuildArguments,
) -> Result<Option<PathBuf>, CommandError> {
    let project = workspace.project();
    let framework = project.spec.test_framework;
    if !has_tests(&project.directory, framework) {
        return Ok(None);
    }
    let BuildArguments {
        config,
        authentication,
        ..
    } = arguments;
    let python = project_python(context, workspace, config, authentication)?;
    Ok(Some(run_tests(&python, framework)?))
}
