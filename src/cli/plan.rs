//! `forebay plan`

use std::fmt::Write as _;
use std::path::PathBuf;

use std::sync::Arc;

use clap::Args;
use serde::Serialize;

use super::adoption::adopted_keys;
use super::arguments::{DeployArguments, DeployedDagArguments};
use super::caching::{Caching, Usage};
use super::context::Context;
use super::deployment::{Prepared, prepare};
use super::describe::DriftDocument;
use super::part::Part;
use super::place::Preparation;
use super::plan_file;
use crate::oci::Sha256Digest;
use crate::project::WorkflowId;
use crate::registry::PushForecast;
use crate::ui::{Colour, CommandError, Exit, bytes, count};

#[derive(Debug, Args)]
#[command(
    after_help = "Writes nothing but what is not built yet into this machine's store, and the plan into the file of --out; nothing is sent. What a deploy would refuse is shown too, with the reason and with exit status 6; or, with --exit-code alone, with 3 as any other change.\n\nExamples:\n  forebay plan -c prod\n  forebay plan -c prod --exit-code        3 if a deploy would change anything\n  forebay plan -c prod --out plan.json"
)]
pub(super) struct Arguments {
    #[command(flatten)]
    deploy: DeployArguments,
    #[command(flatten)]
    dags: DeployedDagArguments,

    /// Write the plan to FILE, for `forebay deploy --plan FILE`; a plan that would be refused is not written
    #[arg(long, value_name = "FILE", conflicts_with_all = ["adopt", "clear_dags_folder", "retire"])]
    out: Option<PathBuf>,

    /// Exit with 3 if a deploy would change anything, or if somebody has changed its files
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
    /// What would be sent to the registry; null if no image is pushed.
    push: Option<PushDocument>,
    added: Vec<String>,
    replaced: Vec<String>,
    retired: Vec<String>,
    reused: Vec<String>,
    restored: Vec<DriftDocument>,
    /// How many files would be written to dags/.
    uploads: usize,
    /// The bytes of those.
    upload_bytes: u64,
    /// How many files would be deleted from dags/.
    deletes: usize,
    /// Workflows of which a file that leaves would be given an end.
    draining: Vec<String>,
    /// Files of others that would be deleted or replaced.
    cleared: Vec<String>,
    /// Files that BigFlow has left and that would be recorded as a generation first.
    adopted: Vec<String>,
    /// How many files in dags/ belong to others and stay as they are.
    foreign: usize,
    /// Why a deploy would be refused.
    obstacles: Vec<Obstacle>,
}

/// What the registry would get.
#[derive(Debug, Serialize)]
struct PushDocument {
    layers_sent: usize,
    layers_mounted: usize,
    layers_present: usize,
    /// Layers and configuration.
    bytes: u64,
}

/// A refusal, as the failed deploy would show it.
#[derive(Debug)]
struct Obstacle(CommandError);

impl Serialize for Obstacle {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.to_json().get("error") {
            Some(error) => error.serialize(serializer),
            None => serializer.serialize_none(),
        }
    }
}

pub(super) fn run(context: &Context, arguments: &Arguments) -> Result<Exit, CommandError> {
    let workspace = context.workspace()?;
    let Arguments { deploy, dags, .. } = arguments;
    let part = Part::everything(dags);
    let caching = Arc::new(Caching::default());
    let (prepared, forecast) = context.block_on(caching.retry(async || {
        let preparation = Preparation {
            replacing: dags.replacing.clone(),
            caching: Arc::clone(&caching),
            ..Preparation::default()
        };
        let prepared = prepare(&workspace, deploy, &part, preparation).await?;
        let forecast = prepared.environment.forecast(&prepared.plan).await?;
        Ok((prepared, forecast))
    }))?;
    caching.finish(Usage::Builds);
    let saved = prepared.environment.saved(&prepared.plan);
    let document = document(prepared, forecast);
    let refused = !document.obstacles.is_empty();
    if let (Some(path), false) = (&arguments.out, refused) {
        plan_file::write(path, &saved, deploy, dags)?;
    }
    context
        .printer
        .result(&document, || text(&document, context.printer.width()))?;
    let asked = document.changes && arguments.exit_code;
    // A plan that was to be kept and was not is a refusal whatever else was asked.
    Ok(if refused && (!asked || arguments.out.is_some()) {
        Exit::Refused
    } else if asked {
        Exit::Changes
    } else {
        Exit::Done
    })
}

