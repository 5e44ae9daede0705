//! `forebay history`

use clap::Args;
use serde::Serialize;

use super::arguments::EnvironmentArguments;
use super::context::Context;
use super::describe::when_in_table;
use super::opened::{Opened, Permissions};
use crate::environment::{Action, GenerationRecord};
use crate::oci::Sha256Digest;
use crate::ui::{Colour, CommandError, Exit, Table, short};

#[derive(Debug, Args)]
#[command(
    after_help = "Writes nothing.\n\nExamples:\n  forebay history -c prod\n  forebay history -c prod -n 5 --json"
)]
pub(super) struct Arguments {
    #[command(flatten)]
    environment: EnvironmentArguments,

    /// Show no more than this many generations
    #[arg(short = 'n', long, default_value_t = 20, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

/// What `--json` prints (`schema/history.schema.json`).
#[derive(Debug, Serialize)]
struct Document {
    environment: String,
    /// The newest first.
    generations: Vec<GenerationDocument>,
}

#[derive(Debug, Serialize)]
struct GenerationDocument {
    generation: u64,
    /// `deploy`, `deploy-image`, `deploy-dags` or `rollback`.
    action: Action,
    rollback_of: Option<u64>,
    version: String,
    commit: Option<String>,
    created_at: String,
    created_by: String,
    image: Sha256Digest,
    dags: usize,
}

pub(super) fn run(context: &Context, arguments: &Arguments) -> Result<Exit, CommandError> {
    let workspace = context.workspace()?;
    let Opened {
        target,
        environment,
        ..
    } = Opened::new(&workspace, &arguments.environment, Permissions::default())?;
    let limit = usize::try_from(arguments.limit).ok();
    let history = context.block_on(async { Ok(environment.history(limit).await?) })?;
    let document = Document {
        environment: target.environment.to_string(),
        generations: history.iter().map(|record| generation(record)).collect(),
    };
    context.printer.result(&document, || {
        if history.is_empty() {
            return format!("{}: nothing was deployed yet\n", target.environment);
        }
        let mut table = Table::new([
            "GENERATION",
            "WHAT",
            "VERSION",
            "IMAGE",
            "DAGS",
            "BY",
            "WHEN",
        ]);
        for (index, record) in history.iter().enumerate() {
            let number = match index {
                0 => Colour::Good.paint(&format!("{} (live)", record.generation)),
                _ => record.generation.to_string(),
            };
            table.row([
                number,
                what(record),
                record.version.to_string(),
                short(&record.image),
                record.dags.len().to_string(),
                record.created_by.clone(),
                when_in_table(record.created_at),
            ]);
        }
        table.render(context.printer.width())
    })?;
    Ok(Exit::Done)
}

fn generation(record: &GenerationRecord) -> GenerationDocument {
    GenerationDocument {
        generation: record.generation,
        action: record.action,
        rollback_of: record.rollback_of,
        version: record.version.to_string(),
        commit: record.git.as_ref().map(|git| git.commit.clone()),
        created_at: record.created_at.to_string(),
        created_by: record.created_by.clone(),
        image: record.image,
        dags: record.dags.len(),
    }
}

fn what(record: &GenerationRecord) -> String {
    match (record.action, record.rollback_of) {
        (Action::Rollback, Some(generation)) => format!("rollback to {generation}"),
        (Action::Rollback, None) => "rollback".to_owned(),
        (Action::Deploy, _) => "deploy".to_owned(),
        (Action::DeployImage, _) => "deploy-image".to_owned(),
        (Action::DeployDags, _) => "deploy-dags".to_owned(),
        (Action::Adopt, _) => "adopt".to_owned(),
    }
}
