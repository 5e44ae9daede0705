//! `forebay store ls`.

use forebay_store::Store;
use serde::Serialize;

use super::object::ObjectDocument;
use crate::cli::context::Context;
use crate::ui::CommandError;

#[derive(Debug, Serialize)]
struct ListDocument {
    objects: Vec<ListedDocument>,
}

#[derive(Debug, Serialize)]
struct ListedDocument {
    #[serde(flatten)]
    object: ObjectDocument,
    packed: bool,
    condemned: bool,
}

pub(super) fn list(context: &Context, store: &Store) -> Result<(), CommandError> {
    let mut objects = Vec::new();
    store.list(&mut |object| {
        objects.push(ListedDocument {
            object: object.info.into(),
            packed: object.packed,
            condemned: object.condemned,
        });
    })?;
    let document = ListDocument { objects };
    context.printer.result(&document, || {
        if document.objects.is_empty() {
            return "the store is empty\n".to_owned();
        }
        document
            .objects
            .iter()
            .map(|listed| {
                let remark = if listed.condemned { "  condemned" } else { "" };
                let ObjectDocument { digest, size, .. } = &listed.object;
                format!("{digest}  {size:>12}{remark}\n")
            })
            .collect()
    })
}
