//! `forebay unlock`

use clap::Args;
use serde::Serialize;

use super::arguments::EnvironmentArguments;
use super::context::Context;
use super::opened::{Opened, Permissions};
use crate::environment::Unlocked;
use crate::ui::{CommandError, Exit};

/// End the hold of a deploy that was killed, before its lease runs out by itself.
///
/// Whoever deploys holds the environment with a lease that it renews; if it is killed, the
/// lease runs out, after a minute if $FOREBAY_LEASE_SECONDS says nothing else. Only the hold
/// on the generation that is named is ended. Be sure that its process is dead: one that
/// lives may still write files until it finds out.
#[derive(Debug, Args)]
#[command(
    after_help = "Writes into the bucket that the hold is over; no DAG file is touched. `forebay status` names the generation. Afterwards `forebay resume` carries it to its end, and `forebay abort` takes it back.\n\nExamples:\n  forebay unlock 42 -c prod"
)]
pub(super) struct Arguments {
    /// The generation that is being applied
    generation: u64,

    #[command(flatten)]
    environment: EnvironmentArguments,
}

/// What `--json` prints (`schema/unlock.schema.json`).
#[derive(Debug, Serialize)]
struct Document {
    environment: String,
    /// `free`, `expired` or `ended`.
    lease: &'static str,
    /// Whose it was.
    holder: Option<String>,
}

pub(super) fn run(context: &Context, arguments: &Arguments) -> Result<Exit, CommandError> {
    let workspace = context.workspace()?;
    let Opened {
        target,
        environment,
        ..
    } = Opened::new(&workspace, &arguments.environment, Permissions::default())?;
    let number = arguments.generation;
    let unlocked = context.block_on(async { Ok(environment.unlock(number).await?) })?;
    let (lease, holder) = match unlocked {
        Unlocked::Free => ("free", None),
        Unlocked::Expired { holder } => ("expired", Some(holder)),
        Unlocked::Ended { holder } => ("ended", Some(holder)),
    };
    let document = Document {
        environment: target.environment.to_string(),
        lease,
        holder,
    };
    context.printer.result(&document, || {
        let environment = &document.environment;
        let next = "`forebay resume` carries it to its end, `forebay abort` takes it back";
        match (&document.holder, document.lease) {
            (Some(holder), "ended") => format!(
                "{environment}: the hold of {holder} on generation {number} is ended; {next}\n"
            ),
            (Some(holder), _) => format!(
                "{environment}: the hold of {holder} on generation {number} had ended by itself; {next}\n"
            ),
            (None, _) => format!("{environment}: nobody holds it\n"),
        }
    })?;
    Ok(Exit::Done)
}
