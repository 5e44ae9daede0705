//! `forebay rollback`

use clap::Args;
use serde::Serialize;

use super::arguments::EnvironmentArguments;
use super::context::Context;
use super::outcome::Outcome;
use super::services::{Opened, Permissions};
use crate::ui::{CommandError, Exit};

#[derive(Debug, Args)]
#[command(
    after_help = "Nothing is rebuilt: the image must still be in the registry, and the DAG files in the bucket or the store. \
    Airflow's catch-up starts again where the restored DAGs stopped."
)]
pub(super) struct Arguments {
    /// The generation to return to [default: the one before what is live; after a rollback, further back]
    generation: Option<u64>,

    #[command(flatten)]
    environment: EnvironmentArguments,

    /// Write files of ours that somebody changed anew
    #[arg(long)]
    restore_drift: bool,
}

/// What `--json` prints (`schema/rollback.schema.json`).
#[derive(Debug, Serialize)]
struct Document {
    #[serde(flatten)]
    outcome: Outcome,
    rollback_of: Option<u64>,
}

pub(super) fn run(context: &Context, arguments: &Arguments) -> Result<Exit, CommandError> {
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
    let (applied, summary) = context.block_on(async {
        let (live, _) = environment.settle(environment.observe(None).await?).await?;
        let plan = environment
            .plan_rollback(live, arguments.generation)
            .await?;
        let summary = plan.summary.clone();
        let applied = environment.apply(plan).await?;
        Ok((applied, summary))
    })?;
    let document = Document {
        outcome: Outcome::new(&target, &applied, &summary),
        rollback_of: applied.rollback_of,
    };
    context.printer.result(&document, || {
        let restored = document.rollback_of.map_or_else(String::new, |of| {
            format!(", which restores generation {of}")
        });
        document.outcome.text(&restored)
    })?;
    Ok(Exit::Done)
}
