//! `forebay cache push`

use clap::Args;
use serde::Serialize;

use crate::artifacts::Build;
use crate::cli::arguments::{BuildArguments, DagArguments};
use crate::cli::caching::{Caching, describe, producer};
use crate::cli::context::Context;
use crate::cli::services::LazyServices;
use crate::ui::{CommandError, Exit, count};

use super::status::no_cache;

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
    let workspace = context.workspace()?;
    let (target, services) = LazyServices::of_build(&workspace, &arguments.build)?;
    let mut build_arguments = arguments.build.cache.clone();
    build_arguments.cache_write = true;
    let caching = Caching::new(
        &workspace,
        &target,
        &build_arguments,
        &arguments.build.authentication,
    )?;
    let cache = caching.cache().ok_or_else(no_cache)?;
    if !cache.writes() {
        return Err(
            CommandError::new(Exit::Usage, "the cache cannot be written").next(
                "give the signing key in $FOREBAY_CACHE_SIGNING_KEY_FILE; `forebay cache keygen FILE` makes one",
            ),
        );
    }
    let open = services.opener();
    let build = Build::new(&workspace, &target, &open)?;
    caching.expect(&build)?;
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
