//! `forebay store stats`.

use forebay_store::Store;
use serde::Serialize;

use crate::cli::context::Context;
use crate::ui::{CommandError, bytes};

/// What `stats --json` prints (`schema/store-stats.schema.json`).
#[derive(Debug, Serialize)]
struct StatsDocument {
    root: String,
    objects: u64,
    bytes: u64,
    files: u64,
    file_bytes: u64,
    packs: u64,
    realisations: u64,
    roots: u64,
    condemned: u64,
    condemned_bytes: u64,
    corrupt: u64,
    leased: u64,
}

pub(super) fn stats(context: &Context, store: &Store) -> Result<(), CommandError> {
    let stats = store.stats()?;
    let document = StatsDocument {
        root: store.root().display().to_string(),
        objects: stats.objects,
        bytes: stats.bytes,
        files: stats.files,
        file_bytes: stats.file_bytes,
        packs: stats.packs,
        realisations: stats.realisations,
        roots: stats.roots,
        condemned: stats.condemned,
        condemned_bytes: stats.condemned_bytes,
        corrupt: stats.corrupt,
        leased: stats.leased,
    };
    context.printer.result(&document, || {
        format!(
            "store         {}\nobjects       {} ({})\n  as files    {} ({})\n  in packs    {} in {}\nrealisations  {}\nroots         {}\ncondemned     {} ({})\ncorrupt       {}\nin use        {}\n",
            document.root,
            stats.objects,
            bytes(stats.bytes),
            stats.files,
            bytes(stats.file_bytes),
            stats.objects - stats.files,
            stats.packs,
            stats.realisations,
            stats.roots,
            stats.condemned,
            bytes(stats.condemned_bytes),
            stats.corrupt,
            stats.leased
        )
    })
}
