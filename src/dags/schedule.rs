//! Which schedules Airflow takes.
//!
//! It reads cron expressions with croniter. What croniter cannot read breaks the
//! import of the DAG file, long after the deploy; so it is found here. Where croniter's
//! versions differ (fields for seconds and years, ranges that wrap around), the more
//! lenient one decides: nothing is refused that some Airflow would run.

use super::workflow::{PythonLiteral, Schedule, ScheduleKind};

/// Airflow's own presets, and croniter's.
const PRESETS: [&str; 10] = [
    "@once",
    "@continuous",
    "@hourly",
    "@daily",
    "@midnight",
    "@weekly",
    "@monthly",
    "@quarterly",
    "@yearly",
    "@annually",
];

const MONTHS: [&str; 12] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// A field of a cron expression.
struct Field {
    name: &'static str,
    lowest: u32,
    highest: u32,
    names: &'static [&'static str],
}

const fn field(name: &'static str, lowest: u32, highest: u32) -> Field {
    Field {
        name,
        lowest,
        highest,
        names: &[],
    }
}

const DAY_OF_MONTH: usize = 2;
const DAY_OF_WEEK: usize = 4;

/// In croniter's order: seconds and years follow the five of cron.
const FIELDS: [Field; 7] = [
    field("minute", 0, 59),
    field("hour", 0, 23),
    field("day of the month", 1, 31),
    Field {
        names: &MONTHS,
        ..field("month", 1, 12)
    },
    Field {
        names: &DAYS,
        ..field("day of the week", 0, 7)
    },
    field("second", 0, 59),
    field("year", 1970, 2099),
];

/// What is wrong with a schedule, if anything.
pub(super) fn problem(schedule: &Schedule) -> Option<String> {
    let literal = schedule.literal.as_str();
    match schedule.kind {
        ScheduleKind::None => None,
        ScheduleKind::Interval => {
            // A timedelta is normalised: it is negative only if its days are.
            let positive = literal != "datetime.timedelta(0)" && !literal.contains("days=-");
            (!positive).then(|| "an interval must be longer than nothing".to_owned())
        }
        ScheduleKind::Other => Some(
            "a schedule is None, a cron expression, a preset such as @daily, or a timedelta"
                .to_owned(),
        ),
        // Tabs separate fields as blanks do; nothing else that Python escapes belongs here.
        ScheduleKind::Text => match PythonLiteral::new(literal.replace("\\t", " ")).plain_text() {
            Some(text) => text_problem(text),
            None => Some("a cron expression has no quotes, backslashes or line breaks".to_owned()),
        },
    }
}

fn text_problem(text: &str) -> Option<String> {
    if text.starts_with('@') {
        let known = PRESETS.contains(&text.to_ascii_lowercase().as_str());
        return (!known).then(|| format!("Airflow's presets are {}", PRESETS.join(", ")));
    }
    let lower = text.to_ascii_lowercase();
    let fields: Vec<&str> = lower.split_whitespace().collect();
    if !(5..=7).contains(&fields.len()) {
        return Some(format!(
            "a cron expression has five fields (minute, hour, day of the month, month, day of the week), and this has {}",
            fields.len()
        ));
    }
    FIELDS
        .iter()
        .enumerate()
        .zip(fields)
        .find_map(|((position, field), text)| {
            let valid = (text == "?" && matches!(position, DAY_OF_MONTH | DAY_OF_WEEK))
                || text
                    .split(',')
                    .all(|part| part_is_valid(position, field, part));
            (!valid).then(|| format!("{text:?} is no {}{}", field.name, range(field)))
        })
}

fn range(field: &Field) -> String {
    match field.names.first().zip(field.names.last()) {
        Some((first, last)) => {
            format!(
                " ({} to {}, {first} to {last})",
                field.lowest, field.highest
            )
        }
        None => format!(" ({} to {})", field.lowest, field.highest),
    }
}

