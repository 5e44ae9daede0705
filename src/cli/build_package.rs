//! `forebay build-package`: the project's tests, and then its wheel.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::arguments::BuildArguments;
use super::context::Context;
use super::project_tests::{TestArguments, TestsDocument, test};
use super::services::LazyServices;
use crate::artifacts::Build;
use crate::ui::{CommandError, Exit};

/// Flags of `build-package`.
#[derive(Debug, Args)]
#[command(
    after_help = "Writes the wheel into dist/ in place of earlier ones, and the tests' report into build/junit-reports/.\n\nExamples:\n  forebay build-package\n  forebay build-package --rerun-tests"
)]
pub(super) struct Arguments {
    #[command(flatten)]
    build: BuildArguments,

    #[command(flatten)]
    tests: TestArguments,
}

/// What `--json` prints (`schema/build-package.schema.json`).
#[derive(Debug, Serialize)]
struct Document {
    version: String,
    /// The wheel, in `dist/`.
    wheel: PathBuf,
    /// Null if none were run.
    tests: Option<TestsDocument>,
}

pub(super) fn run(context: &Context, arguments: &Arguments) -> Result<Exit, CommandError> {
    let workspace = context.workspace()?;
    let (target, services) = LazyServices::of_build(&workspace, &arguments.build)?;
    let open = services.opener();
    let build = Build::new(&workspace, &target, &open)?;
    let tests = context.block_on(test(context, &workspace, &build, arguments.tests))?;
    let document = Document {
        wheel: build.package()?,
        version: build.version().to_string(),
        tests,
    };
    build.keep("package")?;
    context.printer.result(&document, || {
        format!(
            "version {}\nwheel   {}\n",
            document.version,
            document.wheel.display()
        )
    })?;
    Ok(Exit::Done)
}
