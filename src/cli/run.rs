//! `forebay run`

use std::os::unix::process::CommandExt as _;

use clap::Args;

use super::arguments::{AuthenticationArguments, ConfigArguments};
use super::context::Context;
use super::project_python::project_python;
use crate::artifacts::Workspace;
use crate::develop::{RunRequest, requirements_are_stale, run_command};
use crate::ui::{CommandError, Exit};

#[derive(Debug, Args)]
#[command(
    after_help = "Writes nothing itself. The process becomes the job's own: its output, its signals and its exit status are what you see.\n\nExamples:\n  forebay run --workflow my_workflow\n  forebay run --job my_workflow.my_job -r 2024-01-31 -c dev"
)]
pub(super) struct Arguments {
    /// The job to run
    #[arg(
        short,
        long,
        value_name = "WORKFLOW.JOB",
        required_unless_present = "workflow",
        conflicts_with = "workflow"
    )]
    job: Option<String>,

    /// The workflow to run: all of its jobs, one after the other
    #[arg(short, long, value_name = "ID")]
    workflow: Option<String>,

    /// The time that the jobs are told: 2024-01-31 or "2024-01-31 06:00:00" [default: now]
    #[arg(short, long, value_name = "TIME")]
    runtime: Option<String>,

    #[command(flatten)]
    config: ConfigArguments,

    /// The package that is searched for the workflow [default: that of the project]
    #[arg(long, value_name = "PACKAGE")]
    project_package: Option<String>,

    #[command(flatten)]
    authentication: AuthenticationArguments,
}

pub(super) fn run(context: &Context, arguments: &Arguments) -> Result<Exit, CommandError> {
    let workspace = context.workspace()?;
    warn_of_stale_requirements(context, &workspace)?;
    let python = project_python(
        context,
        &workspace,
        &arguments.config,
        &arguments.authentication,
    )?;
    let packages = match &arguments.project_package {
        Some(package) => vec![package.clone()],
        None => packages(&workspace),
    };
    let request = RunRequest {
        job: arguments.job.as_deref(),
        workflow: arguments.workflow.as_deref(),
        runtime: arguments.runtime.as_deref(),
        environment: arguments.config.config.as_deref(),
        root_packages: &packages,
    };
    let mut command = run_command(&python, &request)?;
    // Comes back only if it could not be started.
    let source = command.exec();
    let program = python.interpreter.executable.display().to_string();
    Err(crate::develop::DevelopError::Start { program, source }.into())
}

/// The package that is named like the project, as BigFlow looks for it, and then the others.
fn packages(workspace: &Workspace) -> Vec<String> {
    let spec = &workspace.project().spec;
    let own = spec.name.as_str().replace('-', "_");
    let mut packages: Vec<String> = spec.root_packages().map(str::to_owned).collect();
    packages.sort_by_key(|package| *package != own);
    packages
}

pub(super) fn warn_of_stale_requirements(
    context: &Context,
    workspace: &Workspace,
) -> Result<bool, CommandError> {
    let project = workspace.project();
    let requirements = project.directory.join(&project.spec.requirements_file);
    let stale = requirements_are_stale(&requirements)?;
    if stale {
        context.printer.warning(&format!(
            "{} was compiled from other requirements: run `forebay build-requirements`",
            project.spec.requirements_file
        ));
    }
    Ok(stale)
}
