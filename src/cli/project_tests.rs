//! The project's own tests, which `build` and `build-package` run before they make anything.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::context::Context;
use crate::artifacts::{Build, BuildError, Workspace};
use crate::develop::{PassedTests, ProjectPython, TestInputs, TestOutput, has_tests, run_tests};
use crate::progress::{Event, Phase, Unit};
use crate::ui::{CommandError, count};

/// Whether the project's tests are run.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(super) struct TestArguments {
    /// Do not run the project's tests
    #[arg(long, conflicts_with = "rerun_tests")]
    no_tests: bool,

    /// Run the project's tests even if they have passed with these sources: they may depend on something else
    #[arg(long)]
    rerun_tests: bool,
}

/// What `--json` says of the tests.
#[derive(Debug, Serialize)]
pub(super) struct TestsDocument {
    /// How many have passed.
    passed: usize,
    /// The folder with their JUnit XML.
    report: PathBuf,
    /// Whether that was known, so that they were not run.
    cached: bool,
}

impl TestsDocument {
    fn new(passed: PassedTests, cached: bool) -> Self {
        Self {
            passed: passed.number,
            report: passed.report,
            cached,
        }
    }
}

/// Runs the project's tests, if it has any and their result is not known.
///
/// # Errors
/// They fail, or cannot be run.
pub(super) async fn test(
    context: &Context,
    workspace: &Workspace,
    build: &Build<'_>,
    arguments: TestArguments,
) -> Result<Option<TestsDocument>, CommandError> {
    let project = workspace.project();
    let framework = project.spec.test_framework;
    let tree = workspace.tree()?;
    if arguments.no_tests || !has_tests(tree, framework) {
        return Ok(None);
    }
    let (store, progress) = (workspace.store(), workspace.progress());
    let interpreter = workspace.interpreter().map_err(BuildError::from)?;
    let wheels = build.imported_wheels(&interpreter).await?;
    let inputs = TestInputs {
        directory: &project.directory,
        framework,
        tree,
        interpreter: &interpreter,
        wheels: wheels.map(|wheels| wheels.digest()),
    };
    let finished = |summary: String| {
        progress.report(Event::Finished {
            phase: Phase::Tests,
            summary,
        });
    };
    if !arguments.rerun_tests
        && let Some(passed) = inputs.passed_before(store)?
    {
        finished(format!(
            "{} passed before, with these sources",
            count(passed.number, "test")
        ));
        return Ok(Some(TestsDocument::new(passed, true)));
    }
    let output = match context.printer.writes_events() {
        false => TestOutput::StandardError,
        true => {
            progress.report(Event::Started {
                phase: Phase::Tests,
                total: None,
                unit: Unit::Items,
            });
            TestOutput::Events(progress.as_ref())
        }
    };
    let python = ProjectPython {
        import_paths: build.import_paths(&interpreter).await?,
        interpreter: interpreter.clone(),
        directory: project.directory.clone(),
    };
    let report = run_tests(&python, framework, output)?;
    let (passed, changed) = inputs.passed(report, &workspace.scan_again()?, store)?;
    let passed_now = format!("{} passed", count(passed.number, "test"));
    finished(match changed {
        None => passed_now,
        Some(path) => format!(
            "{passed_now}; the next build runs them again, because {path} changed meanwhile"
        ),
    });
    Ok(Some(TestsDocument::new(passed, false)))
}
