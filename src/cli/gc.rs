//! `forebay gc`

use std::time::Duration;

use clap::Args;
use forebay_store::{CollectOptions, CollectReport, CollectedObject, ObjectDigest, RecipeKey};
use serde::Serialize;

use super::arguments::EnvironmentArguments;
use super::context::Context;
use super::gc_environment;
use crate::ui::{CommandError, Exit, bytes, count, counts};

/// Delete from this machine's store what nobody needs.
///
/// Needed is what a root names (the last build of each project and environment, its
/// recent generations, what you pinned) and what running forebay processes use.
/// All else is first condemned, and deleted by a later `gc` once the grace period
/// is over; whatever uses it in between revives it. Nothing in registries or
/// buckets is touched, and what is deleted here can be built or fetched again.
///
/// With --environment it is an environment that is pruned, not the store: of the generations
/// that were deployed longest ago the records, the images' retention tags, and the kept
/// bytes of DAG files. What is live always stays, and so does all that the project's other
/// environments need.
#[derive(Debug, Args)]
#[command(
    after_help = "Deletes only; see above what.\n\nExamples:\n  forebay gc --dry-run               what would be deleted now\n  forebay gc                         what was condemned a day ago\n  forebay gc --max-size 20GB         old results too\n  forebay gc --environment -c prod   all but ten generations"
)]
pub(super) struct Arguments {
    /// Print exactly what would be deleted, and change nothing
    #[arg(long)]
    dry_run: bool,

    /// Keep unneeded results, the newest first, while all objects have no more than SIZE: 500MB, 20GB, 8GiB
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    max_size: Option<u64>,

    /// How long an object must have been condemned before it is deleted: 0, 30m, 24h, 7d
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = parse_duration)]
    grace: Duration,

    /// Prune the environment of -c instead of this machine's store
    #[arg(long, conflicts_with = "max_size")]
    environment: bool,

    /// With --environment: keep this many generations, those that were deployed last
    #[arg(long, value_name = "NUMBER", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    keep: u32,

    #[command(flatten)]
    target: EnvironmentArguments,
}

/// What `--json` prints (`schema/gc.schema.json`).
#[derive(Debug, Serialize)]
struct Document {
    dry_run: bool,
    deleted: Vec<ObjectDocument>,
    realisations: Vec<RecipeKey>,
    orphans: Vec<String>,
    packs: usize,
    freed: u64,
    waiting: usize,
    waiting_bytes: u64,
    kept: usize,
    kept_bytes: u64,
}

#[derive(Debug, Serialize)]
struct ObjectDocument {
    digest: ObjectDigest,
    size: u64,
}

pub(super) fn run(context: &Context, arguments: &Arguments) -> Result<Exit, CommandError> {
    let Arguments {
        dry_run,
        grace,
        keep,
        target,
        ..
    } = arguments;
    if arguments.environment {
        return gc_environment::run(context, target, *keep, *grace, *dry_run);
    }
    if let Some(environment) = &target.config.config {
        return Err(CommandError::new(
            Exit::Usage,
            "gc collects this machine's store, which belongs to no environment",
        )
        .next(format!(
            "add --environment to prune {environment}, or leave -c away"
        )));
    }
    let options = CollectOptions {
        dry_run: arguments.dry_run,
        grace: arguments.grace,
        max_size: arguments.max_size,
    };
    let document = document(context.store()?.collect(&options)?, arguments.dry_run);
    context.printer.result(&document, || text(&document))?;
    Ok(Exit::Done)
}

fn document(report: CollectReport, dry_run: bool) -> Document {
    let object = |CollectedObject { digest, size }| ObjectDocument { digest, size };
    Document {
        dry_run,
        deleted: report.deleted.into_iter().map(object).collect(),
        realisations: report.realisations,
        orphans: report
            .orphans
            .iter()
            .map(|path| path.display().to_string())
            .collect(),
        packs: report.packs,
        freed: report.freed,
        waiting: report.waiting,
        waiting_bytes: report.waiting_bytes,
        kept: report.kept,
        kept_bytes: report.kept_bytes,
    }
}

fn text(document: &Document) -> String {
    let mut text = String::new();
    let verb = match document.dry_run {
        true => "would delete",
        false => "deleted",
    };
    if document.dry_run {
        for object in &document.deleted {
            text.push_str(&format!("{}  {:>10}\n", object.digest, bytes(object.size)));
        }
        for key in &document.realisations {
            text.push_str(&format!("recipe {key}\n"));
        }
        for path in &document.orphans {
            text.push_str(&format!("orphan {path}\n"));
        }
    }
    let parts = [
        (document.deleted.len(), "object"),
        (document.realisations.len(), "remembered result"),
        (document.orphans.len(), "orphaned file"),
    ];
    match counts(&parts) {
        None => text.push_str("there is nothing to delete\n"),
        Some(parts) => {
            text.push_str(&format!("{verb} {parts} ({})\n", bytes(document.freed)));
        }
    }
    if document.waiting > 0 {
        text.push_str(&format!(
            "{} that nobody needs ({}) stay until their grace period is over, or a fifth of their pack is dead\n",
            count(document.waiting, "object"),
            bytes(document.waiting_bytes)
        ));
    }
    text.push_str(&format!(
        "kept {}, {}\n",
        count(document.kept, "object"),
        bytes(document.kept_bytes)
    ));
    text
}

/// `500MB`, `8GiB`, `1234`: in bytes.
fn parse_size(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 9] = [
        ("KIB", 1 << 10),
        ("MIB", 1 << 20),
        ("GIB", 1 << 30),
        ("TIB", 1 << 40),
        ("KB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("TB", 1_000_000_000_000),
        ("B", 1),
    ];
    let upper = text.trim().to_ascii_uppercase();
    let (number, unit) = UNITS
        .iter()
        .find_map(|(suffix, unit)| Some((upper.strip_suffix(suffix)?, *unit)))
        .unwrap_or((&upper, 1));
    number
        .trim()
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(unit))
        .ok_or_else(|| "write a number and a unit: 500MB, 20GB, 8GiB".to_owned())
}

/// `0`, `30m`, `24h`, `7d`; a number alone is seconds.
fn parse_duration(text: &str) -> Result<Duration, String> {
    const UNITS: [(char, u64); 4] = [('s', 1), ('m', 60), ('h', 3_600), ('d', 86_400)];
    let (number, unit) = UNITS
        .iter()
        .find_map(|(suffix, unit)| Some((text.strip_suffix(*suffix)?, *unit)))
        .unwrap_or((text, 1));
    number
        .trim()
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(unit))
        .map(Duration::from_secs)
        .ok_or_else(|| "write a number and a unit: 30m, 24h, 7d".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_read() {
        assert_eq!(parse_size("1234"), Ok(1234));
        assert_eq!(parse_size("20GB"), Ok(20_000_000_000));
        assert_eq!(parse_size("8 GiB"), Ok(8 << 30));
        assert_eq!(parse_duration("0"), Ok(Duration::ZERO));
        assert_eq!(parse_duration("7d"), Ok(Duration::from_secs(604_800)));
        for bad in ["", "GB", "-1", "1.5GB", "99999999999TB"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
        assert!(parse_duration("soon").is_err());
    }
}
