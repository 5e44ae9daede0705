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
use crate::store::Inner;

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
    for (subject, sequence) in surveyed.iter().flat_map(|pack| pack.records.values()) {
        let known = newest.entry(subject).or_insert(*sequence);
        *known = (*known).max(*sequence);
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
    for row in &marked.objects {
        if row.pack.is_some_and(|(pack, _)| !packs.contains(&pack)) {
            return refuse(format!("object {} is in an unknown pack", row.digest));
        }
    }
    if !orphans.is_empty() {
        let rooted: HashSet<_> = marked.rooted.iter().collect();
        for path in orphans {
            if let Named::Object(digest) = named_by(path)
                && rooted.contains(&digest)
            {
                return refuse(format!("object {digest}, which a root keeps, is unknown"));
            }
        }
    }
    Ok(())
}
