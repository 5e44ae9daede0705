//! `forebay cache pull`

use clap::Args;
use serde::Serialize;

use crate::cli::arguments::BuildArguments;
use crate::cli::caching::Usage;
use crate::cli::context::Context;
use crate::ui::{CommandError, Exit, count};

use super::opening::Opening;

#[derive(Debug, Args)]
#[command(
    after_help = "Writes into this machine's store. build and deploy take what they need by themselves, and only that. This command takes all of it, \
    for example before going where there is no network.\n\nExamples:\n  forebay cache pull -c dev --cache gs://bucket/cache"
)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    build: BuildArguments,
}

/// What `--json` prints (`schema/cache-pull.schema.json`).
#[derive(Debug, Serialize)]
struct Document {
    /// Whether the cache has a build of these sources.
    found: bool,
    /// Objects that were brought.
    objects: u64,
    requests: u64,
}

pub(super) fn run(context: &Context, arguments: &Arguments) -> Result<Exit, CommandError> {
    let opening = Opening::new(context, &arguments.build, &arguments.build.cache)?;
    let Opening {
        workspace, cache, ..
    } = &opening;
    let open = opening.services.opener();
    let build = opening.build(&open)?;
    let found = cache.pull(workspace.store())?;
    build.keep("everything")?;
    opening.caching.finish(Usage::Builds);
    let document = Document {
        found,
        objects: cache.brought(),
        requests: cache.requests(),
    };
    context.printer.result(&document, || match found {
        true if document.objects == 0 => {
            "this machine has everything of this build already\n".to_owned()
        }
        true => format!(
            "{} taken\n",
            count(
                usize::try_from(document.objects).unwrap_or_default(),
                "object"
            )
        ),
        false => "the cache has no build of these sources\n".to_owned(),
    })?;
    Ok(Exit::Done)
}
