//! How the program talks to people: results on standard output, progress and
//! errors on standard error.

mod colour;
mod error;
mod log;
mod printer;
mod progress;
mod table;
mod wrap;

pub use colour::Colour;
pub use error::{CommandError, Exit, in_environment};
pub use log::{LogFormat, show_details};
pub use printer::{Printer, Verbosity, error_width, fit_to_errors};
pub use progress::TerminalProgress;
pub use table::Table;
pub use wrap::wrap_after;

/// A number of bytes as people read it: `3.1 MB`. Powers of ten, as registries and disks count.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if count < 1000 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// `1 file`, `2 files`.
pub fn count(number: usize, thing: &str) -> String {
    if number == 1 {
        format!("1 {thing}")
    } else {
        format!("{number} {thing}s")
    }
}

/// `1 file, 2 tags`, without what there is none of; `None` if there is nothing at all.
pub fn counts(parts: &[(usize, &str)]) -> Option<String> {
    let some = parts.iter().filter(|(number, _)| *number > 0);
    let some: Vec<_> = some.map(|(number, thing)| count(*number, thing)).collect();
    (!some.is_empty()).then(|| some.join(", "))
}

/// The known name that somebody most likely meant.
pub fn closest<'a>(given: &str, known: &'a [String]) -> Option<&'a str> {
    let likeness = |name: &String| strsim::jaro_winkler(given, name);
    let best = known
        .iter()
        .max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(best) > 0.7).then_some(best.as_str())
}

/// A digest short enough for a table, long enough to be found again.
pub fn short(digest: &forebay_store::Sha256Digest) -> String {
    let mut text = digest.to_string();
    text.truncate("sha256:".len() + 12);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_understood() {
        let known = ["dev", "test", "prod"].map(str::to_owned);
        assert_eq!(closest("prdo", &known), Some("prod"));
        assert_eq!(closest("staging", &known), None);
        assert_eq!(closest("dev", &[]), None);
    }

    #[test]
    fn bytes_are_written_with_one_decimal() {
        let cases = [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.0 kB"),
            (999_949, "999.9 kB"),
            (999_950, "1.0 MB"),
            (3_100_000, "3.1 MB"),
            (u64::MAX, "18446744.1 TB"),
        ];
        for (number, text) in cases {
            assert_eq!(bytes(number), text);
        }
    }
}
