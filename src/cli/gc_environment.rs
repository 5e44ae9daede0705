//! `forebay gc --environment`

use std::time::Duration;

use serde::Serialize;

use super::arguments::EnvironmentArguments;
use super::context::Context;
use super::opened::{Opened, Permissions};
use crate::environment::{Prunable, Retention};
use crate::ui::{CommandError, Exit, bytes, counts};

/// What `--json` prints (`schema/gc-environment.schema.json`).
#[derive(Debug, Serialize)]
struct Document {
    environment: String,
    dry_run: bool,
    /// The generations that stay, those first that were deployed last.
    kept: Vec<u64>,
    /// Generations whose records went.
    generations: Vec<u64>,
    /// Retention tags that went.
    tags: Vec<String>,
    /// Those that the registry did not let go.
    tags_left: Vec<String>,
    /// Kept bytes of DAG files and lists of contents that went.
    objects: usize,
    object_bytes: u64,
}

/// Prunes one environment by when its generations were last deployed.
pub(super) fn run(
    context: &Context,
    arguments: &EnvironmentArguments,
    keep: u32,
    grace: Duration,
    dry_run: bool,
) -> Result<Exit, CommandError> {
    let workspace = context.workspace()?;
    let Opened {
        target,
        environment,
        ..
    } = Opened::new(&workspace, arguments, Permissions::default())?;
    let retention = Retention {
        keep: usize::try_from(keep).unwrap_or(usize::MAX),
        grace,
    };
    let (prunable, tags_left) = context.block_on(async {
        let prunable = environment.prunable(&retention).await?;
        let left = match dry_run {
            true => Vec::new(),
            false => environment.prune(prunable.clone()).await?,
        };
        Ok((prunable, left))
    })?;
    let document = document(target.environment.as_str(), dry_run, prunable, tags_left);
    context.printer.result(&document, || text(&document))?;
    Ok(Exit::Done)
}

fn document(
    environment: &str,
    dry_run: bool,
    prunable: Prunable,
    tags_left: Vec<String>,
) -> Document {
    let mut tags = prunable.tags;
    tags.retain(|tag| !tags_left.contains(tag));
    Document {
        environment: environment.to_owned(),
        dry_run,
        kept: prunable.kept,
        generations: prunable.records,
        tags,
        tags_left,
        objects: prunable.objects,
        object_bytes: prunable.object_bytes,
    }
}

fn text(document: &Document) -> String {
    let mut text = String::new();
    let environment = &document.environment;
    let numbers = |numbers: &[u64]| {
        let numbers: Vec<_> = numbers.iter().map(u64::to_string).collect();
        numbers.join(", ")
    };
    if document.kept.is_empty() {
        return format!("{environment}: nothing was deployed yet\n");
    }
    let verb = match document.dry_run {
        true => "would delete",
        false => "deleted",
    };
    let parts = [
        (document.generations.len(), "record"),
        (document.tags.len(), "retention tag"),
        (document.objects, "object"),
    ];
    match counts(&parts) {
        None => text.push_str(&format!("{environment}: there is nothing to delete\n")),
        Some(parts) => text.push_str(&format!(
            "{environment}: {verb} {parts} ({})\n",
            bytes(document.object_bytes)
        )),
    }
    if document.dry_run {
        for generation in &document.generations {
            text.push_str(&format!("generation {generation}\n"));
        }
        for tag in &document.tags {
            text.push_str(&format!("tag {tag}\n"));
        }
    }
    text.push_str(&match document.kept.as_slice() {
        [one] => format!("kept generation {one}\n"),
        several => format!(
            "kept generations {}, in the order in which they were last deployed\n",
            numbers(several)
        ),
    });
    if !document.tags_left.is_empty() {
        text.push_str(&format!(
            "the registry does not let these tags go: {}\n",
            document.tags_left.join(", ")
        ));
    }
    text
}
