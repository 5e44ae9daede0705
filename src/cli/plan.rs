//! `forebay plan`

use std::fmt::Write as _;

use clap::Args;
use serde::Serialize;

use super::arguments::{DeployArguments, DeployedDagArguments};
use super::context::Context;
use super::deployment::{Deployment, Part};
use super::describe::DriftDocument;
use crate::artifacts::Target;
use crate::environment::Plan;
use crate::oci::Sha256Digest;
use crate::project::WorkflowId;
use crate::ui::{CommandError, Exit, count};

#[derive(Debug, Args)]
#[command(
    after_help = "Artifacts that are not built yet are built into the local store; nothing is sent."
)]
pub(super) struct Arguments {
    #[command(flatten)]
    deploy: DeployArguments,
    #[command(flatten)]
    dags: DeployedDagArguments,

    /// Exit with 3 if a deploy would change anything
    #[arg(long)]
    exit_code: bool,
}

/// What `--json` prints (`schema/plan.schema.json`).
#[derive(Debug, Serialize)]
struct Document {
    environment: String,
    /// What is live; null if nothing was deployed yet.
    generation: Option<u64>,
    /// Whether a deploy would write anything.
    changes: bool,
    /// The image that would be live; null if it is live already.
    new_image: Option<Sha256Digest>,
    added: Vec<String>,
    replaced: Vec<String>,
    retired: Vec<String>,
    reused: Vec<String>,
    restored: Vec<DriftDocument>,
    /// How many files in dags/ belong to others and stay as they are.
    foreign: usize,
}

pub(super) fn run(context: &Context, arguments: &Arguments) -> Result<Exit, CommandError> {
    let workspace = context.workspace()?;
    let part = Part::everything(&arguments.dags);
    let deployment = Deployment::open(&workspace, &arguments.deploy)?;
    let caching = &deployment.caching;
    let plan = context
        .block_on(caching.retry(async || deployment.prepare(&workspace, &part, false).await))?;
    caching.finish();
    let document = document(&deployment.target, &plan);
    context.printer.result(&document, || text(&document))?;
    let changes = arguments.exit_code && document.changes;
    Ok(if changes { Exit::Changes } else { Exit::Done })
}

fn document(target: &Target, plan: &Plan) -> Document {
    let names = |ids: &[WorkflowId]| ids.iter().map(ToString::to_string).collect();
    let summary = &plan.summary;
    let live = plan.live().generation();
    Document {
        environment: target.environment.to_string(),
        generation: live.map(|live| live.reference.generation),
        changes: !plan.is_unchanged(),
        new_image: summary.new_image,
        added: names(&summary.added),
        replaced: names(&summary.changed),
        retired: names(&summary.retired),
        reused: names(&summary.reused),
        restored: summary.restored.iter().map(DriftDocument::from).collect(),
        foreign: summary.foreign,
    }
}

fn text(document: &Document) -> String {
    let mut text = String::new();
    let environment = &document.environment;
    let live = match document.generation {
        Some(number) => format!("generation {number} is live"),
        None => "nothing was deployed yet".to_owned(),
    };
    if !document.changes {
        let _ = writeln!(
            text,
            "{environment}: {live}, and a deploy would change nothing"
        );
        return text;
    }
    let _ = writeln!(text, "{environment}: {live}; a deploy would");
    if let Some(image) = &document.new_image {
        let _ = writeln!(text, "  image    {image}");
    }
    for (what, workflows) in [
        ("add", &document.added),
        ("replace", &document.replaced),
        ("delete", &document.retired),
    ] {
        for workflow in workflows {
            let _ = writeln!(text, "  {what:<8} {workflow}");
        }
    }
    for drift in &document.restored {
        let _ = writeln!(text, "  restore  {drift}");
    }
    if !document.reused.is_empty() {
        let _ = writeln!(text, "  leave    {}", count(document.reused.len(), "DAG"));
    }
    if document.foreign > 0 {
        let _ = writeln!(
            text,
            "{} in dags/ belong to others and stay",
            count(document.foreign, "file")
        );
    }
    text
}
