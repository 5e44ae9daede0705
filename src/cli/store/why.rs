//! `forebay store why`.

use forebay_store::{RecipeKey, RootName, Store};
use serde::Serialize;

use super::object::{ObjectArgument, ObjectDocument, digest_of, not_found};
use crate::cli::context::Context;
use crate::ui::{CommandError, bytes};

/// What `why --json` prints (`schema/store-why.schema.json`).
#[derive(Debug, Serialize)]
struct WhyDocument {
    #[serde(flatten)]
    object: ObjectDocument,
    needed: bool,
    roots: Vec<String>,
    realisations: Vec<OutputDocument>,
    leased: bool,
    condemned_since: Option<String>,
}

#[derive(Debug, Serialize)]
struct OutputDocument {
    recipe: RecipeKey,
    output: String,
    kept_by: Vec<String>,
}

pub(super) fn why(
    context: &Context,
    store: &Store,
    object: &ObjectArgument,
) -> Result<(), CommandError> {
    let digest = digest_of(store, object)?;
    let explanation = store
        .why(&digest)?
        .ok_or_else(|| not_found(store, digest))?;
    let names = |roots: &[RootName]| -> Vec<String> {
        roots.iter().map(|root| root.as_str().to_owned()).collect()
    };
    let document = WhyDocument {
        needed: explanation.is_needed(),
        roots: names(&explanation.roots),
        realisations: explanation
            .realisations
            .iter()
            .map(|named| OutputDocument {
                recipe: named.key,
                output: named.output.clone(),
                kept_by: names(&named.kept_by),
            })
            .collect(),
        leased: explanation.leased,
        condemned_since: explanation
            .condemned_since
            .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok())
            .map(|time| time.to_string()),
        object: explanation.info.into(),
    };
    context.printer.result(&document, || why_text(&document))
}

fn why_text(document: &WhyDocument) -> String {
    let digest = &document.object.digest;
    let mut text = format!("{digest}  {}\n", bytes(document.object.size));
    for root in &document.roots {
        text.push_str(&format!("root {root}\n  -> {digest}\n"));
    }
    if document.leased {
        text.push_str("a running process uses it\n");
    }
    for named in &document.realisations {
        let kept = match named.kept_by.as_slice() {
            [] => "not kept".to_owned(),
            roots => format!("kept by {}", roots.join(", ")),
        };
        text.push_str(&format!(
            "output {:?} of recipe {} ({kept})\n",
            named.output, named.recipe
        ));
    }
    if !document.needed {
        text.push_str("nobody needs it: `forebay gc` may delete it\n");
    }
    if let Some(since) = &document.condemned_since {
        text.push_str(&format!("condemned since {since}\n"));
    }
    text
}
