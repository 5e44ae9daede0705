//! How often a schedule comes up: to tell what Airflow's catch-up would start.
//! Cron expressions are read as far as they are plain; of others nothing is said.

use jiff::civil::DateTime;
use jiff::{SignedDuration, ToSpan as _};

/// Beyond this many minutes (two years) nobody counts.
const LONGEST: i64 = 2 * 366 * 24 * 60;

const MONTHS: [&str; 12] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// How many runs a schedule, in Python, has after `from` and not after `to`.
pub(super) fn runs_between(schedule: &str, from: DateTime, to: DateTime) -> Option<u64> {
    let between = to.duration_since(from);
    if between.is_negative() {
        return Some(0);
    }
    if schedule == "None" {
        return Some(0);
    }
    if let Some(interval) = interval(schedule) {
        return u64::try_from(between.as_secs().checked_div(interval)?).ok();
    }
    let text = schedule
        .strip_prefix('\'')
        .and_then(|text| text.strip_suffix('\''))?
        .to_ascii_lowercase();
    let cron = match text.as_str() {
        "@once" => return Some(0),
        "@hourly" => "0 * * * *",
        "@daily" | "@midnight" => "0 0 * * *",
        "@weekly" => "0 0 * * 0",
        "@monthly" => "0 0 1 * *",
        "@quarterly" => "0 0 1 */3 *",
        "@yearly" | "@annually" => "0 0 1 1 *",
        text => text,
    };
    let cron = Cron::read(cron)?;
    if between > SignedDuration::from_mins(LONGEST) {
        return None;
    }
    let mut minute = from.date().at(from.hour(), from.minute(), 0, 0);
    let mut runs = 0;
    loop {
        minute = minute.checked_add(1.minute()).ok()?;
        if minute > to {
            return Some(runs);
        }
        runs += u64::from(cron.has(minute));
    }
}

/// `datetime.timedelta(days=1, seconds=30)`, in seconds.
fn interval(schedule: &str) -> Option<i64> {
    let arguments = schedule
        .strip_prefix("datetime.timedelta(")?
        .strip_suffix(')')?;
    let seconds = arguments.split(',').map(|argument| {
        let (unit, number) = argument.trim().split_once('=')?;
        let number: i64 = number.parse().ok()?;
        match unit {
            "days" => number.checked_mul(86_400),
            "seconds" => Some(number),
            "microseconds" => Some(0),
            _ => None,
        }
    });
    let seconds = seconds.sum::<Option<i64>>()?;
    (seconds > 0).then_some(seconds)
}

/// The five fields of cron, each as the set of its numbers.
struct Cron {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Where both days are limited, either is enough.
    either_day: bool,
}

impl Cron {
    fn read(text: &str) -> Option<Self> {
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields.as_slice() else {
            return None;
        };
        let sevens = field(weekdays, 0, 7, &DAYS)?;
        Some(Self {
            minutes: field(minutes, 0, 59, &[])?,
            hours: field(hours, 0, 23, &[])?,
            days: field(days, 1, 31, &[])?,
            months: field(months, 1, 12, &MONTHS)?,
            // Seven is Sunday too.
            weekdays: (sevens | (sevens >> 7)) & 0x7f,
            either_day: !days.starts_with('*') && !weekdays.starts_with('*'),
        })
    }

    fn has(&self, time: DateTime) -> bool {
        let has = |set: u64, number: i8| u32::try_from(number).is_ok_and(|n| set >> n & 1 == 1);
        let day = has(self.days, time.day());
        let weekday = has(self.weekdays, time.weekday().to_sunday_zero_offset());
        has(self.minutes, time.minute())
            && has(self.hours, time.hour())
            && has(self.months, time.month())
            && match self.either_day {
                true => day || weekday,
                false => day && weekday,
            }
    }
}

fn field(text: &str, lowest: u32, highest: u32, names: &[&str]) -> Option<u64> {
    let number = |text: &str| -> Option<u32> {
        let named = names.iter().position(|name| *name == text);
        let number = match named {
            Some(position) => u32::try_from(position).ok()? + lowest,
            None => text.parse().ok()?,
        };
        (lowest..=highest).contains(&number).then_some(number)
    };
    let mut set = 0;
    for part in text.split(',') {
        let (span, step) = match part.split_once('/') {
            Some((span, step)) => (span, step.parse().ok().filter(|step| *step > 0)?),
            None => (part, 1),
        };
        let (first, last) = match span.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None if span == "*" => (lowest, highest),
            // `5/15` counts on to the end.
            None if part.contains('/') => (number(span)?, highest),
            None => (number(span)?, number(span)?),
        };
        if first > last {
            return None;
        }
        for value in (first..=last).step_by(step) {
            set |= 1_u64 << value;
        }
    }
    Some(set)
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    #[test]
    fn runs_are_counted() {
        let from = date(2026, 1, 1).at(10, 0, 0, 0);
        let to = date(2026, 1, 15).at(10, 30, 0, 0);
        for (schedule, runs) in [
            ("'@daily'", Some(14)),
            ("'@hourly'", Some(14 * 24)),
            ("'@weekly'", Some(2)),
            ("'@monthly'", Some(0)),
            ("'@once'", Some(0)),
            ("None", Some(0)),
            ("'*/15 * * * *'", Some(14 * 96 + 2)),
            ("'0 6 * * mon-fri'", Some(10)),
            ("'0 6 2,20 * 7'", Some(3)),
            ("'30 10 * jan *'", Some(15)),
            ("'5/20 3 * * *'", Some(14 * 3)),
            ("datetime.timedelta(days=1, seconds=43200)", Some(9)),
            ("datetime.timedelta(0)", None),
            ("'0 0 l * *'", None),
            ("'0 0 * * fri#2'", None),
            ("timetable()", None),
        ] {
            assert_eq!(runs_between(schedule, from, to), runs, "{schedule}");
        }
        assert_eq!(runs_between("'@daily'", to, from), Some(0));
        let far = date(2036, 1, 1).at(0, 0, 0, 0);
        assert_eq!(runs_between("'@daily'", from, far), None);
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[ -~]{0,30}") {
            let from = date(2026, 1, 1).at(0, 0, 0, 0);
            let to = date(2026, 1, 1).at(1, 0, 0, 0);
            let _ = runs_between(&text, from, to);
            let _ = runs_between(&format!("'{text}'"), from, to);
            let _ = runs_between(&format!("datetime.timedelta({text})"), from, to);
        }
    }
}
