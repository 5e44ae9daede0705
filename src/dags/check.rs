//! What a DAG file can be written from, and yet would break once it is deployed:
//! in Airflow's import, or when Kubernetes starts the pod.

use super::error::Place;
use super::schedule;
use super::workflow::Workflow;
use crate::project::WorkflowId;

/// Kubernetes' longest name of a secret and of a key in it, in characters.
const LONGEST_SECRET: usize = 253;

/// Why a workflow must not be deployed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CheckError {
    /// Airflow cannot read the schedule.
    #[error(
        "{place}: workflow {workflow} has the schedule_interval {schedule}, which Airflow cannot read: {problem}"
    )]
    Schedule {
        /// The workflow.
        workflow: WorkflowId,
        /// Where it is defined.
        place: Place,
        /// As Python writes it.
        schedule: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Kubernetes has no such secrets.
    #[error(
        "{place}: workflow {workflow} has the secret {secret}, which cannot be the name of a Kubernetes secret: it has 1 to {LONGEST_SECRET} letters, digits, and - _ ., and starts and ends with a letter or a digit"
    )]
    Secret {
        /// The workflow.
        workflow: WorkflowId,
        /// Where it is defined.
        place: Place,
        /// As Python writes it.
        secret: String,
    },
}

impl CheckError {
    /// What a person can do about it.
    pub fn next_step(&self) -> &'static str {
        match self {
            Self::Schedule { .. } => {
                "write a cron expression such as \"0 6 * * *\", a preset such as @daily, a timedelta, or None"
            }
            Self::Secret { .. } => "write the secret's name as it is in Kubernetes, with _ for -",
        }
    }
}

/// Refuses what cannot run. Gives remarks on what is unlikely to.
pub fn check<'a>(
    workflows: impl IntoIterator<Item = &'a Workflow>,
) -> Result<Vec<String>, CheckError> {
    let mut remarks = Vec::new();
    for workflow in workflows {
        if let Some(problem) = schedule::problem(&workflow.schedule) {
            return Err(CheckError::Schedule {
                workflow: workflow.id.clone(),
                place: workflow.place(),
                schedule: workflow.schedule.literal.to_string(),
                problem,
            });
        }
        remarks.extend(check_secrets(workflow)?);
    }
    Ok(remarks)
}

fn check_secrets(workflow: &Workflow) -> Result<Vec<String>, CheckError> {
    let mut remarks = Vec::new();
    let secrets = workflow.jobs.iter().flat_map(|job| &job.secrets).flatten();
    for secret in secrets {
        let name = secret.secret.plain_text().unwrap_or_default();
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
        let outer = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
        let valid = name.len() <= LONGEST_SECRET
            && outer(name.bytes().next())
            && outer(name.bytes().last())
            && name.bytes().all(inner);
        if !valid {
            return Err(CheckError::Secret {
                workflow: workflow.id.clone(),
                place: workflow.place(),
                secret: secret.target.to_string(),
            });
        }
        if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            let remark = format!(
                "{}: workflow {} has the secret {}, but the names of Kubernetes secrets are in lower case",
                workflow.place(),
                workflow.id,
                secret.target
            );
            if !remarks.contains(&remark) {
                remarks.push(remark);
            }
        }
    }
    Ok(remarks)
}

#[cfg(test)]
mod tests {
    use super::super::workflow::{
        Job, PythonLiteral, Schedule, ScheduleKind, SecretReference, StartDate,
    };
    use super::*;

    fn job(id: &str) -> Job {
        let literal = |text: &str| PythonLiteral::new(text.to_owned());
        Job {
            id: id.parse().unwrap(),
            retries: literal("3"),
            retry_delay: literal("datetime.timedelta(seconds=60)"),
            execution_timeout: None,
            secrets: None,
            dependencies: Vec::new(),
        }
    }

    fn workflow(schedule: &str, jobs: Vec<Job>) -> Workflow {
        Workflow {
            id: "w".parse().unwrap(),
            package: "flow".to_owned(),
            file: "flow/a.py".to_owned(),
            line: Some(7),
            depends_on_past: PythonLiteral::new("True".to_owned()),
            schedule: Schedule {
                kind: ScheduleKind::Text,
                literal: PythonLiteral::of_text(schedule),
            },
            start_date: StartDate::Daily,
            environment_variable: "env".to_owned(),
            jobs,
        }
    }

    fn with_secret(name: &str) -> Workflow {
        let mut job = job("j");
        job.secrets = Some(vec![SecretReference {
            target: PythonLiteral::of_text(name),
            secret: PythonLiteral::of_text(&name.replace('_', "-")),
        }]);
        workflow("@daily", vec![job])
    }

    #[test]
    fn a_schedule_that_airflow_cannot_read_is_named_with_its_place() {
        let error = check(&[workflow("0 25 * * *", vec![job("j")])]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "flow/a.py, line 7: workflow w has the schedule_interval '0 25 * * *', which Airflow cannot read: \"25\" is no hour (0 to 23)"
        );
    }

    #[test]
    fn secrets_that_kubernetes_cannot_have_are_refused() {
        for name in ["database_password", "a.b", "x1"] {
            assert_eq!(check(&[with_secret(name)]), Ok(Vec::new()), "{name}");
        }
        for name in ["", "_a", "a b", "it's", "a/b", "é", &"x".repeat(254)] {
            let error = check(&[with_secret(name)]).unwrap_err();
            assert!(
                matches!(error, CheckError::Secret { .. }),
                "{name}: {error}"
            );
        }
        let remarks = check(&[with_secret("API_TOKEN")]).unwrap();
        assert!(remarks[0].contains("'API_TOKEN'"), "{remarks:?}");
    }
}
