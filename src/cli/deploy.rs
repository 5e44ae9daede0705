//! `forebay deploy`, `forebay deploy-dags` and `forebay deploy-image`.

use std::path::PathBuf;

use std::sync::Arc;

use clap::Args;

use super::arguments::{DeployArguments, DeployedDagArguments, ReplacingArguments};
use super::ask::{self, can_ask};
use super::caching::{Caching, Usage};
use super::context::Context;
use super::deployment::{Prepared, prepare};
use super::describe::describe_keys;
use super::outcome::Outcome;
use super::part::Part;
use super::place::Preparation;
use super::plan_file;
use super::saved_image::EarlierBuild;
use crate::artifacts::{BuildError, keep_newest_generations};
use crate::environment::{EnvironmentError, Plan, SavedPlan};
use crate::ui::{CommandError, Exit, count};

/// Where builds of BigFlow and Forebay leave DAG files.
const DAGS: &str = ".dags";

/// Flags of `deploy-dags`, and most of `deploy`.
#[derive(Debug, Args)]
#[command(
    after_help = "Writes DAG files and the record of the new generation into the bucket. The image must be in the registry.\n\nExamples:\n  forebay deploy-dags -c prod\n  forebay deploy-dags -c prod --dags-dir .dags"
)]
pub(super) struct WithDags {
    #[command(flatten)]
    deploy: DeployArguments,
    #[command(flatten)]
    dags: DeployedDagArguments,
}

/// Flags of `deploy`.
#[derive(Debug, Args)]
#[command(
    after_help = "Writes the image to the registry, DAG files and the record of the new generation to the bucket. What is live already is neither built nor sent again. The project's tests are not run: `forebay build` runs them.\n\nExamples:\n  forebay deploy -c dev\n  forebay plan -c prod --out plan.json    for others to look at, and then\n  forebay deploy --plan plan.json"
)]
pub(super) struct Everything {
    #[command(flatten)]
    with_dags: WithDags,

    /// Do what `forebay plan --out FILE` has planned, with the flags that it was given; refuse if anything has changed since
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["workflow", "start_time", "dag_format", "image_ref", "dags_dir", "restore_drift", "allow_older", "retire", "adopt", "no_adopt", "clear_dags_folder", "platform", "wheel"]
    )]
    plan: Option<PathBuf>,

    /// Deploy an image that was built and saved before, together with the DAG files in .dags or --dags-dir, and build nothing: .image/image-VERSION.tar, .image/imageinfo-VERSION.toml or oci:FOLDER[:VERSION]
    #[arg(short = 'i', long, value_name = "PATH", conflicts_with_all = ["plan", "start_time", "dag_format", "image_ref"])]
    image_tar_path: Option<PathBuf>,
}

/// Flags of `deploy-image`.
#[derive(Debug, Args)]
#[command(
    after_help = "Writes the image to the registry, and the record of the new generation to the bucket.\n\nExamples:\n  forebay deploy-image -c prod\n  forebay deploy-image -c prod -i .image/image-0.1.0.tar"
)]
pub(super) struct ImageAlone {
    #[command(flatten)]
    deploy: DeployArguments,

    /// Deploy an image that was built and saved before, and build nothing: .image/image-VERSION.tar as `docker save` writes it, .image/imageinfo-VERSION.toml, or oci:FOLDER[:VERSION]
    #[arg(short = 'i', long, value_name = "PATH")]
    image_tar_path: Option<PathBuf>,
}

pub(super) fn everything(context: &Context, arguments: &Everything) -> Result<Exit, CommandError> {
    let WithDags { deploy, dags } = &arguments.with_dags;
    match (&arguments.plan, &arguments.image_tar_path) {
        (None, None) => run(
            context,
            deploy,
            &Part::everything(dags),
            &dags.replacing,
            None,
        ),
        (None, Some(image)) => {
            let folder = dags.dags_dir.clone().unwrap_or_else(|| DAGS.into());
            let build = EarlierBuild {
                image,
                dags: Some((folder, &dags.dags)),
            };
            run(
                context,
                deploy,
                &Part::Earlier(build),
                &dags.replacing,
                None,
            )
        }
        (Some(path), _) => {
            let (plan, deploy, dags) = plan_file::read(path, deploy)?;
            let part = Part::everything(&dags);
            run(context, &deploy, &part, &dags.replacing, Some(&plan))
        }
    }
}

pub(super) fn dags(context: &Context, arguments: &WithDags) -> Result<Exit, CommandError> {
    run(
        context,
        &arguments.deploy,
        &Part::dags(&arguments.dags),
        &arguments.dags.replacing,
        None,
    )
}

pub(super) fn image(context: &Context, arguments: &ImageAlone) -> Result<Exit, CommandError> {
    let part = match &arguments.image_tar_path {
        None => Part::Image,
        Some(image) => Part::Earlier(EarlierBuild { image, dags: None }),
    };
    let nothing = ReplacingArguments::default();
    run(context, &arguments.deploy, &part, &nothing, None)
}

fn run(
    context: &Context,
    arguments: &DeployArguments,
    part: &Part<'_>,
    replacing: &ReplacingArguments,
    planned: Option<&SavedPlan>,
) -> Result<Exit, CommandError> {
    let workspace = context.workspace()?;
    let caching = Arc::new(Caching::default());
    let outcome = context.block_on(caching.retry(async || {
        let preparation = Preparation {
            caching: Arc::clone(&caching),
            // What another has left unfinished was not planned.
            settle: planned.is_none(),
            starts: planned.map(SavedPlan::starts).unwrap_or_default(),
            replacing: replacing.clone(),
            can_ask: can_ask(context.printer),
        };
        let Prepared {
            environment,
            target,
            mut plan,
            adoption,
        } = prepare(&workspace, arguments, part, preparation).await?;
        if let Some(planned) = planned {
            planned.refuse_other(&environment.saved(&plan))?;
        }
        if can_ask(context.printer) {
            ask_for_consent(&mut plan)?;
        }
        let summary = plan.summary.clone();
        let applied = environment.apply(plan).await?;
        if applied.changed {
            let key = environment.key();
            keep_newest_generations(workspace.store(), key).map_err(BuildError::from)?;
        }
        Ok(Outcome::new(&target, &applied, &summary).adopted(adoption.as_ref()))
    }))?;
    // What is live is not kept waiting for the cache.
    caching.finish(Usage::Builds);
    context.printer.result(&outcome, || outcome.text(""))?;
    Ok(Exit::Done)
}

/// Somebody at a terminal may agree to what would otherwise be refused.
fn ask_for_consent(plan: &mut Plan) -> Result<(), CommandError> {
    let mut obstacles = plan.obstacles().iter();
    let deleted = obstacles.find_map(|obstacle| match obstacle {
        EnvironmentError::Unconfirmed { keys, owners } => Some(describe_keys(keys, owners)),
        _ => None,
    });
    let Some(deleted) = deleted else {
        return Ok(());
    };
    let files = count(deleted.len(), "file");
    let mut lines = vec![format!("--clear-dags-folder deletes {files} of others:")];
    lines.extend(deleted.iter().map(|key| format!("  {key}")));
    ask::show(&lines);
    match ask::confirm("Delete them?", false) {
        true => plan.confirm(),
        false => {
            return Err(CommandError::new(
                Exit::Refused,
                format!("{files} of others would be deleted"),
            )
            .why("that was declined; nothing was changed")
            .next("deploy without --clear-dags-folder: they stay as they are"));
        }
    }
    Ok(())
}
