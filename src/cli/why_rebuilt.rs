//! `forebay why-rebuilt`

use std::fmt::Write as _;

use clap::Args;
use serde::Serialize;

use super::arguments::{BuildArguments, DagArguments};
use super::context::Context;
use super::describe::when;
use super::services::LazyServices;
use crate::artifacts::{Build, BuildInputs, Difference, RecordedBuild};
use crate::ui::{Colour, CommandError, Exit, count};

#[derive(Debug, Args)]
#[command(
    after_help = "Writes nothing. What is compared are names, digests and versions; a change of what is not listed here cannot have caused a build.\n\nExamples:\n  forebay why-rebuilt -c dev\n  forebay why-rebuilt -c dev --json"
)]
pub(super) struct Arguments {
    #[command(flatten)]
    build: BuildArguments,
    #[command(flatten)]
    dags: DagArguments,
}

/// What `--json` prints (`schema/why-rebuilt.schema.json`).
#[derive(Debug, Serialize)]
struct Document {
    environment: String,
    /// Whether the sources as they are now would give something else than the last build did.
    stale: bool,
    /// The builds that are compared; null if there was none.
    from: Option<BuildDocument>,
    /// Null for the sources as they are now.
    to: Option<BuildDocument>,
    /// What is different for the image.
    image: Vec<Difference>,
    /// What is different for the DAG files.
    dags: Vec<Difference>,
}

#[derive(Debug, Serialize)]
struct BuildDocument {
    version: String,
    built_at: jiff::Timestamp,
}

impl From<&RecordedBuild> for BuildDocument {
    fn from(build: &RecordedBuild) -> Self {
        Self {
            version: build.version.clone(),
            built_at: build.built_at,
        }
    }
}

pub(super) fn run(context: &Context, arguments: &Arguments) -> Result<Exit, CommandError> {
    let workspace = context.workspace()?;
    let (target, services) = LazyServices::of_build(&workspace, &arguments.build)?;
    let open = services.opener();
    let build = Build::new(&workspace, &target, &open)?;
    let options = arguments.dags.options();
    let recorded = build.recorded_builds()?;
    let now = context.block_on(async { Ok(build.build_inputs(&options).await?) })?;
    let is_stale = recorded
        .as_ref()
        .is_some_and(|recorded| recorded.last.inputs != now);
    let (from, to, inputs): (_, _, Option<(&BuildInputs, &BuildInputs)>) = match &recorded {
        Some(recorded) if is_stale => {
            let last = &recorded.last;
            (Some(last.into()), None, Some((&last.inputs, &now)))
        }
        Some(recorded) => {
            let (last, before) = (&recorded.last, recorded.before.as_ref());
            let inputs = before.map(|before| (&before.inputs, &last.inputs));
            (before.map(Into::into), Some(last.into()), inputs)
        }
        None => (None, None, None),
    };
    let [image, dags] = inputs.map_or_else(Default::default, |(from, to)| from.differences(to));
    let document = Document {
        environment: target.environment.to_string(),
        stale: is_stale,
        from,
        to,
        image,
        dags,
    };
    context.printer.result(&document, || text(&document))?;
    Ok(Exit::Done)
}

fn text(document: &Document) -> String {
    let environment = &document.environment;
    let name = |build: &BuildDocument| format!("{} {}", build.version, when(build.built_at));
    let mut text = match (&document.from, &document.to) {
        (None, None) => {
            return format!("{environment}: nothing was built here yet; everything is new\n");
        }
        (None, Some(last)) => {
            return format!(
                "{environment}: a build would make nothing new; {} was the first here\n",
                name(last)
            );
        }
        (Some(last), None) => format!("{environment}: since the last build, {}:\n", name(last)),
        (Some(before), Some(last)) => format!(
            "{environment}: a build would make nothing new; the last one, {}, differs from {}:\n",
            name(last),
            name(before)
        ),
    };
    for (artifact, differences) in [
        ("the image", &document.image),
        ("DAG files", &document.dags),
    ] {
        if differences.is_empty() {
            let _ = writeln!(text, "{artifact}: nothing is different");
            continue;
        }
        let inputs = count(differences.len(), "input");
        let _ = writeln!(text, "{artifact}: {inputs}");
        for difference in differences {
            let _ = writeln!(text, "  {}", line(difference));
        }
    }
    if !document.image.is_empty() && document.dags.is_empty() {
        text.push_str("DAG files name the image by its digest, and are written anew with it\n");
    }
    text
}

/// A short value is shown; a digest says nothing to anybody.
fn line(difference: &Difference) -> String {
    const LONGEST: usize = 40;
    let is_shown = |text: &String| text.len() <= LONGEST;
    let input = &difference.input;
    match (&difference.from, &difference.to) {
        (None, _) => format!("{} {input}", Colour::Good.paint("added  ")),
        (_, None) => format!("{} {input}", Colour::Bad.paint("removed")),
        (Some(from), Some(to)) if is_shown(from) && is_shown(to) => {
            format!(
                "{} {input}: {from} -> {to}",
                Colour::Warning.paint("changed")
            )
        }
        _ => format!("{} {input}", Colour::Warning.paint("changed")),
    }
}
