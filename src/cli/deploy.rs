//! `forebay deploy`, `forebay deploy-dags` and `forebay deploy-image`.

use clap::Args;

use super::arguments::{DeployArguments, DeployedDagArguments};
use super::context::Context;
use super::deployment::{Part, prepare};
use super::outcome::Outcome;
use crate::artifacts::{BuildError, keep_newest_generations};
use crate::ui::{CommandError, Exit};

/// Flags of `deploy` and `deploy-dags`.
#[derive(Debug, Args)]
pub(super) struct WithDags {
    #[command(flatten)]
    deploy: DeployArguments,
    #[command(flatten)]
    dags: DeployedDagArguments,
}

/// Flags of `deploy-image`.
#[derive(Debug, Args)]
pub(super) struct ImageAlone {
    #[command(flatten)]
    deploy: DeployArguments,
}

pub(super) fn everything(context: &Context, arguments: &WithDags) -> Result<Exit, CommandError> {
    run(
        context,
        &arguments.deploy,
        &Part::everything(&arguments.dags),
    )
}

pub(super) fn dags(context: &Context, arguments: &WithDags) -> Result<Exit, CommandError> {
    run(context, &arguments.deploy, &Part::dags(&arguments.dags))
}

pub(super) fn image(context: &Context, arguments: &ImageAlone) -> Result<Exit, CommandError> {
    run(context, &arguments.deploy, &Part::Image)
}

fn run(
    context: &Context,
    arguments: &DeployArguments,
    part: &Part<'_>,
) -> Result<Exit, CommandError> {
    let workspace = context.workspace()?;
    let outcome = context.block_on(async {
        let prepared = prepare(&workspace, arguments, part, true).await?;
        let summary = prepared.plan.summary.clone();
        let applied = prepared.environment.apply(prepared.plan).await?;
        if applied.changed {
            let key = prepared.environment.key();
            keep_newest_generations(workspace.store(), key).map_err(BuildError::from)?;
        }
        Ok(Outcome::new(&prepared.target, &applied, &summary))
    })?;
    context.printer.result(&outcome, || outcome.text(""))?;
    Ok(Exit::Done)
}
