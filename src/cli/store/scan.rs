//! `forebay store scan`.

use std::path::Path;

use forebay_store::{ObjectDigest, Store, TreeEntryKind};
use serde::Serialize;

use super::{about_named, at};
use crate::cli::context::Context;
use crate::ui::{CommandError, bytes, count};

/// What `scan --json` prints (`schema/store-scan.schema.json`).
#[derive(Debug, Serialize)]
struct ScanDocument {
    digest: ObjectDigest,
    entries: usize,
    bytes: u64,
    read_again: usize,
}

pub(super) fn scan(context: &Context, store: &Store, folder: &Path) -> Result<(), CommandError> {
    let tree = store
        .scan(&at(context, folder), &|_, _| false)
        .map_err(about_named(store, "name a folder that can be read"))?;
    let size = |kind: &TreeEntryKind| match kind {
        TreeEntryKind::File { size, .. } => *size,
        _ => 0,
    };
    let document = ScanDocument {
        digest: tree.digest(),
        entries: tree.entries.len(),
        bytes: tree.entries.iter().map(|entry| size(&entry.kind)).sum(),
        read_again: tree.read_again,
    };
    context.printer.result(&document, || {
        format!(
            "{}\n{}, {}, {} read\n",
            document.digest,
            count(document.entries, "file"),
            bytes(document.bytes),
            document.read_again
        )
    })
}
