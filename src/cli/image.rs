//! `forebay image plan` and `forebay image lock`.

use clap::Subcommand;
use serde::Serialize;

use super::arguments::BuildArguments;
use super::context::Context;
use super::migrate;
use super::services::LazyServices;
use crate::artifacts::Build;
use crate::image::LineClass;
use crate::ui::{CommandError, Exit, Table};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show what each line of the Dockerfile means; exits with 1 if one cannot be done
    Plan(BuildArguments),
    /// Ask the registry anew what the base image's tag means, and pin the answer in forebay.lock
    Lock(BuildArguments),
    /// Print the section of pyproject.toml that says what the Dockerfile says
    Migrate(migrate::Arguments),
}

/// What `plan --json` prints (`schema/image-plan.schema.json`).
#[derive(Debug, Serialize)]
struct PlanDocument {
    lines: Vec<LineDocument>,
}

#[derive(Debug, Serialize)]
struct LineDocument {
    /// Where the instruction begins, counted from 1.
    line: usize,
    /// `native`, `no-op` or `error`.
    class: &'static str,
    text: String,
    reason: String,
}

/// What `lock --json` prints (`schema/image-lock.schema.json`).
#[derive(Debug, Serialize)]
struct LockDocument {
    /// The base as the Dockerfile names it; null for `scratch`.
    image: Option<String>,
    digest: Option<crate::oci::Sha256Digest>,
}

pub(super) fn run(context: &Context, command: &Command) -> Result<Exit, CommandError> {
    let arguments = match command {
        Command::Plan(arguments) | Command::Lock(arguments) => arguments,
        Command::Migrate(arguments) => return migrate::run(context, arguments),
    };
    let workspace = context.workspace()?;
    let (target, services) = LazyServices::of_build(&workspace, arguments)?;
    let open = services.opener();
    let build = Build::new(&workspace, &target, &open)?;
    match command {
        Command::Plan(_) => plan(context, &build),
        Command::Lock(_) | Command::Migrate(_) => lock(context, &build),
    }
}

fn plan(context: &Context, build: &Build<'_>) -> Result<Exit, CommandError> {
    let plan = context.block_on(async { Ok(build.image_plan().await?) })?;
    let lines = plan.lines.iter().map(|line| LineDocument {
        line: line.line,
        class: line.class.as_str(),
        text: line.text.clone(),
        reason: line.reason.clone(),
    });
    let document = PlanDocument {
        lines: lines.collect(),
    };
    context.printer.result(&document, || {
        let mut table = Table::new(["LINE", "HOW", "INSTRUCTION", "WHY"]);
        for line in &document.lines {
            table.row([
                line.line.to_string(),
                line.class.to_owned(),
                shorten(&line.text),
                line.reason.clone(),
            ]);
        }
        table.render()
    })?;
    let impossible = plan.lines.iter().any(|line| line.class == LineClass::Error);
    Ok(if impossible { Exit::Failed } else { Exit::Done })
}

/// An instruction may go on for many lines; its beginning is enough to find it.
fn shorten(text: &str) -> String {
    const LONGEST: usize = 48;
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= LONGEST {
        return line;
    }
    line.chars().take(LONGEST - 1).chain(['…']).collect()
}

fn lock(context: &Context, build: &Build<'_>) -> Result<Exit, CommandError> {
    let locked = context.block_on(async { Ok(build.lock_base().await?) })?;
    let document = LockDocument {
        image: locked.as_ref().map(|(reference, _)| reference.to_string()),
        digest: locked.and_then(|(_, base)| base.manifest),
    };
    context.printer.result(&document, || match &document {
        LockDocument {
            image: Some(image),
            digest: Some(digest),
        } => format!("{image} is {digest}\n"),
        _ => "the Dockerfile starts from scratch: there is nothing to pin\n".to_owned(),
    })?;
    Ok(Exit::Done)
}