/// `*`, `5`, `1-5`, `mon-fri`, each with `/STEP`; `l`, and in weekdays `fri#2` and `l5`.
fn part_is_valid(position: usize, field: &Field, part: &str) -> bool {
    // croniter's random values: r, r(1-5), r/15.
    if part == "r" || part.starts_with("r(") || part.starts_with("r/") {
        return true;
    }
    if position == DAY_OF_WEEK {
        if let Some((day, number)) = part.split_once('#') {
            return value_is_valid(field, day)
                && matches!(number, "1" | "2" | "3" | "4" | "5" | "l");
        }
        if let Some(day) = part.strip_prefix('l') {
            return value_is_valid(field, day);
        }
    }
    let (span, step) = match part.split_once('/') {
        Some((span, step)) => (span, Some(step)),
        None => (part, None),
    };
    let step_is_valid = step.is_none_or(|step| number(step).is_some_and(|step| step > 0));
    let end_is_valid =
        |end: &str| value_is_valid(field, end) || (position == DAY_OF_MONTH && end == "l");
    let span_is_valid = match span.split_once('-') {
        Some((first, last)) => value_is_valid(field, first) && end_is_valid(last),
        None => span == "*" || end_is_valid(span),
    };
    step_is_valid && span_is_valid
}

fn value_is_valid(field: &Field, text: &str) -> bool {
    field.names.contains(&text)
        || number(text).is_some_and(|number| (field.lowest..=field.highest).contains(&number))
}

fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::super::workflow::PythonLiteral;
    use super::*;

    fn of(kind: ScheduleKind, literal: &str) -> Option<String> {
        problem(&Schedule {
            kind,
            literal: PythonLiteral::new(literal.to_owned()),
        })
    }

    fn of_text(text: &str) -> Option<String> {
        of(ScheduleKind::Text, PythonLiteral::of_text(text).as_str())
    }

    #[test]
    fn what_croniter_reads_is_taken() {
        for text in [
            "@daily",
            "@once",
            "@Hourly",
            "@quarterly",
            "* * * * *",
            "0 */2 * * 1-5",
            "5,35 0-23/3 1,15 JAN-jun mon,WED",
            "0 0 l * *",
            "0 0 28-l * ?",
            "0 0 ? * fri#2",
            "0 0 * * l5",
            "0 22-2 * * fri-mon",
            "0 0 * * 7",
            "5/15 * * * *",
            "0 0 * * * 30",
            "0 0 1 1 * 0 2030",
            "  0   0 * *  * ",
        ] {
            assert_eq!(of_text(text), None, "{text:?}");
        }
        assert_eq!(of(ScheduleKind::None, "None"), None);
        assert_eq!(
            of(ScheduleKind::Interval, "datetime.timedelta(seconds=30)"),
            None
        );
    }

    #[test]
    fn what_breaks_in_airflow_is_said_with_the_field() {
        for (text, expected) in [
            ("", "has five fields"),
            ("daily", "this has 1"),
            ("@dayly", "presets are @once"),
            ("0 0 * *", "this has 4"),
            ("60 * * * *", "\"60\" is no minute (0 to 59)"),
            ("* 24 * * *", "\"24\" is no hour"),
            ("* * 0 * *", "no day of the month"),
            ("* * * 13 *", "no month (1 to 12, jan to dec)"),
            ("* * * * 8", "no day of the week"),
            ("* * * * fry", "no day of the week"),
            ("*/0 * * * *", "no minute"),
            ("1,,2 * * * *", "no minute"),
            ("1- * * * *", "no minute"),
            ("? * * * *", "no minute"),
            ("+1 * * * *", "no minute"),
            ("h * * * *", "no minute"),
            ("15w * * * *", "no minute"),
            ("it's", "has no quotes"),
        ] {
            let problem = of_text(text).unwrap_or_default();
            assert!(problem.contains(expected), "{text:?}: {problem}");
        }
        for literal in [
            "datetime.timedelta(0)",
            "datetime.timedelta(days=-1, seconds=86399)",
        ] {
            assert!(of(ScheduleKind::Interval, literal).is_some(), "{literal}");
        }
        assert!(of(ScheduleKind::Other, "5").is_some());
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[ -~\\t]{0,40}") {
            let _ = text_problem(&text);
        }
    }
}
