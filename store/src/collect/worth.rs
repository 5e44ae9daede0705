//! Which packs are worth being written anew.

use std::collections::{BTreeMap, BTreeSet};

use super::mark::Marked;
use super::plan::{Record, Subject, Surveyed, Tables};
use crate::pack::{ENTRY_SIZE, Entry};

/// A pack below this weight is small: it is written anew whenever anything in it is dead.
const SMALL: u64 = 1024 * 1024;
/// Any other is when at least one part in this many is dead.
const PARTS: u64 = 5;
/// If there are more small packs than this, they are written together as one.
pub(super) const MANY: usize = 16;

/// What an entry takes of a pack, in bytes: its own, and what the pack's index says of it.
pub(super) fn weight(entry: &Entry) -> u64 {
    weight_of(entry.info.size)
}

fn weight_of(size: u64) -> u64 {
    size + ENTRY_SIZE
}

pub(super) fn is_small(pack: &Surveyed) -> bool {
    pack.weight < SMALL
}

/// What decides whether an entry of a pack is dead.
pub(super) struct Judge<'a> {
    marked: &'a Marked,
    /// Whether the object at that position of [`Marked::objects`] is dead.
    due: &'a [bool],
    /// What the objects that are not dead weigh in each pack.
    alive: BTreeMap<i64, u64>,
    sequences: BTreeMap<Subject, i64>,
}

impl<'a> Judge<'a> {
    /// One for whom the objects at the positions that are `due` are dead.
    pub(super) fn new(marked: &'a Marked, tables: &Tables, due: &'a [bool]) -> Self {
        let mut alive: BTreeMap<i64, u64> = BTreeMap::new();
        for (row, due) in marked.objects.iter().zip(due) {
            if let (Some((pack, _)), false) = (row.pack, due) {
                *alive.entry(pack).or_default() += weight_of(row.size);
            }
        }
        Self {
            marked,
            due,
            alive,
            sequences: sequences(marked, tables),
        }
    }

    /// The row's id, if the entry is the object that a row points to, and it is not dead.
    pub(super) fn live_row(&self, pack: &Surveyed, entry: &Entry) -> Option<i64> {
        let at = self.marked.find(&entry.info.digest)?;
        let row = self.marked.objects.get(at)?;
        let is_here = row.pack == Some((pack.id, entry.offset));
        (is_here && self.due.get(at) == Some(&false)).then_some(row.id)
    }

    /// Whether the record is of no use, if these subjects are forgotten.
    pub(super) fn is_dead(&self, record: &Record, forgotten: &BTreeSet<Subject>) -> bool {
        let current = self.sequences.get(&record.subject);
        forgotten.contains(&record.subject)
            || current.is_none_or(|current| record.sequence < *current)
    }

    /// Whether enough of the pack is of no use.
    pub(super) fn is_worth_it(&self, pack: &Surveyed, forgotten: &BTreeSet<Subject>) -> bool {
        let records = pack.records.iter();
        let records = records.filter(|record| !self.is_dead(record, forgotten));
        let alive = records.map(|record| record.weight).sum::<u64>()
            + self.alive.get(&pack.id).copied().unwrap_or(0);
        let dead = pack.weight.saturating_sub(alive);
        pack.weight == 0 || (dead > 0 && (is_small(pack) || dead >= pack.weight / PARTS))
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
