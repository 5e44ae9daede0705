//! Parts of output that several commands share.

use jiff::{Timestamp, Unit, tz::TimeZone};
use serde::Serialize;

use crate::environment::{DriftKind, Drifted, EnvironmentKey, Owners};

/// One file that somebody changed, as `--json` shows it.
#[derive(Debug, Serialize)]
pub(super) struct DriftDocument {
    /// Its key in the bucket.
    pub(super) key: String,
    /// `changed`, `deleted`, or `rewritten` with the same bytes.
    pub(super) change: &'static str,
}

impl From<&Drifted> for DriftDocument {
    fn from(drifted: &Drifted) -> Self {
        Self {
            key: drifted.key.to_string(),
            change: match drifted.change {
                DriftKind::Changed => "changed",
                DriftKind::Gone => "deleted",
                DriftKind::Rewritten => "rewritten",
            },
        }
    }
}

impl std::fmt::Display for DriftDocument {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} was {}", self.key, self.change)
    }
}

/// Keys with their owners, where they are known.
pub(super) fn describe_keys(keys: &[String], owners: &Owners) -> Vec<String> {
    let describe = |key: &String| match owners.get(key) {
        Some(EnvironmentKey {
            project,
            environment,
        }) => format!("{key} (live in environment {environment} of project {project})"),
        None => key.clone(),
    };
    keys.iter().map(describe).collect()
}

/// A moment in the user's time zone, to the minute.
pub(super) fn when(moment: Timestamp) -> String {
    minute_of(moment)
        .strftime("on %Y-%m-%d at %H:%M")
        .to_string()
}

/// The same, for a column.
pub(super) fn when_in_table(moment: Timestamp) -> String {
    minute_of(moment).strftime("%Y-%m-%d %H:%M").to_string()
}

fn minute_of(moment: Timestamp) -> jiff::Zoned {
    let local = moment.to_zoned(TimeZone::system());
    local.round(Unit::Minute).unwrap_or(local)
}
