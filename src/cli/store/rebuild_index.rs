//! `forebay store rebuild-index`.

use forebay_store::Store;
use serde::Serialize;

use crate::cli::context::Context;
use crate::ui::{CommandError, count};

/// What `rebuild-index --json` prints (`schema/store-rebuild-index.schema.json`).
#[derive(Debug, Serialize)]
struct RebuildDocument {
    objects: usize,
    records: usize,
    damaged: Vec<String>,
}

pub(super) fn rebuild(context: &Context, store: &Store) -> Result<(), CommandError> {
    let report = store.rebuild_index()?;
    let document = RebuildDocument {
        objects: report.objects,
        records: report.records,
        damaged: report
            .damaged
            .iter()
            .map(|path| path.display().to_string())
            .collect(),
    };
    context.printer.result(&document, || {
        let mut text = format!(
            "{}, {}\n",
            count(document.objects, "object"),
            count(document.records, "record")
        );
        for path in &document.damaged {
            text.push_str(&format!("damaged, moved to {path}\n"));
        }
        text
    })
}
