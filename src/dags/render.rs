//! Writes DAG files.

use std::fmt;
use std::str::FromStr;

use forebay_store::ObjectDigest;
use jiff::civil::datetime;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::bigflow_format;
use super::default_format;
use super::start_time::{StartTime, WorkflowStart};
use super::workflow::{PythonLiteral, StartDate, Workflow};
use crate::project::{DagFormat, DagIds, JobId, Version, WorkflowId};

/// Airflow's longest DAG id, in characters (`airflow.utils.helpers.validate_key`).
const LONGEST_DAG_ID: usize = 250;

/// Why a workflow has no DAG file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RenderError {
    /// The DAG's id is too long.
    #[error("the DAG id {id:?} of workflow {workflow} has {} characters, and Airflow takes {LONGEST_DAG_ID}: shorten the workflow's id or the version", id.len())]
    DagIdTooLong {
        /// The workflow.
        workflow: WorkflowId,
        /// The id that it would have.
        id: String,
    },
    /// A job's id makes no name of a variable in BigFlow's format.
    #[error(
        "job {job} of workflow {workflow} has a `-` in its id: BigFlow's format makes a file of it that Python cannot read; use the default format, or write `_`"
    )]
    NoVariableName {
        /// The workflow.
        workflow: WorkflowId,
        /// The job.
        job: JobId,
    },
    /// Two jobs of a workflow would be the same Airflow task.
    #[error(
        "jobs {first} and {second} of workflow {workflow} would both be Airflow's task {task:?}: give one of them another id"
    )]
    SameTask {
        /// The workflow.
        workflow: WorkflowId,
        /// One job.
        first: JobId,
        /// The other.
        second: JobId,
        /// The task's id.
        task: String,
    },
    /// The Airflow variable's name cannot stand in a template.
    #[error(
        "workflow {workflow} has the env_variable {name:?}, which cannot stand in a template: it must consist of letters, digits and _"
    )]
    EnvironmentVariable {
        /// The workflow.
        workflow: WorkflowId,
        /// The name.
        name: String,
    },
    /// BigFlow's format has no other ids than BigFlow's.
    #[error(
        "[tool.forebay.dags] asks for ids = \"stable\", and the format bigflow-1.11 has BigFlow's versioned ids only: use the default format, or ids = \"versioned\""
    )]
    StableIds,
    /// The workflow's start date was computed for another start time, or is before the year 1.
    #[error("workflow {workflow} has no start date for the start time {start}")]
    StartDate {
        /// The workflow.
        workflow: WorkflowId,
        /// The start time.
        start: jiff::civil::DateTime,
    },
}

/// Why a text is no DAG file's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} cannot be a DAG file's name: it must have letters, digits, and _ - . only, end in .py, and not be airflow_monitoring.py, which is Composer's"
)]
pub struct InvalidDagFileName(String);

/// The name of a DAG file in the folder `dags/`.
///
/// `{workflow}__v{version}__{start}_dag.py`, as BigFlow names it, or `{workflow}_dag.py` with stable ids.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DagFileName(String);

impl DagFileName {
    /// The name's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DagFileName {
    type Err = InvalidDagFileName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let word = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
        let valid = text.len() <= 255
            && text.ends_with(".py")
            && text.bytes().next().is_some_and(word)
            && text.bytes().all(|byte| word(byte) || byte == b'.')
            && text != "airflow_monitoring.py";
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidDagFileName(text.to_owned()))
        }
    }
}

impl fmt::Display for DagFileName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl Serialize for DagFileName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for DagFileName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// What a DAG file depends on besides its workflow.
#[derive(Debug, Clone, Copy)]
pub struct RenderContext<'a> {
    /// How it is written.
    pub format: DagFormat,
    /// The image, as the DAG names it.
    pub image: &'a str,
    /// The image by its tag, for the comment beside a digest.
    pub image_tag: Option<&'a str>,
    /// The project's version.
    pub version: &'a Version,
    /// When the workflows start.
    pub start_time: StartTime,
}

/// A DAG file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DagFile {
    /// Whose.
    pub workflow: WorkflowId,
    /// Its name.
    pub file_name: DagFileName,
    /// Its content.
    pub bytes: Vec<u8>,
    /// The BLAKE3 digest of the content as it would be without version, clock and tag:
    /// of workflow, image reference, format, kind of id and an explicit start time alone. A file
    /// whose identity is live already need not be replaced.
    pub identity: ObjectDigest,
    /// When it lets its workflow start, where that is known.
    pub start: Option<WorkflowStart>,
}

/// What the formats write, as texts.
pub(super) struct Parts<'a> {
    pub(super) workflow: &'a Workflow,
    pub(super) dag_id: &'a str,
    pub(super) version: &'a str,
    /// `isoformat()` of the start time.
    pub(super) start_time: &'a str,
    pub(super) start_date: &'a PythonLiteral,
    pub(super) image: &'a str,
    pub(super) image_tag: Option<&'a str>,
}

