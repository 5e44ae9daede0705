//! Lets a built DAG come to its end: its running tasks finish, no new run starts.

use jiff::{Timestamp, tz::TimeZone};

/// How both formats, and every BigFlow since 1.0, begin a DAG and go on.
const DAG: &str = "\ndag = DAG(\n";
const NEXT_TO: &str = "\n    max_active_runs=1,\n";

/// The file with an `end_date`; `None` if it is not written as BigFlow or Forebay writes it, or
/// has one already.
pub fn with_end_date(file: &[u8], end: Timestamp) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(file).ok()?;
    let (head, dag) = text.split_once(DAG)?;
    let (before, after) = dag.split_once(NEXT_TO)?;
    // The line is this DAG's own, and not one behind its end.
    if before.contains("\n)") || before.contains("end_date=") {
        return None;
    }
    let end = end.to_zoned(TimeZone::UTC);
    let end = end.strftime("%-Y, %-m, %-d, %-H, %-M, %-S");
    Some(
        format!(
            "{head}{DAG}{before}{NEXT_TO}    end_date=datetime.datetime({end}, tzinfo=datetime.timezone.utc),\n{after}"
        )
        .into_bytes(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_written_once_and_only_into_a_known_file() {
        let end: Timestamp = "2026-01-02T03:04:05.678Z".parse().unwrap();
        let file = "import datetime\n\ndag = DAG(\n    'id',\n    max_active_runs=1,\n    schedule_interval='@daily',\n)\n";
        let ended = with_end_date(file.as_bytes(), end).unwrap();
        assert_eq!(
            String::from_utf8(ended.clone()).unwrap(),
            "import datetime\n\ndag = DAG(\n    'id',\n    max_active_runs=1,\n    end_date=datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc),\n    schedule_interval='@daily',\n)\n"
        );
        for other in [
            "import datetime\n".to_owned(),
            file.replace("max_active_runs=1", "max_active_runs=2"),
            file.replace("    'id',\n", "    'id',\n    end_date=None,\n"),
            "\ndag = DAG(\n    'id',\n)\nother(\n    max_active_runs=1,\n)\n".to_owned(),
        ] {
            assert_eq!(with_end_date(other.as_bytes(), end), None, "{other}");
        }
    }
}
