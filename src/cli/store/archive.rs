//! `forebay store export` and `import`: two sides of one file.

use std::path::Path;

use forebay_store::{ArchiveReport, Artifact, ObjectDigest, RecipeKey, RootName, Store};
use serde::Serialize;

use super::object::{ObjectArgument, digest_of};
use super::{about_named, at};
use crate::cli::context::Context;
use crate::ui::{CommandError, Exit, bytes, count};

/// What `export --json` and `import --json` print (`schema/store-archive.schema.json`).
#[derive(Debug, Serialize)]
struct ArchiveDocument {
    file: String,
    objects: Vec<ObjectDigest>,
    bytes: u64,
    realisations: Vec<RecipeKey>,
}

/// Writes an artifact into one file.
pub(super) fn export(
    context: &Context,
    store: &Store,
    artifact: &str,
    output: &Path,
) -> Result<(), CommandError> {
    let report = store
        .export(&parse_artifact(store, artifact)?, &at(context, output))
        .map_err(about_named(
            store,
            "name a file in a folder that can be written",
        ))?;
    print(context, output, report, "wrote")
}

/// Takes such a file in.
pub(super) fn import(
    context: &Context,
    store: &Store,
    file: &Path,
    root: Option<&RootName>,
) -> Result<(), CommandError> {
    let report = store
        .import(&at(context, file), root)
        .map_err(about_named(store, "name a file that can be read"))?;
    print(context, file, report, "took in")
}

fn print(
    context: &Context,
    file: &Path,
    report: ArchiveReport,
    verb: &str,
) -> Result<(), CommandError> {
    let document = ArchiveDocument {
        file: file.display().to_string(),
        objects: report.objects,
        bytes: report.bytes,
        realisations: report.realisations,
    };
    context.printer.result(&document, || {
        format!(
            "{verb} {}: {}, {}, {}\n",
            document.file,
            count(document.objects.len(), "object"),
            bytes(document.bytes),
            count(document.realisations.len(), "realisation")
        )
    })
}

/// 64 digits are a recipe or an object, whichever is known; anything else is a root.
fn parse_artifact(store: &Store, text: &str) -> Result<Artifact, CommandError> {
    if let Ok(key) = text.parse::<RecipeKey>()
        && store.realisation(&key)?.is_some()
    {
        return Ok(Artifact::Realisation(key));
    }
    let object = ObjectArgument {
        digest: text.to_owned(),
    };
    if let Ok(digest) = digest_of(store, &object) {
        return Ok(Artifact::Object(digest));
    }
    text.parse().map(Artifact::Root).map_err(|error| {
        CommandError::from_error(Exit::Usage, &error)
            .next("name a root, a recipe or an object; `forebay store why DIGEST` shows them")
    })
}
