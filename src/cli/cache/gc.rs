//! `forebay cache gc`

use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::bucket::BucketLocation;
use crate::cache::{CacheError, CacheLocation, CollectOptions};
use crate::cli::arguments::BuildArguments;
use crate::cli::caching::entries;
use crate::cli::context::Context;
use crate::ui::{CommandError, Exit, bytes, count};

use super::opening::Opening;

#[derive(Debug, Args)]
#[command(
    after_help = "Deletes, and writes notes of what it will delete. Works on the first cache of the list. Others may read and write meanwhile. What is found unneeded is noted first, and deleted by \
    a collection that runs after the grace period; whoever needs it in between writes it again. Run it from time to time, for example every night.\n\nExamples:\n  forebay cache gc --cache gs://bucket/cache"
)]
pub(in crate::cli) struct Arguments {
    /// Keep what was written in the last DAYS
    #[arg(long, value_name = "DAYS", default_value_t = 30)]
    keep_days: u32,

    /// Delete what was found unneeded HOURS ago
    #[arg(long, value_name = "HOURS", default_value_t = 24)]
    grace_hours: u32,

    /// Only say what would be deleted
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    build: BuildArguments,
}

/// What `--json` prints (`schema/cache-gc.schema.json`).
#[derive(Debug, Serialize)]
struct Document {
    entries: usize,
    deleted: Vec<String>,
    deleted_bytes: u64,
    condemned: Vec<String>,
    condemned_bytes: u64,
    revived: usize,
    busy: bool,
    dry_run: bool,
}

pub(super) fn run(context: &Context, arguments: &Arguments) -> Result<Exit, CommandError> {
    let cache = Opening::new(context, &arguments.build, &arguments.build.cache)?.cache;
    let hours = |hours: u32| Duration::from_secs(u64::from(hours) * 3600);
    let options = CollectOptions {
        keep: hours(arguments.keep_days.saturating_mul(24)),
        grace: hours(arguments.grace_hours),
        dry_run: arguments.dry_run,
    };
    let report = cache.collect(&options).map_err(|error| match &error {
        CacheError::Unconditional(location) => {
            CommandError::from_error(Exit::Refused, &error).next(instead(location))
        }
        _ => CommandError::from_error(Exit::Failed, &error)
            .next("run the command again; it goes on where it stopped"),
    })?;
    let document = Document {
        entries: report.entries,
        deleted: report.deleted,
        deleted_bytes: report.deleted_bytes,
        condemned: report.condemned,
        condemned_bytes: report.condemned_bytes,
        revived: report.revived,
        busy: report.is_busy,
        dry_run: arguments.dry_run,
    };
    context.printer.result(&document, || text(&document))?;
    Ok(Exit::Done)
}

/// How a cache that cannot be collected is kept small.
fn instead(location: &CacheLocation) -> &'static str {
    match location.bucket {
        BucketLocation::S3 { .. } => {
            "this service ignores the condition of a delete (If-Match): give the bucket a lifecycle rule that expires what is below forebay-cache/ after some weeks: what is missing is built and brought again"
        }
        _ => {
            "use a server that can (Nextcloud, wsgidav), or delete the folder forebay-cache with the server's own means while nothing runs: what is missing is built and brought again"
        }
    }
}

fn text(document: &Document) -> String {
    let (deleted, condemned) = match document.dry_run {
        true => ("would be deleted", "would be noted for a later collection"),
        false => ("deleted", "noted for a later collection"),
    };
    let mut text = match document.entries {
        1 => "1 entry stays\n".to_owned(),
        number => format!("{} stay\n", entries(number)),
    };
    for (keys, size, what) in [
        (&document.deleted, document.deleted_bytes, deleted),
        (&document.condemned, document.condemned_bytes, condemned),
    ] {
        if !keys.is_empty() {
            let keys = count(keys.len(), "object");
            text.push_str(&format!("{keys} {what} ({})\n", bytes(size)));
        }
    }
    if document.deleted.is_empty() && document.condemned.is_empty() {
        text.push_str("there is nothing to delete\n");
    }
    if document.busy {
        text.push_str("another collection works on this cache\n");
    }
    text
}