impl Parts<'_> {
    fn write(&self, format: DagFormat) -> String {
        match format {
            DagFormat::Bigflow1_11 => bigflow_format::write(self),
            DagFormat::Default => default_format::write(self),
        }
    }
}

/// Writes a workflow's DAG file, with a versioned id.
pub fn render(workflow: &Workflow, context: &RenderContext<'_>) -> Result<DagFile, RenderError> {
    render_with_ids(workflow, context, DagIds::Versioned)
}

/// Writes a workflow's DAG file.
pub fn render_with_ids(
    workflow: &Workflow,
    context: &RenderContext<'_>,
    ids: DagIds,
) -> Result<DagFile, RenderError> {
    validate(workflow, context.format)?;
    let start = context.start_time.time;
    let dag_id = match ids {
        DagIds::Versioned => format!(
            "{}__v{}__{}",
            workflow.id,
            context.version.in_dag_id(),
            start.strftime("%Y_%m_%d_%H_%M_%S")
        ),
        DagIds::Stable if context.format == DagFormat::Bigflow1_11 => {
            return Err(RenderError::StableIds);
        }
        DagIds::Stable => workflow.id.to_string(),
    };
    if dag_id.len() > LONGEST_DAG_ID {
        return Err(RenderError::DagIdTooLong {
            workflow: workflow.id.clone(),
            id: dag_id,
        });
    }
    let no_start_date = || RenderError::StartDate {
        workflow: workflow.id.clone(),
        start,
    };
    let start_date = workflow
        .start_date
        .literal(&context.start_time)
        .ok_or_else(no_start_date)?;
    let parts = Parts {
        workflow,
        dag_id: &dag_id,
        version: context.version.as_str(),
        start_time: &start.strftime("%Y-%m-%dT%H:%M:%S").to_string(),
        start_date: &start_date,
        image: context.image,
        image_tag: context.image_tag,
    };
    let file_name = format!("{dag_id}_dag.py");
    Ok(DagFile {
        workflow: workflow.id.clone(),
        bytes: parts.write(context.format).into_bytes(),
        identity: identity(&parts, context, ids),
        start: Some(WorkflowStart {
            time: start,
            explicit: context.start_time.explicit,
        }),
        file_name: file_name.parse().map_err(|_| RenderError::DagIdTooLong {
            workflow: workflow.id.clone(),
            id: dag_id.clone(),
        })?,
    })
}

/// Writes the file again with everything fixed that must not count.
fn identity(parts: &Parts<'_>, context: &RenderContext<'_>, ids: DagIds) -> ObjectDigest {
    let fixed_start = PythonLiteral::new(match &parts.workflow.start_date {
        StartDate::Daily => "daily".to_owned(),
        StartDate::Hourly => "hourly".to_owned(),
        StartDate::Custom { references, .. } => references.join(" "),
    });
    let (start_time, start_date) = if context.start_time.explicit {
        (context.start_time.time, parts.start_date)
    } else {
        (datetime(1, 1, 1, 0, 0, 0, 0), &fixed_start)
    };
    let timeless = Parts {
        dag_id: parts.workflow.id.as_str(),
        version: "",
        start_time: &start_time.strftime("%Y-%m-%dT%H:%M:%S").to_string(),
        start_date,
        image_tag: None,
        ..*parts
    };
    let content = format!(
        "forebay DAG identity 1\n{}{}\n{}",
        context.format.as_str(),
        match ids {
            DagIds::Versioned => "",
            DagIds::Stable => ", stable ids",
        },
        timeless.write(context.format)
    );
    ObjectDigest::of(content.as_bytes())
}

