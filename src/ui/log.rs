//! What is said beside the result: for people as text, for programs as one JSON object a line
//! (`schema/event.schema.json`), both on standard error.

use std::io::Write as _;

use jiff::Timestamp;
use log::{LevelFilter, Log, Metadata, Record};
use serde::Serialize;

/// How events are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Writes one event as a line of JSON: its time, its kind, and what it says.
pub(super) fn write_event(event: &str, fields: impl Serialize) {
    #[derive(Serialize)]
    struct Line<'a, Fields> {
        time: Timestamp,
        event: &'a str,
        #[serde(flatten)]
        fields: Fields,
    }
    let line = Line {
        time: Timestamp::now(),
        event,
        fields,
    };
    if let Ok(text) = serde_json::to_string(&line) {
        let _ = writeln!(std::io::stderr(), "{text}");
    }
}

/// Shows the library's single steps: requests without their queries, repetitions, what is found in
/// the store, processes that are started. Never a header, a body or a variable.
///
/// The first call counts; a second one changes nothing.
pub fn show_details(format: LogFormat) {
    let details: &'static Details = match format {
        LogFormat::Text => &Details(LogFormat::Text),
        LogFormat::Json => &Details(LogFormat::Json),
    };
    if log::set_logger(details).is_ok() {
        log::set_max_level(LevelFilter::Debug);
    }
}

struct Details(LogFormat);

impl Log for Details {
    /// Other libraries' words are not ours to judge: one of them may hold a secret.
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("forebay")
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let message = record.args().to_string();
        match self.0 {
            LogFormat::Json => write_event("detail", serde_json::json!({ "message": message })),
            LogFormat::Text => {
                let dim = anstyle::Style::new().dimmed();
                let _ = writeln!(anstream::stderr(), "{dim}{:>10} {message}{dim:#}", "·");
            }
        }
    }

    fn flush(&self) {}
}
