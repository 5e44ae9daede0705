//! `forebay logs`

use clap::Args;
use serde::Serialize;

use super::arguments::BuildArguments;
use super::context::Context;
use super::services::LazyServices;
use crate::artifacts::{Build, BuildError, DagOptions};
use crate::develop::{LogLinks, log_links};
use crate::ui::{CommandError, Exit};

#[derive(Debug, Args)]
#[command(
    after_help = "Writes nothing, and asks nobody: the links follow from the names.\n\nExamples:\n  forebay logs -c dev\n  forebay logs -c dev -w my_workflow"
)]
pub(super) struct Arguments {
    #[command(flatten)]
    build: BuildArguments,

    /// The Google Cloud project of the Composer [default: the environment's gcp_project_id]
    #[arg(short = 'p', long, value_name = "PROJECT")]
    gcp_project_id: Option<String>,

    /// This workflow alone
    #[arg(short, long, value_name = "ID")]
    workflow: Option<String>,
}

/// What `--json` prints (`schema/logs.schema.json`).
#[derive(Debug, Serialize)]
struct Document {
    environment: String,
    gcp_project_id: String,
    workflows: Vec<LogLinks>,
}

pub(super) fn run(context: &Context, arguments: &Arguments) -> Result<Exit, CommandError> {
    let workspace = context.workspace()?;
    let (target, services) = LazyServices::of_build(&workspace, &arguments.build)?;
    let gcp_project_id = match &arguments.gcp_project_id {
        Some(project) => project.clone(),
        None => target
            .text("gcp_project_id")
            .map_err(BuildError::from)?
            .ok_or_else(|| {
                CommandError::new(
                    Exit::Usage,
                    format!("environment {} has no gcp_project_id", target.environment),
                )
                .next("give --gcp-project-id, or add it to deployment_config.py")
            })?
            .to_owned(),
    };
    let open = services.opener();
    let build = Build::new(&workspace, &target, &open)?;
    let options = DagOptions {
        workflow: arguments.workflow.clone(),
        ..DagOptions::default()
    };
    let ids = context.block_on(async { Ok(build.workflow_ids(&options).await?) })?;
    let document = Document {
        environment: target.environment.to_string(),
        workflows: ids
            .iter()
            .map(|id| log_links(&gcp_project_id, id.as_str()))
            .collect(),
        gcp_project_id,
    };
    context.printer.verbatim(&document, || {
        document
            .workflows
            .iter()
            .map(|links| {
                format!(
                    "{}\n  jobs  {}\n  pods  {}\n",
                    links.workflow, links.jobs, links.pods
                )
            })
            .collect()
    })?;
    Ok(Exit::Done)
}
