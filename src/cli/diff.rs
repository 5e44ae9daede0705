//! `forebay diff`

use std::fmt::Write as _;

use clap::Args;
use serde::Serialize;

use super::arguments::EnvironmentArguments;
use super::context::Context;
use super::opened::{Opened, Permissions};
use crate::environment::{Changed, Difference};
use crate::image::ContentsBase;
use crate::oci::Sha256Digest;
use crate::ui::{Colour, CommandError, Exit};
use forebay_store::ObjectDigest;

/// Show what is different between two generations: packages, project files, lines of DAG files.
#[derive(Debug, Args)]
#[command(
    after_help = "Writes nothing.\n\nExamples:\n  forebay diff -c prod          what the last deploy changed\n  forebay diff -c prod 41       from generation 41 to what is live\n  forebay diff -c prod 41 43    from one generation to another"
)]
pub(super) struct Arguments {
    /// From this generation [default: the one before B]
    #[arg(value_name = "A")]
    from: Option<u64>,

    /// To this generation [default: the live one]
    #[arg(value_name = "B")]
    to: Option<u64>,

    #[command(flatten)]
    environment: EnvironmentArguments,

    /// Exit with 3 if anything is different
    #[arg(long)]
    exit_code: bool,
}

/// What `--json` prints (`schema/diff.schema.json`).
#[derive(Debug, Serialize)]
struct Document {
    environment: String,
    from: Side,
    to: Side,
    /// Null if the contents of one of the images are not recorded.
    contents: Option<ContentsDocument>,
    dags: Vec<DagDocument>,
}

#[derive(Debug, Serialize)]
struct Side {
    generation: u64,
    version: String,
    commit: Option<String>,
    image: Sha256Digest,
}

#[derive(Debug, Serialize)]
struct ContentsDocument {
    /// Null if both stand on the same.
    base: Option<BaseDocument>,
    /// Null is what was not there, or no longer is.
    packages: Vec<Changed<String>>,
    files: Vec<Changed<ObjectDigest>>,
}

#[derive(Debug, Serialize)]
struct BaseDocument {
    from: Option<ContentsBase>,
    to: Option<ContentsBase>,
}

#[derive(Debug, Serialize)]
struct DagDocument {
    workflow: String,
    /// Its key in the bucket.
    from: Option<String>,
    to: Option<String>,
    /// As `diff -u` shows them.
    lines: String,
}

pub(super) fn run(context: &Context, arguments: &Arguments) -> Result<Exit, CommandError> {
    let workspace = context.workspace()?;
    let Opened {
        target,
        environment,
        ..
    } = Opened::new(&workspace, &arguments.environment, Permissions::default())?;
    let Arguments { from, to, .. } = arguments;
    let difference = context.block_on(async { Ok(environment.difference(*from, *to).await?) })?;
    let is_different = !difference.is_empty();
    let document = document(target.environment.as_str(), difference);
    context.printer.verbatim(&document, || text(&document))?;
    Ok(match arguments.exit_code && is_different {
        true => Exit::Changes,
        false => Exit::Done,
    })
}

fn document(environment: &str, difference: Difference) -> Document {
    let side = |record: &crate::environment::GenerationRecord| Side {
        generation: record.generation,
        version: record.version.to_string(),
        commit: record.git.as_ref().map(|git| git.commit.clone()),
        image: record.image,
    };
    Document {
        environment: environment.to_owned(),
        from: side(&difference.from),
        to: side(&difference.to),
        contents: difference.image.map(|image| ContentsDocument {
            base: image.base.map(|[from, to]| BaseDocument { from, to }),
            packages: image.packages,
            files: image.files,
        }),
        dags: (difference.dags.into_iter())
            .map(|dag| DagDocument {
                workflow: dag.workflow.to_string(),
                from: dag.from,
                to: dag.to,
                lines: dag.lines,
            })
            .collect(),
    }
}

fn text(document: &Document) -> String {
    let mut text = String::new();
    let side = |side: &Side| format!("generation {} ({})", side.generation, side.version);
    let _ = writeln!(
        text,
        "{}: from {} to {}",
        document.environment,
        side(&document.from),
        side(&document.to)
    );
    if document.from.image != document.to.image {
        let _ = writeln!(
            text,
            "image {} -> {}",
            document.from.image, document.to.image
        );
    }
    match &document.contents {
        Some(contents) => write_contents(&mut text, contents),
        None => text.push_str("what is in one of the images was not recorded\n"),
    }
    for dag in &document.dags {
        for line in dag.lines.lines() {
            let line = match line.as_bytes() {
                [b'+', rest @ ..] if !rest.starts_with(b"++") => Colour::Good.paint(line),
                [b'-', rest @ ..] if !rest.starts_with(b"--") => Colour::Bad.paint(line),
                [b'@', ..] => Colour::Next.paint(line),
                _ => line.to_owned(),
            };
            text.push_str(&line);
            text.push('\n');
        }
    }
    if text.lines().count() == 1 {
        text.push_str("nothing is different\n");
    }
    text
}

fn write_contents(text: &mut String, contents: &ContentsDocument) {
    if let Some(base) = &contents.base {
        let name = |base: &Option<ContentsBase>| match base {
            Some(ContentsBase {
                name: Some(name),
                digest,
            }) => format!("{name}@{digest}"),
            Some(ContentsBase { name: None, digest }) => digest.to_string(),
            None => "scratch".to_owned(),
        };
        let _ = writeln!(text, "base {} -> {}", name(&base.from), name(&base.to));
    }
    for package in &contents.packages {
        let _ = match (&package.from, &package.to) {
            (Some(from), Some(to)) => {
                writeln!(text, "package {} {from} -> {to}", package.name)
            }
            (None, Some(to)) => writeln!(text, "package {} {to} added", package.name),
            (Some(from), None) => writeln!(text, "package {} {from} removed", package.name),
            (None, None) => Ok(()),
        };
    }
    for file in &contents.files {
        let what = match (&file.from, &file.to) {
            (None, _) => "added",
            (_, None) => "removed",
            _ => "changed",
        };
        let _ = writeln!(text, "file {} {what}", file.name);
    }
}
