//! The start time of a build: what `--start-time` says, or the current hour.

use std::collections::BTreeMap;

use jiff::civil::{DateTime, Time};
use jiff::{ToSpan as _, Zoned};
use serde::{Deserialize, Serialize};

use super::workflow::{PythonLiteral, StartDate};
use crate::project::WorkflowId;

/// Why a text is no start time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a start time: write 2020-01-31, or \"2020-01-31 15:00:00\" in local time, or NOW"
)]
pub struct InvalidStartTime(String);

/// The start time of a build, in local time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartTime {
    /// The time.
    pub time: DateTime,
    /// Whether the user named it. Only then does it count for a DAG file's identity.
    pub explicit: bool,
    /// The local time zone's offset from UTC now, in seconds: BigFlow's
    /// `hourly_start_time` subtracts it.
    pub utc_offset_seconds: i32,
}

impl StartTime {
    /// Reads `--start-time` as BigFlow does. Absent, empty or `NOW`: the hour of `now`.
    pub fn from_argument(argument: Option<&str>, now: &Zoned) -> Result<Self, InvalidStartTime> {
        let explicit = argument.filter(|text| !text.is_empty() && *text != "NOW");
        let time = match explicit {
            Some(text) => parse(text).ok_or_else(|| InvalidStartTime(text.to_owned()))?,
            None => now
                .datetime()
                .date()
                .to_datetime(Time::constant(now.hour(), 0, 0, 0)),
        };
        Ok(Self {
            time,
            explicit: explicit.is_some(),
            utc_offset_seconds: now.offset().seconds(),
        })
    }
}

/// When a DAG file lets its workflow start, as the records keep it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkflowStart {
    /// The start time, in the local time of whoever built the file.
    pub time: DateTime,
    /// Whether the user named it: then it counts for the file's identity.
    pub explicit: bool,
}

/// The start times of an environment's live workflows. Empty if there are none, or
/// if nobody recorded them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LiveStarts {
    /// By workflow.
    pub workflows: BTreeMap<WorkflowId, WorkflowStart>,
}

impl LiveStarts {
    /// The generation's start time, which a workflow that is not live yet gets: the latest of all.
    pub fn latest(&self) -> Option<DateTime> {
        self.workflows.values().map(|start| start.time).max()
    }

    /// Where a workflow starts for which nobody named a time.
    pub(crate) fn of(&self, workflow: &WorkflowId, otherwise: StartTime) -> StartTime {
        match self.workflows.get(workflow) {
            Some(start) => StartTime {
                time: start.time,
                explicit: start.explicit,
                ..otherwise
            },
            None => otherwise,
        }
    }
}

/// `%Y-%m-%d` or `%Y-%m-%d %H:%M:%S`, with Python's leniency about leading zeros.
fn parse(text: &str) -> Option<DateTime> {
    let mut parts = text.split_ascii_whitespace();
    let date = numbers(parts.next()?, '-')?;
    let time = match parts.next() {
        Some(time) => numbers(time, ':')?,
        None => [0; 3],
    };
    if parts.next().is_some() || !text.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let small = |number: i16| i8::try_from(number).ok();
    DateTime::new(
        date[0],
        small(date[1])?,
        small(date[2])?,
        small(time[0])?,
        small(time[1])?,
        small(time[2])?,
        0,
    )
    .ok()
}

fn numbers(text: &str, separator: char) -> Option<[i16; 3]> {
    let mut parts = text.split(separator);
    let mut number = |digits: std::ops::RangeInclusive<usize>| {
        let part = parts.next()?;
        let valid = digits.contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
        valid.then(|| part.parse::<i16>().ok()).flatten()
    };
    let first = if separator == '-' { 4..=4 } else { 1..=2 };
    let numbers = [number(first)?, number(1..=2)?, number(1..=2)?];
    parts.next().is_none().then_some(numbers)
}

impl StartDate {
    /// The start date's `repr`. `None` if the probe was asked for another start time,
    /// or the date is out of Python's range.
    pub(super) fn literal(&self, start: &StartTime) -> Option<PythonLiteral> {
        match self {
            Self::Daily => {
                let midnight = start.time.date().to_datetime(Time::midnight());
                midnight.checked_sub(24.hours()).ok().map(datetime_literal)
            }
            Self::Hourly => {
                // BigFlow takes `.seconds` of the offset, which is never negative:
                // west of Greenwich a day is missing.
                let offset = start.utc_offset_seconds.rem_euclid(86_400);
                let start = start.time.checked_sub(i64::from(offset).seconds()).ok()?;
                Some(datetime_literal(start))
            }
            Self::Custom {
                start_time,
                literal,
                ..
            } => (*start_time == start.time).then(|| literal.clone()),
        }
    }
}

/// `repr` of a `datetime.datetime` without microseconds.
pub(super) fn datetime_literal(time: DateTime) -> PythonLiteral {
    let seconds = match time.second() {
        0 => String::new(),
        second => format!(", {second}"),
    };
    PythonLiteral::new(format!(
        "datetime.datetime({}, {}, {}, {}, {}{seconds})",
        time.year(),
        time.month(),
        time.day(),
        time.hour(),
        time.minute(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::datetime;

    fn now(zone: &str) -> Zoned {
        datetime(2026, 1, 31, 15, 42, 7, 9).in_tz(zone).unwrap()
    }

    #[test]
    fn start_times_are_read_as_bigflow_reads_them() {
        let read = |text| StartTime::from_argument(text, &now("UTC")).unwrap();
        for text in [None, Some(""), Some("NOW")] {
            assert_eq!(read(text).time, datetime(2026, 1, 31, 15, 0, 0, 0));
            assert!(!read(text).explicit);
        }
        assert_eq!(
            read(Some("2020-02-29")).time,
            datetime(2020, 2, 29, 0, 0, 0, 0)
        );
        assert_eq!(
            read(Some("2020-1-1 5:00:00")).time,
            datetime(2020, 1, 1, 5, 0, 0, 0)
        );
        assert!(read(Some("2020-01-01")).explicit);
        for text in [
            "2021-02-29",
            "20-01-01",
            "2020-01-01T00:00:00",
            "2020-01-01 00:00",
            " 2020-01-01",
            "now",
        ] {
            assert!(
                StartTime::from_argument(Some(text), &now("UTC")).is_err(),
                "{text}"
            );
        }
    }

    #[test]
    fn bigflows_two_factories_are_computed_as_it_does() {
        let literal = |date: StartDate, zone| {
            let start = StartTime::from_argument(None, &now(zone)).unwrap();
            date.literal(&start).unwrap().as_str().to_owned()
        };
        assert_eq!(
            literal(StartDate::Daily, "UTC"),
            "datetime.datetime(2026, 1, 30, 0, 0)"
        );
        assert_eq!(
            literal(StartDate::Hourly, "Europe/Warsaw"),
            "datetime.datetime(2026, 1, 31, 14, 0)"
        );
        assert_eq!(
            literal(StartDate::Hourly, "America/New_York"),
            "datetime.datetime(2026, 1, 30, 20, 0)",
            "19 hours are subtracted for five hours west"
        );
    }
}