fn document(prepared: Prepared, forecast: Option<PushForecast>) -> Document {
    let names = |ids: &[WorkflowId]| ids.iter().map(ToString::to_string).collect();
    let summary = &prepared.plan.summary;
    let live = prepared.plan.live();
    let live = live.generation().filter(|_| !live.is_foreseen());
    let environment = prepared.target.environment.to_string();
    Document {
        environment: environment.clone(),
        generation: live.map(|live| live.reference.generation),
        changes: !prepared.plan.is_unchanged(),
        new_image: summary.new_image,
        push: forecast.map(|forecast| PushDocument {
            layers_sent: forecast.layers_sent,
            layers_mounted: forecast.layers_mounted,
            layers_present: forecast.layers_present,
            bytes: forecast.bytes(),
        }),
        added: names(&summary.added),
        replaced: names(&summary.changed),
        retired: names(&summary.retired),
        reused: names(&summary.reused),
        restored: summary.restored.iter().map(DriftDocument::from).collect(),
        uploads: summary.uploads,
        upload_bytes: summary.upload_bytes,
        deletes: summary.deletes,
        draining: names(&summary.draining),
        cleared: summary.cleared.clone(),
        adopted: adopted_keys(prepared.adoption.as_ref()),
        foreign: summary.foreign,
        obstacles: prepared
            .plan
            .into_obstacles()
            .into_iter()
            .map(|obstacle| Obstacle(CommandError::from(obstacle).in_environment(&environment)))
            .collect(),
    }
}

fn text(document: &Document, width: Option<usize>) -> String {
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
    if let Some(push) = &document.push {
        let _ = writeln!(text, "  send     {}", push.text());
    }
    for (what, colour, workflows) in [
        ("adopt", Colour::Good, &document.adopted),
        ("add", Colour::Good, &document.added),
        ("replace", Colour::Warning, &document.replaced),
        ("drain", Colour::Warning, &document.draining),
        ("delete", Colour::Bad, &document.retired),
        ("clear", Colour::Bad, &document.cleared),
    ] {
        let what = colour.paint(&format!("{what:<8}"));
        for workflow in workflows {
            let _ = writeln!(text, "  {what} {workflow}");
        }
    }
    for drift in &document.restored {
        let _ = writeln!(text, "  {} {drift}", Colour::Warning.paint("restore "));
    }
    if !document.reused.is_empty() {
        let _ = writeln!(text, "  leave    {}", count(document.reused.len(), "DAG"));
    }
    let _ = writeln!(
        text,
        "in dags/ {} ({}) would be written, {} deleted",
        count(document.uploads, "file"),
        bytes(document.upload_bytes),
        document.deletes
    );
    if document.foreign > 0 {
        let _ = writeln!(
            text,
            "{} in dags/ {}",
            count(document.foreign, "file"),
            match document.foreign {
                1 => "belongs to others and stays",
                _ => "belong to others and stay",
            }
        );
    }
    for Obstacle(refusal) in &document.obstacles {
        let _ = writeln!(text, "but it would be refused:");
        text.push_str(&refusal.render(width));
    }
    text
}

impl PushDocument {
    fn text(&self) -> String {
        let layers = self.layers_sent + self.layers_mounted + self.layers_present;
        if self.bytes == 0 {
            return format!("nothing: {} are there", count(layers, "layer"));
        }
        let mut text = format!(
            "{} of {}, {}; {} there",
            self.layers_sent,
            count(layers, "layer"),
            bytes(self.bytes),
            self.layers_present
        );
        if self.layers_mounted > 0 {
            let _ = write!(
                text,
                ", {} from another repository of the registry",
                self.layers_mounted
            );
        }
        text
    }
}
