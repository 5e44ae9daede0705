//! `forebay status`

use std::collections::BTreeMap;
use std::fmt::Write as _;

use clap::Args;
use serde::Serialize;

use super::arguments::EnvironmentArguments;
use super::context::Context;
use super::describe::{DriftDocument, when};
use super::opened::{Opened, Permissions};
use crate::environment::{RollbackTarget, State, Status};
use crate::oci::Sha256Digest;
use crate::ui::{Colour, CommandError, Exit, Table, count, short};
use forebay_store::ObjectDigest;

#[derive(Debug, Args)]
#[command(
    after_help = "Writes nothing.\n\nExamples:\n  forebay status -c prod\n  forebay status -c prod --exit-code     3 if somebody changed the files"
)]
pub(super) struct Arguments {
    #[command(flatten)]
    environment: EnvironmentArguments,

    /// Ask the registry and the bucket whether a rollback to the last NUMBER sets is possible
    #[arg(long, value_name = "NUMBER", default_value_t = 3)]
    rollback_targets: usize,

    /// Exit with 3 if somebody changed the environment's files
    #[arg(long)]
    exit_code: bool,
}

/// What `--json` prints (`schema/status.schema.json`).
#[derive(Debug, Serialize)]
struct Document {
    environment: String,
    /// `empty`, `committed` or `applying`.
    state: &'static str,
    generation: Option<u64>,
    version: Option<String>,
    commit: Option<String>,
    created_at: Option<String>,
    created_by: Option<String>,
    image: Option<Sha256Digest>,
    /// Keys in the bucket to the BLAKE3 of their bytes.
    dags: BTreeMap<String, ObjectDigest>,
    /// Keys of files that were given an end, and that the next deploy deletes.
    draining: Vec<String>,
    drift: Vec<DriftDocument>,
    applying: Option<ApplyingDocument>,
    foreign: usize,
    /// Null if the registry could not be asked.
    rollback_targets: Option<Vec<TargetDocument>>,
}

#[derive(Debug, Serialize)]
struct TargetDocument {
    generation: u64,
    version: String,
    created_at: String,
    available: bool,
    /// What is gone, in words.
    missing: Vec<String>,
}

impl From<RollbackTarget> for TargetDocument {
    fn from(target: RollbackTarget) -> Self {
        Self {
            generation: target.record.generation,
            version: target.record.version.to_string(),
            created_at: target.record.created_at.to_string(),
            available: target.missing.is_empty(),
            missing: target.missing,
        }
    }
}

#[derive(Debug, Serialize)]
struct ApplyingDocument {
    generation: u64,
    holder: String,
    /// Whether its lease still runs.
    held: bool,
}

pub(super) fn run(context: &Context, arguments: &Arguments) -> Result<Exit, CommandError> {
    let workspace = context.workspace()?;
    let Opened {
        target,
        environment,
        ..
    } = Opened::new(&workspace, &arguments.environment, Permissions::default())?;
    let (status, targets) = context.block_on(async {
        let status = environment.status().await?;
        let limit = arguments.rollback_targets;
        let targets = environment.rollback_targets(&status, limit).await;
        Ok((status, targets))
    })?;
    let targets = match targets {
        Ok(targets) => Some(targets.into_iter().map(Into::into).collect()),
        // What is live is known all the same.
        Err(error) => {
            let printer = &context.printer;
            printer.warning(&format!("cannot tell what can be rolled back to: {error}"));
            None
        }
    };
    let document = document(target.environment.as_str(), &status, targets);
    context.printer.result(&document, || {
        text(&document, &status, context.printer.width())
    })?;
    let found_drift = arguments.exit_code && !document.drift.is_empty();
    Ok(if found_drift {
        Exit::Changes
    } else {
        Exit::Done
    })
}

fn document(
    environment: &str,
    status: &Status,
    rollback_targets: Option<Vec<TargetDocument>>,
) -> Document {
    let live = status.live.as_deref();
    Document {
        environment: environment.to_owned(),
        state: match status.state {
            State::Empty => "empty",
            State::Committed => "committed",
            State::Applying => "applying",
        },
        generation: live.map(|record| record.generation),
        version: live.map(|record| record.version.to_string()),
        commit: live.and_then(|record| Some(record.git.as_ref()?.commit.clone())),
        created_at: live.map(|record| record.created_at.to_string()),
        created_by: live.map(|record| record.created_by.clone()),
        image: live.map(|record| record.image),
        dags: live
            .into_iter()
            .flat_map(|record| &record.dags)
            .map(|(key, dag)| (key.to_string(), dag.object))
            .collect(),
        draining: live
            .map(|record| record.draining().map(ToString::to_string).collect())
            .unwrap_or_default(),
        drift: status.drift.iter().map(DriftDocument::from).collect(),
        applying: status.applying.as_ref().map(|intent| ApplyingDocument {
            generation: intent.reference.generation,
            holder: intent.holder.clone(),
            held: status.held,
        }),
        foreign: status.foreign,
        rollback_targets,
    }
}

fn text(document: &Document, status: &Status, width: Option<usize>) -> String {
    let mut text = String::new();
    match status.live.as_deref() {
        None => {
            let _ = writeln!(text, "{}: nothing was deployed yet", document.environment);
        }
        Some(record) => {
            let _ = writeln!(
                text,
                "{}: generation {}, version {}, by {} {}",
                document.environment,
                record.generation,
                record.version,
                record.created_by,
                when(record.created_at)
            );
            let _ = writeln!(text, "image {}", record.image);
            let mut table = Table::new(["WORKFLOW", "FILE", "IMAGE"]);
            for (key, dag) in &record.dags {
                table.row([dag.workflow.to_string(), key.to_string(), short(&dag.image)]);
            }
            text.push_str(&table.render(width));
        }
    }
    if let Some(applying) = &document.applying {
        let state = if applying.held {
            "is being applied"
        } else {
            "was left unfinished; the next deploy finishes it"
        };
        let _ = writeln!(
            text,
            "generation {} by {} {state}",
            applying.generation, applying.holder
        );
    }
    for key in &document.draining {
        let _ = writeln!(text, "draining: {key} goes with the next deploy");
    }
    for drift in &document.drift {
        let _ = writeln!(text, "{}: {drift}", Colour::Warning.paint("drift"));
    }
    if document.foreign > 0 {
        let _ = writeln!(
            text,
            "{} in dags/ {} to others",
            count(document.foreign, "file"),
            if document.foreign == 1 {
                "belongs"
            } else {
                "belong"
            }
        );
    }
    for target in document.rollback_targets.iter().flatten() {
        let (number, version) = (target.generation, &target.version);
        let _ = match target.available {
            true => writeln!(text, "rollback to {number} ({version}) is possible"),
            false => writeln!(
                text,
                "rollback to {number} ({version}) is {}, for want of {}",
                Colour::Bad.paint("not possible"),
                target.missing.join(", ")
            ),
        };
    }
    text
}
