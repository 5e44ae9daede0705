//! `forebay cache push`

use clap::Args;
use serde::Serialize;

use crate::cli::arguments::{BuildArguments, CacheArguments, DagArguments};
use crate::cli::caching::{describe, producer};
use crate::cli::context::Context;
use crate::ui::{CommandError, Exit, count};

use super::opening::Opening;

#[derive(Debug, Args)]
#[command(
    after_help = "Writes to the first cache of the list, and what is not built yet into this machine's store. build and deploy do this by themselves where a signing key is at hand. This command is for filling a cache on purpose, \
    and it fails where they only warn.\n\nExamples:\n  forebay cache push -c dev --cache gs://bucket/cache"
)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    build: BuildArguments,
    #[command(flatten)]
    dags: DagArguments,
}

/// What `--json` prints (`schema/cache-push.schema.json`).
#[derive(Debug, Serialize)]
struct Document {
    realisations: usize,
    entries: usize,
    objects: usize,
    bytes: u64,
    requests: u64,
}

pub(super) fn run(context: &Context, arguments: &Arguments) -> Result<Exit, CommandError> {
    let caches = CacheArguments {
        cache_write: true,
        ..arguments.build.cache.clone()
    };
    let opening = Opening::new(context, &arguments.build, &caches)?;
    let Opening {
        workspace,
        caching,
        cache,
        ..
    } = &opening;
    if !cache.writes() {
        return Err(
            CommandError::new(Exit::Usage, "the cache cannot be written").next(
                "give the signing key in $FOREBAY_CACHE_SIGNING_KEY_FILE; `forebay cache keygen FILE` makes one",
            ),
        );
    }
    let open = opening.services.opener();
    let build = opening.build(&open)?;
    context.block_on(caching.retry(async || {
        let image = build.image().await?;
        build
            .dag_files(&arguments.dags.options(), Some(image.digest()))
            .await?;
        Ok(())
    }))?;
    build.keep("everything")?;
    let report = cache.push(workspace.store(), &producer()).map_err(|error| {
        CommandError::from_error(Exit::Failed, &error)
            .next("look at the cache with `forebay cache status`, then run the command again; what was sent is not sent twice")
    })?;
    let document = Document {
        realisations: report.realisations,
        entries: report.entries,
        objects: report.objects,
        bytes: report.bytes,
        requests: cache.requests(),
    };
    context
        .printer
        .result(&document, || match report.is_unchanged() {
            true => format!(
                "{} in the cache already\n",
                count(report.realisations, "result")
            ),
            false => format!("{}\n", describe(&report)),
        })?;
    Ok(Exit::Done)
}
