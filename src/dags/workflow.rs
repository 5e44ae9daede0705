//! A workflow as the probe found it: everything that a DAG file is written from.

use serde::{Deserialize, Serialize};

use super::error::Place;
use crate::project::{JobId, WorkflowId};

/// A Python expression that gives a value again: its `repr`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PythonLiteral(String);

impl PythonLiteral {
    /// Wraps a `repr` that Python gave.
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// The expression.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text, if this is a text's `repr` that escapes nothing.
    pub fn plain_text(&self) -> Option<&str> {
        let quoted = |quote| self.0.strip_prefix(quote)?.strip_suffix(quote);
        let text = quoted('\'').or_else(|| quoted('"'))?;
        let plain = |character| !matches!(character, '\\' | '\'' | '"');
        text.chars().all(plain).then_some(text)
    }

    /// What Python's `repr` gives for a text of ASCII and printable characters.
    pub fn of_text(text: &str) -> Self {
        let quote = if text.contains('\'') && !text.contains('"') {
            '"'
        } else {
            '\''
        };
        let mut literal = String::with_capacity(text.len() + 2);
        literal.push(quote);
        for character in text.chars() {
            match character {
                '\\' => literal.push_str("\\\\"),
                '\n' => literal.push_str("\\n"),
                '\r' => literal.push_str("\\r"),
                '\t' => literal.push_str("\\t"),
                _ if character == quote => literal.extend(['\\', character]),
                _ if character.is_ascii_control() => {
                    literal.push_str(&format!("\\x{:02x}", u32::from(character)));
                }
                _ => literal.push(character),
            }
        }
        literal.push(quote);
        Self(literal)
    }
}

impl std::fmt::Display for PythonLiteral {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A `bigflow.Workflow`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workflow {
    /// `workflow_id`.
    pub id: WorkflowId,
    /// The root package that `bigflow run` imports.
    pub package: String,
    /// The module's file that made it, relative to the project's directory.
    pub file: String,
    /// The line of that file.
    pub line: Option<usize>,
    /// `depends_on_past`.
    pub depends_on_past: PythonLiteral,
    /// `schedule_interval`.
    pub schedule: Schedule,
    /// `start_time_factory`.
    pub start_date: StartDate,
    /// `env_variable`: the Airflow variable that holds the environment's name.
    pub environment_variable: String,
    /// The jobs in BigFlow's order: each after those that it depends on.
    pub jobs: Vec<Job>,
}

/// `schedule_interval`, with its kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// What kind of value it is.
    pub kind: ScheduleKind,
    /// The value.
    pub literal: PythonLiteral,
}

/// What kind of value a `schedule_interval` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleKind {
    /// `None`: only by hand.
    None,
    /// A text: a cron expression or a preset such as `@daily`.
    Text,
    /// A `timedelta`.
    Interval,
    /// Anything else.
    Other,
}

/// How the DAG's start date follows from the start time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum StartDate {
    /// `bigflow.workflow.daily_start_time`: the midnight before, a day earlier.
    Daily,
    /// `bigflow.workflow.hourly_start_time`: the time, less the local UTC offset.
    Hourly,
    /// Another function, which the probe has called.
    Custom {
        /// With this start time.
        start_time: jiff::civil::DateTime,
        /// Its answer.
        literal: PythonLiteral,
        /// Its answers for fixed times: they tell it from others whatever the clock says.
        references: Vec<String>,
    },
}

/// A job of a workflow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// `id`.
    pub id: JobId,
    /// `retry_count`.
    pub retries: PythonLiteral,
    /// `retry_pause_sec`, as a `timedelta`.
    pub retry_delay: PythonLiteral,
    /// `execution_timeout_sec`, as a `timedelta`. `None` if the job sets none: it gets three hours.
    pub execution_timeout: Option<PythonLiteral>,
    /// The workflow's secrets as this job gets them; `None` if there are none.
    pub secrets: Option<Vec<SecretReference>>,
    /// The jobs that come before.
    pub dependencies: Vec<JobId>,
}

impl Workflow {
    /// Where it is defined.
    pub fn place(&self) -> Place {
        Place {
            file: self.file.clone().into(),
            line: self.line,
        }
    }
}

impl Job {
    /// Airflow's id of the task.
    pub fn task_id(&self) -> String {
        self.id.as_str().replace('_', "-")
    }
}

/// A Kubernetes secret that a job sees as an environment variable. Names only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretReference {
    /// The variable, which is the secret's key too.
    pub target: PythonLiteral,
    /// The secret.
    pub secret: PythonLiteral,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_written_as_python_writes_them() {
        for (text, literal) in [
            ("plain", "'plain'"),
            ("it's", "\"it's\""),
            ("'\"", "'\\'\"'"),
            ("a\\b\n\u{1}", "'a\\\\b\\n\\x01'"),
        ] {
            assert_eq!(PythonLiteral::of_text(text).as_str(), literal);
        }
    }
}
