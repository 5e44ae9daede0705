//! Which packs are worth being written anew.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::mark::Marked;
use super::plan::{Subject, Surveyed, Tables};
use crate::pack::{ENTRY_SIZE, Entry, EntryKind};

/// A pack below this weight is small: it is written anew whenever anything in it is dead.
const SMALL: u64 = 1024 * 1024;
/// Any other is when at least one part in this many is dead.
const PARTS: u64 = 5;
/// If there are more small packs than this, they are written together as one.
pub(super) const MANY: usize = 16;

/// What an entry takes of a pack, in bytes: its own, and what the pack's index says of it.
pub(super) fn weight(entry: &Entry) -> u64 {
    entry.info.size + ENTRY_SIZE
}

pub(super) fn is_small(pack: &Surveyed) -> bool {
    pack.entries.iter().map(weight).sum::<u64>() < SMALL
}

/// What decides whether an entry of a pack is dead.
pub(super) struct Judge<'a> {
    /// Where each object in a pack really is: an entry that no row points to is dead.
    rows: Vec<((i64, u64), usize)>,
    sequences: BTreeMap<Subject, i64>,
    due: &'a HashSet<usize>,
}

impl<'a> Judge<'a> {
    /// One for whom the objects at these positions are dead.
    pub(super) fn new(marked: &Marked, tables: &Tables, due: &'a HashSet<usize>) -> Self {
        let rows = marked.objects.iter().enumerate();
        let rows = rows.filter_map(|(at, row)| row.pack.map(|place| (place, at)));
        // Mostly in order as they come: a pack's rows are written together.
        let mut rows: Vec<_> = rows.collect();
        rows.sort_unstable();
        Self {
            rows,
            sequences: sequences(marked, tables),
            due,
        }
    }

    /// Whether the entry is of no use, if these subjects are forgotten.
    pub(super) fn is_dead(
        &self,
        pack: &Surveyed,
        entry: &Entry,
        forgotten: &BTreeSet<Subject>,
    ) -> bool {
        if entry.kind == EntryKind::Object {
            let place = (pack.id, entry.offset);
            let found = self.rows.binary_search_by_key(&place, |(place, _)| *place);
            let row = found.ok().and_then(|at| self.rows.get(at));
            return row.is_none_or(|(_, at)| self.due.contains(at));
        }
        let Some((subject, sequence)) = pack.records.get(&entry.offset) else {
            return false;
        };
        forgotten.contains(subject)
            || self
                .sequences
                .get(subject)
                .is_none_or(|current| sequence < current)
    }

    /// Whether enough of the pack is of no use.
    pub(super) fn is_worth_it(&self, pack: &Surveyed, forgotten: &BTreeSet<Subject>) -> bool {
        let all: u64 = pack.entries.iter().map(weight).sum();
        let dead = pack
            .entries
            .iter()
            .filter(|entry| self.is_dead(pack, entry, forgotten));
        let dead: u64 = dead.map(weight).sum();
        all == 0 || (dead > 0 && (all < SMALL || dead >= all / PARTS))
    }
}

/// The sequence that counts, for every subject.
fn sequences(marked: &Marked, tables: &Tables) -> BTreeMap<Subject, i64> {
    let realisations = marked
        .realisations
        .iter()
        .map(|row| (Subject::Realisation(row.key), row.sequence));
    let roots = tables
        .roots
        .iter()
        .map(|(name, (sequence, _))| (Subject::Root(name.clone()), *sequence));
    realisations.chain(roots).collect()
}