/// Refuses what would break only inside Airflow.
fn validate(workflow: &Workflow, format: DagFormat) -> Result<(), RenderError> {
    let name = &workflow.environment_variable;
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let starts_well = name
        .bytes()
        .next()
        .is_some_and(|byte| !byte.is_ascii_digit());
    if !starts_well || !name.bytes().all(word) {
        return Err(RenderError::EnvironmentVariable {
            workflow: workflow.id.clone(),
            name: name.clone(),
        });
    }
    let mut tasks = std::collections::HashMap::new();
    for job in &workflow.jobs {
        if format == DagFormat::Bigflow1_11 && job.id.as_str().contains('-') {
            return Err(RenderError::NoVariableName {
                workflow: workflow.id.clone(),
                job: job.id.clone(),
            });
        }
        if let Some(first) = tasks.insert(job.task_id(), &job.id) {
            return Err(RenderError::SameTask {
                workflow: workflow.id.clone(),
                first: first.clone(),
                second: job.id.clone(),
                task: job.task_id(),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::restart::{RestartError, WrittenDag};
    use super::super::workflow::{Job, Schedule, ScheduleKind};
    use super::*;

    fn workflow() -> Workflow {
        let literal = |text: &str| PythonLiteral::new(text.to_owned());
        Workflow {
            id: "daily".parse().unwrap(),
            package: "flow".to_owned(),
            file: "flow/a.py".to_owned(),
            line: Some(3),
            depends_on_past: literal("True"),
            schedule: Schedule {
                kind: ScheduleKind::Text,
                literal: literal("'@daily'"),
            },
            start_date: StartDate::Daily,
            environment_variable: "env".to_owned(),
            jobs: vec![Job {
                id: "j".parse().unwrap(),
                retries: literal("3"),
                retry_delay: literal("datetime.timedelta(seconds=60)"),
                execution_timeout: None,
                secrets: None,
                dependencies: Vec::new(),
            }],
        }
    }

    fn rendered(
        version: &str,
        hour: i8,
        format: DagFormat,
        ids: DagIds,
    ) -> Result<DagFile, RenderError> {
        let context = RenderContext {
            format,
            image: "r/i@sha256:0",
            image_tag: None,
            version: &version.parse().unwrap(),
            start_time: StartTime {
                time: datetime(2026, 1, 31, hour, 0, 0, 0),
                explicit: false,
                utc_offset_seconds: 0,
            },
        };
        render_with_ids(&workflow(), &context, ids)
    }

    #[test]
    fn a_stable_id_outlives_version_and_start_and_is_another_identity() {
        let stable = |version, hour| rendered(version, hour, DagFormat::Default, DagIds::Stable);
        let first = stable("1.0", 1).unwrap();
        let later = stable("2.0", 2).unwrap();
        assert_eq!(first.file_name.as_str(), "daily_dag.py");
        assert_eq!(later.file_name, first.file_name);
        assert_eq!(later.identity, first.identity);
        let text = String::from_utf8(later.bytes).unwrap();
        assert!(text.contains("DAG(\n    'daily',"), "{text}");

        let versioned = rendered("1.0", 1, DagFormat::Default, DagIds::Versioned).unwrap();
        assert_eq!(
            versioned.file_name.as_str(),
            "daily__v1_0__2026_01_31_01_00_00_dag.py"
        );
        assert_ne!(versioned.identity, first.identity);
    }

    #[test]
    fn a_restarted_file_is_as_if_it_had_been_built_with_that_start() {
        let built = |format, ids, start_date: &StartDate, hour, explicit| {
            let context = RenderContext {
                format,
                image: "r/i@sha256:0",
                image_tag: Some("r/i:1.0"),
                version: &"1.0".parse().unwrap(),
                start_time: StartTime {
                    time: datetime(2026, 2, 3, hour, 0, 0, 0),
                    explicit,
                    utc_offset_seconds: 7200,
                },
            };
            let workflow = Workflow {
                start_date: start_date.clone(),
                ..workflow()
            };
            render_with_ids(&workflow, &context, ids).unwrap()
        };
        for (format, ids) in [
            (DagFormat::Default, DagIds::Versioned),
            (DagFormat::Default, DagIds::Stable),
            (DagFormat::Bigflow1_11, DagIds::Versioned),
        ] {
            for start_date in [StartDate::Daily, StartDate::Hourly] {
                let old = built(format, ids, &start_date, 1, false);
                let new = built(format, ids, &start_date, 17, false);
                let written = WrittenDag::read(&old.bytes).unwrap();
                assert_eq!(written.schedule, "'@daily'");
                let at = datetime(2026, 2, 3, 17, 0, 0, 0);
                let restarted = written.restarted(at, &old.identity, old.start);
                assert_eq!(restarted, Ok(new));

                // A start time that was named is another identity.
                let old = built(format, ids, &start_date, 1, true);
                let restarted = written.restarted(at, &old.identity, old.start).unwrap();
                assert_ne!(restarted.identity, old.identity);
            }
        }
        let own = StartDate::Custom {
            start_time: datetime(2026, 2, 3, 1, 0, 0, 0),
            literal: PythonLiteral::new("datetime.datetime(2020, 1, 1, 0, 0)".to_owned()),
            references: Vec::new(),
        };
        let old = built(DagFormat::Default, DagIds::Versioned, &own, 1, false);
        let written = WrittenDag::read(&old.bytes).unwrap();
        let at = datetime(2026, 2, 3, 17, 0, 0, 0);
        let refused = written.restarted(at, &old.identity, None);
        assert!(
            matches!(refused, Err(RestartError::OwnStartDate(_))),
            "{refused:?}"
        );
        assert!(WrittenDag::read(b"print('hello')").is_err());
    }

    #[test]
    fn bigflows_format_has_no_stable_ids() {
        assert_eq!(
            rendered("1.0", 1, DagFormat::Bigflow1_11, DagIds::Stable),
            Err(RenderError::StableIds)
        );
    }
}
