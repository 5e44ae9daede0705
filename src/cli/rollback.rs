//! `forebay rollback`

use std::fmt::Write as _;

use clap::Args;
use jiff::{Timestamp, Zoned};
use serde::Serialize;

use super::arguments::{CacheArguments, EnvironmentArguments};
use super::caching::{Caching, Usage};
use super::context::Context;
use super::describe::when;
use super::opened::{Opened, Permissions};
use super::outcome::Outcome;
use crate::artifacts::BuildError;
use crate::dags::StartTime;
use crate::environment::{Applied, PlanSummary, Returning, RollbackStart};
use crate::ui::{CommandError, Exit, count};

/// Make an earlier generation live again; nothing is rebuilt.
///
/// Image and DAG files are first proven to be there. An image that the registry has lost
/// is pushed again if this machine or a cache has what it was built of, and a DAG file that the
/// bucket has lost is taken from there too. What comes back comes back exactly: Airflow
/// remembers a DAG that was away, and its catch-up starts the runs that it has missed;
/// with --from-now such a DAG gets a new start time, as a new deploy of it would have.
#[derive(Debug, Args)]
#[command(
    after_help = "Writes DAG files and the record of the new generation into the bucket; and to the registry a tag, and the image if it was lost there.\n\nExamples:\n  forebay rollback -c prod                 to the set before the live one\n  forebay rollback -c prod 41 --dry-run    what that would do\n  forebay rollback -c prod 41 --from-now   without catching up"
)]
pub(super) struct Arguments {
    /// The generation to return to [default: the one before what is live; after a rollback, further back]
    generation: Option<u64>,

    #[command(flatten)]
    environment: EnvironmentArguments,

    #[command(flatten)]
    cache: CacheArguments,

    /// Bring DAGs back with the start times that they had [default]
    #[arg(long, conflicts_with = "from_now")]
    exact: bool,

    /// Give DAGs that come back the current hour as their start time
    #[arg(long)]
    from_now: bool,

    /// Write files of ours that somebody changed anew
    #[arg(long)]
    restore_drift: bool,

    /// Show what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

/// What `--json` prints (`schema/rollback.schema.json`).
#[derive(Debug, Serialize)]
struct Document {
    #[serde(flatten)]
    outcome: Outcome,
    rollback_of: Option<u64>,
    /// Whether nothing was done, because that was asked for.
    dry_run: bool,
    /// The DAGs that come back, with what Airflow's catch-up would start.
    catch_up: Vec<ReturningDocument>,
}

#[derive(Debug, Serialize)]
struct ReturningDocument {
    workflow: String,
    dag_id: Option<String>,
    since: Timestamp,
    schedule: Option<String>,
    runs: Option<u64>,
}

impl From<&Returning> for ReturningDocument {
    fn from(returning: &Returning) -> Self {
        Self {
            workflow: returning.workflow.to_string(),
            dag_id: returning.dag_id.clone(),
            since: returning.since,
            schedule: returning.schedule.clone(),
            runs: returning.runs,
        }
    }
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
    let start = match arguments.from_now {
        false => RollbackStart::Exact,
        true => {
            let now = StartTime::from_argument(None, &Zoned::now()).map_err(BuildError::from)?;
            RollbackStart::At(now.time)
        }
    };
    let caching = Caching::new(
        &workspace,
        &target,
        &arguments.cache,
        &arguments.environment.authentication,
    )?;
    let (applied, summary) = context.block_on(caching.retry(async || {
        let mut live = environment.observe(None).await?;
        if !arguments.dry_run {
            (live, _) = environment.settle(live).await?;
        }
        let plan = environment
            .plan_rollback_with(live, arguments.generation, start)
            .await?;
        let summary = plan.summary.clone();
        let applied = match arguments.dry_run {
            true => plan.foreseen()?,
            false => environment.apply(plan).await?,
        };
        Ok((applied, summary))
    }))?;
    caching.finish(Usage::Reads);
    let document = Document {
        outcome: Outcome::new(&target, &applied, &summary),
        rollback_of: applied.rollback_of,
        dry_run: arguments.dry_run,
        catch_up: summary.returning.iter().map(Into::into).collect(),
    };
    context.printer.result(&document, || {
        let environment = target.environment.as_str();
        text(environment, &document, &applied, &summary)
    })?;
    Ok(Exit::Done)
}

fn text(
    environment: &str,
    document: &Document,
    applied: &Applied,
    summary: &PlanSummary,
) -> String {
    let restored = applied.rollback_of;
    let mut text = match (document.dry_run, restored) {
        (true, Some(of)) => format!(
            "{environment}: it would restore generation {of}; {}\n",
            changes(summary)
        ),
        _ => {
            let restores = restored.map(|of| format!(", which restores generation {of}"));
            document.outcome.text(&restores.unwrap_or_default())
        }
    };
    for returning in &summary.returning {
        let _ = writeln!(text, "{}", catch_up(returning));
    }
    if document.dry_run && !summary.returning.is_empty() {
        text.push_str("--from-now gives them a new start instead\n");
    }
    text
}

/// `2 replaced, 1 deleted`.
fn changes(summary: &PlanSummary) -> String {
    let parts = [
        (&summary.added, "added"),
        (&summary.changed, "replaced"),
        (&summary.retired, "deleted"),
        (&summary.reused, "unchanged"),
    ];
    let parts = parts.iter().filter(|(workflows, _)| !workflows.is_empty());
    let parts: Vec<_> = parts
        .map(|(workflows, what)| format!("{} {what}", workflows.len()))
        .collect();
    match parts.is_empty() {
        true => "there are no DAG files".to_owned(),
        false => format!("DAG files: {}", parts.join(", ")),
    }
}

/// `daily (daily__v1_0__…, '@daily') comes back after it was away since …: Airflow …`
fn catch_up(returning: &Returning) -> String {
    let name = match (&returning.dag_id, &returning.schedule) {
        (Some(id), Some(schedule)) => format!("{} ({id}, {schedule})", returning.workflow),
        _ => returning.workflow.to_string(),
    };
    let since = when(returning.since);
    let runs = match returning.runs {
        Some(0) => "no run was missed".to_owned(),
        Some(runs) => {
            let runs = count(usize::try_from(runs).unwrap_or(usize::MAX), "missed run");
            format!("Airflow's catch-up starts about {runs}")
        }
        None => "Airflow's catch-up starts the runs that were missed".to_owned(),
    };
    format!("{name} was away; it left {since}: {runs}")
}
