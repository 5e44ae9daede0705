//! Whether the index says what the files say, as far as a collection sees both.
//!
//! A row that a disk has changed does not have its checksum. A row that is gone without
//! a trace, with the page that had it, has none to be wrong: then a root would be missing,
//! and what it keeps would be deleted.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

use super::mark::Marked;
use super::orphans::{Named, named_by};
use super::plan::{Subject, Surveyed, Tables};
use crate::StoreError;
use crate::index::checksum::damage;
use crate::inner::Inner;

/// Refuses an index that lacks what the records in packs say, that has objects in packs it
/// does not know, or that does not know a file that a root names.
pub(super) fn check(
    store: &Inner,
    marked: &Marked,
    tables: &Tables,
    surveyed: &[Surveyed],
    orphans: &[PathBuf],
) -> Result<(), StoreError> {
    let refuse = |what: String| Err(store.index.error(damage(&what)));
    let mut newest: BTreeMap<&Subject, i64> = BTreeMap::new();
    for record in surveyed.iter().flat_map(|pack| &pack.records) {
        let known = newest.entry(&record.subject).or_insert(record.sequence);
        *known = (*known).max(record.sequence);
    }
    for (subject, sequence) in newest {
        if let Subject::Root(name) = subject
            && tables
                .roots
                .get(name)
                .is_none_or(|(known, _)| *known < sequence)
        {
            return refuse(format!("root {name} is not what its newest record says"));
        }
    }
    let packs: HashSet<i64> = tables.packs.values().copied().collect();
    let mut last = None;
    for row in &marked.objects {
        let pack = row.pack.map(|(pack, _)| pack);
        if pack == last {
            continue;
        }
        if pack.is_some_and(|pack| !packs.contains(&pack)) {
            return refuse(format!("object {} is in an unknown pack", row.digest));
        }
        last = pack;
    }
    for path in orphans {
        if let Named::Object(digest) = named_by(path)
            && marked.rooted_unknown.contains(&digest)
        {
            return refuse(format!("object {digest}, which a root keeps, is unknown"));
        }
    }
    Ok(())
}
