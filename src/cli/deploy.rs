//! `forebay deploy`, `forebay deploy-dags` and `forebay deploy-image`.

use clap::Args;

use super::arguments::{DeployArguments, DeployedDagArguments};
use super::context::Context;
use super::deployment::{Deployment, Part};
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
    let deployment = Deployment::open(&workspace, arguments)?;
    let environment = &deployment.environment;
    let outcome = context.block_on(deployment.caching.retry(async || {
        let plan = deployment.prepare(&workspace, part, true).await?;
        let summary = plan.summary.clone();
        let applied = environment.apply(plan).await?;
        if applied.changed {
            keep_newest_generations(workspace.store(), environment.key())
                .map_err(BuildError::from)?;
        }
        Ok(Outcome::new(&deployment.target, &applied, &summary))
    }))?;
    // What is live is not kept waiting for the cache.
    deployment.caching.finish();
    context.printer.result(&outcome, || outcome.text(""))?;
    Ok(Exit::Done)
}
