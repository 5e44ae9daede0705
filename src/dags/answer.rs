//! What the probe's script answers.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::error::{ImportFailure, Place, ProbeError};
use super::workflow::{Job, PythonLiteral, Schedule, SecretReference, StartDate, Workflow};
use crate::project::InvalidName;
use crate::python::trace::Trace;

#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Answer {
    Failed {
        error: Failure,
    },
    Found {
        workflows: Vec<FoundWorkflow>,
        trace: Trace,
    },
}

impl Answer {
    /// The workflows, sorted by id, and what was read on the way.
    pub(super) fn into_result(
        self,
        interpreter: &Path,
        directory: &Path,
    ) -> Result<(Vec<Workflow>, Trace), ProbeError> {
        let (found, mut trace) = match self {
            Self::Found { workflows, trace } => (workflows, trace),
            Self::Failed { error } => return Err(error.into_error(interpreter, directory)),
        };
        let mut workflows = found
            .into_iter()
            .map(FoundWorkflow::check)
            .collect::<Result<Vec<_>, _>>()?;
        refuse_duplicates(&workflows)?;
        workflows.sort_by(|left, right| left.id.cmp(&right.id));
        trace.start_time_matters = workflows
            .iter()
            .any(|workflow| matches!(workflow.start_date, StartDate::Custom { .. }));
        Ok((workflows, trace))
    }
}

fn refuse_duplicates(workflows: &[Workflow]) -> Result<(), ProbeError> {
    let mut seen: HashMap<&str, &Workflow> = HashMap::new();
    for workflow in workflows {
        if let Some(first) = seen.insert(workflow.id.as_str(), workflow) {
            return Err(ProbeError::Duplicate {
                id: workflow.id.clone(),
                first: first.place(),
                second: workflow.place(),
            });
        }
    }
    Ok(())
}

/// An exception, as the script describes it.
#[derive(Deserialize)]
pub(super) struct Failure {
    kind: FailureKind,
    exception: Option<String>,
    message: String,
    missing_module: Option<String>,
    file: Option<PathBuf>,
    line: Option<usize>,
    #[serde(default)]
    module: String,
    #[serde(default)]
    source: PathBuf,
    #[serde(default)]
    workflow: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum FailureKind {
    Bigflow,
    Import,
    Workflow,
}

impl Failure {
    fn into_error(self, interpreter: &Path, directory: &Path) -> ProbeError {
        let file = self.file.unwrap_or(self.source);
        let place = Place {
            file: match file.strip_prefix(directory) {
                Ok(relative) => relative.to_owned(),
                Err(_) => file,
            },
            line: self.line,
        };
        match self.kind {
            FailureKind::Bigflow => ProbeError::NoBigflow {
                interpreter: interpreter.to_owned(),
                message: self.message,
            },
            FailureKind::Import => ProbeError::Import {
                module: self.module,
                failure: Box::new(ImportFailure {
                    place,
                    exception: self.exception.unwrap_or_default(),
                    message: self.message,
                    missing_module: self.missing_module,
                }),
            },
            FailureKind::Workflow => ProbeError::Workflow {
                workflow: self.workflow,
                place,
                message: match self.exception {
                    Some(exception) => format!("{exception}: {}", self.message),
                    None => self.message,
                },
            },
        }
    }
}

/// A workflow before its names are checked.
#[derive(Deserialize)]
pub(super) struct FoundWorkflow {
    id: String,
    package: String,
    file: String,
    line: Option<usize>,
    depends_on_past: PythonLiteral,
    schedule: Schedule,
    start_date: StartDate,
    environment_variable: String,
    jobs: Vec<FoundJob>,
}

#[derive(Deserialize)]
struct FoundJob {
    id: String,
    retries: PythonLiteral,
    retry_delay: PythonLiteral,
    execution_timeout: Option<PythonLiteral>,
    secrets: Option<Vec<SecretReference>>,
    dependencies: Vec<String>,
}

impl FoundWorkflow {
    fn check(self) -> Result<Workflow, ProbeError> {
        let place = Place {
            file: self.file.clone().into(),
            line: self.line,
        };
        let bad_name = |source| ProbeError::Name {
            place: place.clone(),
            source,
        };
        let id = self.id.parse().map_err(bad_name)?;
        let jobs = self
            .jobs
            .into_iter()
            .map(|job| {
                Ok(Job {
                    id: job.id.parse()?,
                    retries: job.retries,
                    retry_delay: job.retry_delay,
                    execution_timeout: job.execution_timeout,
                    secrets: job.secrets,
                    dependencies: job
                        .dependencies
                        .iter()
                        .map(|dependency| dependency.parse())
                        .collect::<Result<_, _>>()?,
                })
            })
            .collect::<Result<_, InvalidName>>()
            .map_err(bad_name)?;
        Ok(Workflow {
            id,
            package: self.package,
            file: self.file,
            line: self.line,
            depends_on_past: self.depends_on_past,
            schedule: self.schedule,
            start_date: self.start_date,
            environment_variable: self.environment_variable,
            jobs,
        })
    }
}
