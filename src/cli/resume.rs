//! `forebay resume` and `forebay abort`: end what a deploy left unfinished.

use clap::Args;
use serde::Serialize;

use super::arguments::{CacheArguments, EnvironmentArguments};
use super::caching::{Caching, Usage};
use super::context::Context;
use super::opened::{Opened, Permissions};
use crate::environment::Direction;
use crate::ui::{CommandError, Exit};

#[derive(Debug, Args)]
#[command(
    after_help = "Writes into the bucket what the interrupted deploy, or the live generation, has recorded. Nothing is built.\n\nExamples:\n  forebay status -c prod     what was left unfinished\n  forebay resume -c prod     carries it to its end\n  forebay abort -c prod      takes it back"
)]
pub(super) struct Arguments {
    #[command(flatten)]
    environment: EnvironmentArguments,

    #[command(flatten)]
    cache: CacheArguments,

    /// Write files of ours that somebody changed anew
    #[arg(long)]
    restore_drift: bool,
}

/// What `--json` prints (`schema/resume.schema.json`).
#[derive(Debug, Serialize)]
struct Document {
    environment: String,
    /// The generation that was unfinished; null if there was none.
    generation: Option<u64>,
    /// Whether it is live now.
    live: bool,
}

/// Carries an unfinished deploy to its end, or back.
pub(super) fn run(
    context: &Context,
    arguments: &Arguments,
    direction: Direction,
) -> Result<Exit, CommandError> {
    let workspace = context.workspace()?;
    let permissions = Permissions {
        restore_drift: arguments.restore_drift,
        ..Permissions::default()
    };
    let Opened {
        target,
        environment,
        ..
    } = Opened::new(&workspace, &arguments.environment, permissions)?;
    let caching = Caching::new(
        &workspace,
        &target,
        &arguments.cache,
        &arguments.environment.authentication,
    )?;
    let settled = context.block_on(caching.retry(async || {
        Ok(match direction {
            Direction::Forward => environment.resume().await?,
            Direction::Back => environment.abort().await?,
        })
    }))?;
    caching.finish(Usage::Reads);
    let document = Document {
        environment: target.environment.to_string(),
        generation: settled.map(|settled| settled.generation),
        live: settled.is_some_and(|settled| settled.direction == Direction::Forward),
    };
    context.printer.result(&document, || {
        let environment = &document.environment;
        match (document.generation, document.live) {
            (None, _) => format!("{environment}: nothing was left unfinished\n"),
            (Some(number), true) => format!("{environment}: generation {number} is live now\n"),
            (Some(number), false) => {
                format!("{environment}: generation {number} was taken back\n")
            }
        }
    })?;
    Ok(Exit::Done)
}
