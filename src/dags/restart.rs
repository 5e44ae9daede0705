//! DAG files that were written before: when they start, how often they run, and the same
//! with another start. All that is needed is in the file, whoever wrote it: Forebay, in
//! either format, or BigFlow.

use forebay_store::ObjectDigest;
use jiff::civil::{Date, DateTime, Time};
use jiff::{SignedDuration, ToSpan as _};

use super::render::{DagFile, InvalidDagFileName};
use super::start_time::{WorkflowStart, datetime_literal};
use crate::project::{InvalidName, WorkflowId};

/// Why a DAG file cannot be given another start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RestartError {
    /// It is not laid out as BigFlow and Forebay lay DAG files out.
    #[error("it has no single {0}")]
    NotFound(&'static str),
    /// A project's own function gave the start date.
    #[error("the project's own code gave its start date, {0}")]
    OwnStartDate(String),
    /// The new start is out of the calendar.
    #[error("there is no start date for the start time {0}")]
    StartDate(DateTime),
    /// A name in it cannot be one.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// The name that it would have cannot be one.
    #[error(transparent)]
    FileName(#[from] InvalidDagFileName),
}

/// What a DAG file says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenDag<'a> {
    text: &'a str,
    /// The workflow that it runs.
    pub workflow: WorkflowId,
    /// Its id in Airflow.
    pub dag_id: &'a str,
    /// The start time that it was built with.
    pub start: DateTime,
    /// The start date, in Python.
    start_date: &'a str,
    /// The schedule, in Python: `'@daily'`, `datetime.timedelta(days=1)`, `None`.
    pub schedule: &'a str,
}

/// How a start date follows from the start time.
enum Rule {
    /// The midnight before the last one.
    Daily,
    /// So much before.
    Earlier(SignedDuration),
}

/// What stands between the only `before` and the next `after`.
fn only<'a>(
    text: &'a str,
    before: &str,
    after: &str,
    what: &'static str,
) -> Result<&'a str, RestartError> {
    let mut found = text.match_indices(before);
    let (Some((start, _)), None) = (found.next(), found.next()) else {
        return Err(RestartError::NotFound(what));
    };
    let rest = text.get(start + before.len()..).unwrap_or_default();
    let end = rest.find(after).ok_or(RestartError::NotFound(what))?;
    Ok(rest.get(..end).unwrap_or_default())
}

