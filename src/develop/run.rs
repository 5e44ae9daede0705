//! Runs a workflow or one of its jobs on this machine, as a pod would run it.

use std::process::Command;

use jiff::Zoned;
use jiff::civil::DateTime;

use super::{DevelopError, ProjectPython};

/// Finds the workflow among the modules of the root packages, in BigFlow's way, and runs it. Takes
/// the root packages, the workflow's id, the job's id (empty: all jobs) and the runtime.
const SCRIPT: &str = include_str!("scripts/run.py");

/// What is to be run.
#[derive(Debug, Clone)]
pub struct RunRequest<'a> {
    /// `WORKFLOW.JOB`, or nothing.
    pub job: Option<&'a str>,
    /// The workflow all of whose jobs are run, in their order.
    pub workflow: Option<&'a str>,
    /// `YYYY-MM-DD` or `YYYY-MM-DD hh:mm:ss`; now, if absent.
    pub runtime: Option<&'a str>,
    /// What `bf_env` says to the project's code; `None` leaves it as it is.
    pub environment: Option<&'a str>,
    /// The packages that are searched for the workflow, in this order.
    pub root_packages: &'a [String],
}

/// The process that runs it; it takes the place of whoever starts it, so that signals and
/// its exit status are the job's own.
///
/// # Errors
/// The job's name or the runtime is not understood.
pub fn run_command(
    python: &ProjectPython,
    request: &RunRequest<'_>,
) -> Result<Command, DevelopError> {
    let (workflow, job) = match (request.job, request.workflow) {
        (Some(text), _) => match text.split('.').collect::<Vec<_>>()[..] {
            [workflow, job] if !workflow.is_empty() && !job.is_empty() => (workflow, job),
            _ => {
                return Err(DevelopError::JobName {
                    text: text.to_owned(),
                });
            }
        },
        (None, workflow) => (workflow.unwrap_or_default(), ""),
    };
    let runtime = match request.runtime {
        Some(text) => checked(text)?.to_owned(),
        None => Zoned::now().strftime("%Y-%m-%d %H:%M:%S").to_string(),
    };
    let mut command = python.command();
    command
        .args([
            "-c",
            SCRIPT,
            &request.root_packages.join(","),
            workflow,
            job,
            &runtime,
        ])
        // The script is no folder to import from, and the project is.
        .arg(&python.directory);
    if let Some(environment) = request.environment {
        command.env("bf_env", environment);
    }
    Ok(command)
}

/// BigFlow takes these two forms of a time, and fails late on any other.
fn checked(text: &str) -> Result<&str, DevelopError> {
    let known = DateTime::strptime("%Y-%m-%d %H:%M:%S", text).is_ok()
        || jiff::civil::Date::strptime("%Y-%m-%d", text).is_ok();
    known.then_some(text).ok_or_else(|| DevelopError::Runtime {
        text: text.to_owned(),
    })
}
