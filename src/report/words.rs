//! How the page says things.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::model::Generation;
use crate::environment::Action;

/// `2026-01-31`, in UTC: a page reads the same wherever it was written.
pub(super) fn date(moment: Timestamp) -> Date {
    moment.to_zoned(TimeZone::UTC).date()
}

/// `08:15`, in UTC.
pub(super) fn clock(moment: Timestamp) -> String {
    let moment = moment.to_zoned(TimeZone::UTC);
    moment.strftime("%H:%M").to_string()
}

/// What brought a generation about.
pub(super) fn action(generation: &Generation) -> String {
    match (generation.action, generation.rollback_of) {
        (Action::Rollback, Some(target)) => format!("back to {target}"),
        (Action::Rollback, None) => "rollback".to_owned(),
        (Action::Deploy, _) => "deploy".to_owned(),
        (Action::DeployImage, _) => "image alone".to_owned(),
        (Action::DeployDags, _) => "DAG files alone".to_owned(),
        (Action::Adopt, _) => "taken over from BigFlow".to_owned(),
    }
}

/// As much of a digest or a commit as tells it from others.
pub(super) fn short(digest: &str) -> &str {
    let start = digest.strip_prefix("sha256:").unwrap_or(digest);
    start.get(..12).unwrap_or(start)
}

/// `97 %`; never 100 while something is missing, never 0 while something is there.
pub(super) fn share(part: u64, whole: u64) -> String {
    match (part, whole) {
        (_, 0) => "0 %".to_owned(),
        (part, whole) if part == whole => "100 %".to_owned(),
        (0, _) => "0 %".to_owned(),
        (part, whole) => {
            let share = u128::from(part) * 100 / u128::from(whole);
            format!("{} %", share.clamp(1, 99))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_whole_only_if_nothing_is_missing() {
        let cases = [(0, 0), (0, 9), (1, 1000), (999, 1000), (9, 9)];
        let shares = cases.map(|(part, whole)| share(part, whole));
        assert_eq!(shares, ["0 %", "0 %", "1 %", "99 %", "100 %"]);
    }
}