impl<'a> WrittenDag<'a> {
    /// Reads a DAG file.
    ///
    /// # Errors
    /// A file that has not what all DAG files have.
    pub fn read(bytes: &'a [u8]) -> Result<Self, RestartError> {
        let text =
            std::str::from_utf8(bytes).map_err(|_| RestartError::NotFound("text in UTF-8"))?;
        let comment = |key: &'static str| {
            let value = only(text, &format!("# {key}:"), "\n", key)?;
            Ok::<_, RestartError>(value.trim())
        };
        let start = comment("bigflow-startdate")?;
        let start = start
            .parse()
            .map_err(|_| RestartError::NotFound("bigflow-startdate"))?;
        // Beside the default format's one assignment, BigFlow's has the argument.
        let schedule = only(text, "\nschedule = ", "\n", "schedule")
            .or_else(|_| only(text, "    schedule_interval=", ",\n", "schedule"))?;
        Ok(Self {
            text,
            workflow: comment("bigflow-workflow")?.parse()?,
            dag_id: only(text, "DAG(\n    '", "',\n", "DAG id")?,
            start,
            start_date: only(text, "    start_date=", ",\n", "start date")?,
            schedule,
        })
    }

    fn rule(&self) -> Result<Rule, RestartError> {
        let own = || RestartError::OwnStartDate(self.start_date.to_owned());
        let date = read_datetime(self.start_date).ok_or_else(own)?;
        let day = SignedDuration::from_hours(24);
        let earlier = self.start.duration_since(date);
        // BigFlow's `daily_start_time` gives what is 24 to 48 hours before, at midnight; its
        // `hourly_start_time` what is less than 24 hours before. So the two are told apart.
        if date == daily(self.start.date()).ok_or_else(own)? {
            Ok(Rule::Daily)
        } else if !earlier.is_negative() && earlier < day {
            Ok(Rule::Earlier(earlier))
        } else {
            Err(own())
        }
    }

    /// The same DAG with another start time, as if it had been built with that. `identity`
    /// and `was` are those of the file as it is.
    ///
    /// # Errors
    /// See [`RestartError`].
    pub fn restarted(
        &self,
        at: DateTime,
        identity: &ObjectDigest,
        was: Option<WorkflowStart>,
    ) -> Result<DagFile, RestartError> {
        let no_date = || RestartError::StartDate(at);
        let date = match self.rule()? {
            Rule::Daily => daily(at.date()).ok_or_else(no_date)?,
            Rule::Earlier(earlier) => at.checked_sub(earlier).map_err(|_| no_date())?,
        };
        let in_id = |time: DateTime| time.strftime("__%Y_%m_%d_%H_%M_%S").to_string();
        let dag_id = match self.dag_id.strip_suffix(&in_id(self.start)) {
            Some(versioned) => format!("{versioned}{}", in_id(at)),
            // A stable id stays.
            None => self.dag_id.to_owned(),
        };
        let iso = |time: DateTime| time.strftime("%Y-%m-%dT%H:%M:%S").to_string();
        let literal = datetime_literal(date);
        let replaced = [
            (
                format!("DAG(\n    '{}',\n", self.dag_id),
                format!("DAG(\n    '{dag_id}',\n"),
            ),
            (
                format!("# bigflow-startdate: \t{}\n", iso(self.start)),
                format!("# bigflow-startdate: \t{}\n", iso(at)),
            ),
            (
                format!("    start_date={},\n", self.start_date),
                format!("    start_date={},\n", literal.as_str()),
            ),
        ];
        let mut text = self.text.to_owned();
        for (from, to) in &replaced {
            if text.matches(from.as_str()).count() != 1 {
                return Err(RestartError::NotFound("start"));
            }
            text = text.replace(from.as_str(), to);
        }
        let explicit = was.is_some_and(|was| was.explicit);
        Ok(DagFile {
            workflow: self.workflow.clone(),
            file_name: format!("{dag_id}_dag.py").parse()?,
            bytes: text.into_bytes(),
            identity: match explicit {
                false => *identity,
                // A start time that was named is part of the identity.
                true => ObjectDigest::of(format!("restarted {identity} {}", iso(at)).as_bytes()),
            },
            start: Some(WorkflowStart { time: at, explicit }),
        })
    }

    /// How many runs the schedule has after `from` and not after `to`, in UTC; nothing if
    /// that cannot be told.
    pub fn runs_between(&self, from: DateTime, to: DateTime) -> Option<u64> {
        super::runs::runs_between(self.schedule, from, to)
    }
}

fn daily(date: Date) -> Option<DateTime> {
    let midnight = date.to_datetime(Time::midnight());
    midnight.checked_sub(24.hours()).ok()
}

/// Reads `datetime.datetime(2026, 1, 30, 0, 0)`: numbers alone.
fn read_datetime(literal: &str) -> Option<DateTime> {
    let numbers = literal
        .strip_prefix("datetime.datetime(")?
        .strip_suffix(')')?;
    let numbers: Option<Vec<i16>> = numbers
        .split(',')
        .map(|number| number.trim().parse().ok())
        .collect();
    let numbers = numbers.filter(|numbers| (5..=6).contains(&numbers.len()))?;
    let small = |index: usize| match numbers.get(index) {
        Some(number) => i8::try_from(*number).ok(),
        None => Some(0),
    };
    DateTime::new(
        *numbers.first()?,
        small(1)?,
        small(2)?,
        small(3)?,
        small(4)?,
        small(5)?,
        0,
    )
    .ok()
}
