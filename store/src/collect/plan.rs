//! What a collection will delete, worked out before anything changes: a dry run
//! ends with it, a real run follows it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::check::check;
use super::mark::{Marked, ObjectRow};
use super::orphans::Files;
use super::worth::{Judge, MANY, is_small, weight};
use super::{CollectReport, CollectedObject};
use crate::inner::Inner;
use crate::pack::{Entry, EntryKind, Pack};
use crate::record::{HEAD_SIZE, RecordHead};
use crate::{ObjectDigest, RecipeKey, RootName, StoreError};

/// What a record is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    Realisation(RecipeKey),
    Root(RootName),
}

/// A pack that is written anew without what is dead, or removed if all of it is.
#[derive(Debug)]
pub(super) struct DeadPack {
    pub(super) id: i64,
    pub(super) name: ObjectDigest,
    /// What the new pack takes over; of objects, the ids of their rows.
    pub(super) live: Vec<(Entry, Option<i64>)>,
}

/// What is to be deleted.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Positions of objects that are files, and of objects in `packs`.
    pub(super) files: Vec<usize>,
    pub(super) packed: Vec<usize>,
    pub(super) packs: Vec<DeadPack>,
    /// Realisations and removed roots of which no record will be left.
    pub(super) subjects: BTreeSet<Subject>,
    /// The packs whose records were read.
    pub(super) known_packs: HashSet<i64>,
    pub(super) orphans: Vec<PathBuf>,
    freed: u64,
}

/// One pack, as its own index and records describe it.
pub(super) struct Surveyed {
    pub(super) id: i64,
    name: ObjectDigest,
    path: PathBuf,
    /// What all its entries weigh.
    pub(super) weight: u64,
    pub(super) records: Vec<Record>,
}

/// What a record in a pack is about, not what it says.
pub(super) struct Record {
    pub(super) subject: Subject,
    pub(super) sequence: i64,
    pub(super) weight: u64,
    offset: u64,
}

/// What the index says of packs and roots, at one moment.
pub(super) struct Tables {
    /// The ids of packs by name.
    pub(super) packs: BTreeMap<ObjectDigest, i64>,
    /// The sequences of roots, and whether they were removed.
    pub(super) roots: BTreeMap<RootName, (i64, bool)>,
}

impl Plan {
    pub(super) fn make(
        store: &Inner,
        marked: &Marked,
        files: Files,
        now: i64,
        grace: Duration,
        damaged: &HashSet<ObjectDigest>,
    ) -> Result<Self, StoreError> {
        let grace = i64::try_from(grace.as_secs()).unwrap_or(i64::MAX);
        let is_due = |row: &ObjectRow| {
            row.condemned
                .is_some_and(|since| now.saturating_sub(since) >= grace)
        };
        let due: Vec<bool> = marked.objects.iter().map(is_due).collect();
        let tables = read_tables(store)?;
        let mut surveyed = survey(store, &tables.packs)?;
        let large = marked
            .objects
            .iter()
            .filter(|row| row.pack.is_none())
            .map(|row| row.digest)
            .collect();
        let packs = tables.packs.keys().copied().collect();
        let mut plan = Self {
            known_packs: surveyed.iter().map(|pack| pack.id).collect(),
            orphans: files.orphans(store, &large, &packs)?,
            ..Self::default()
        };
        check(store, marked, &tables, &surveyed, &plan.orphans)?;

        let judge = Judge::new(marked, &tables, &due);
        let roots = &tables.roots;
        // At first, as if everything could be forgotten that should be.
        let mut forgotten = dead_subjects(marked, roots, &due);
        let mut others = Vec::new();
        loop {
            let (chosen, rest): (Vec<_>, Vec<_>) = surveyed.into_iter().partition(|pack| {
                !damaged.contains(&pack.name) && judge.is_worth_it(pack, &forgotten)
            });
            let is_settled = rest.is_empty();
            others.extend(rest);
            surveyed = chosen;
            plan.choose_objects(marked, &due, &surveyed);
            // A record elsewhere would bring back what is forgotten here.
            let subjects = |packs: &[Surveyed]| -> BTreeSet<Subject> {
                let records = packs.iter().flat_map(|pack| &pack.records);
                records.map(|record| record.subject.clone()).collect()
            };
            let (here, elsewhere) = (subjects(&surveyed), subjects(&others));
            let mut deleted = vec![false; due.len()];
            for at in plan.files.iter().chain(&plan.packed) {
                deleted.get_mut(*at).into_iter().for_each(|at| *at = true);
            }
            let dead = dead_subjects(marked, roots, &deleted).into_iter();
            let dead =
                dead.filter(|subject| here.contains(subject) && !elsewhere.contains(subject));
            let now_forgotten: BTreeSet<Subject> = dead.collect();
            if is_settled && now_forgotten == forgotten {
                break;
            }
            forgotten = now_forgotten;
        }
        plan.subjects = forgotten;
        let is_mergeable = |pack: &Surveyed| is_small(pack) && !damaged.contains(&pack.name);
        if others.iter().filter(|pack| is_mergeable(pack)).count() > MANY {
            surveyed.extend(others.into_iter().filter(is_mergeable));
        }
        for pack in surveyed {
            let live = live_entries(&pack, &judge, &plan.subjects)?;
            let moved: u64 = live.iter().map(|(entry, _)| weight(entry)).sum();
            plan.freed += length(&pack.path).saturating_sub(moved);
            plan.packs.push(DeadPack {
                id: pack.id,
                name: pack.name,
                live,
            });
        }
        plan.freed += plan.orphans.iter().map(|path| length(path)).sum::<u64>();
        plan.freed += plan
            .files
            .iter()
            .filter_map(|at| marked.objects.get(*at))
            .map(|row| row.size)
            .sum::<u64>();
        Ok(plan)
    }

    /// Whether no row changes.
    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty() && self.packs.is_empty() && self.subjects.is_empty()
    }

    /// What goes, if these packs are written anew.
    fn choose_objects(&mut self, marked: &Marked, due: &[bool], chosen: &[Surveyed]) {
        let ids: HashSet<i64> = chosen.iter().map(|pack| pack.id).collect();
        self.files.clear();
        self.packed.clear();
        for (at, row) in marked.objects.iter().enumerate() {
            if due.get(at) != Some(&true) {
                continue;
            }
            match row.pack {
                None => self.files.push(at),
                Some((pack, _)) if ids.contains(&pack) => self.packed.push(at),
                Some(_) => {}
            }
        }
    }

    pub(super) fn report(&self, marked: &Marked) -> CollectReport {
        let mut deleted: Vec<CollectedObject> = self
            .files
            .iter()
            .chain(&self.packed)
            .filter_map(|at| marked.objects.get(*at))
            .map(|row| CollectedObject {
                digest: row.digest,
                size: row.size,
            })
            .collect();
        deleted.sort_unstable();
        let condemned: Vec<_> = marked.objects.iter().filter(|row| !row.kept).collect();
        let deleted_bytes: u64 = deleted.iter().map(|object| object.size).sum();
        let condemned_bytes: u64 = condemned.iter().map(|row| row.size).sum();
        CollectReport {
            waiting: condemned.len() - deleted.len(),
            waiting_bytes: condemned_bytes - deleted_bytes,
            deleted,
            realisations: self
                .subjects
                .iter()
                .filter_map(|subject| match subject {
                    Subject::Realisation(key) => Some(*key),
                    Subject::Root(_) => None,
                })
                .collect(),
            orphans: self.orphans.clone(),
            packs: self.packs.len(),
            freed: self.freed,
            kept: marked.kept().count(),
            kept_bytes: marked.kept().map(|row| row.size).sum(),
        }
    }
}

fn read_tables(store: &Inner) -> Result<Tables, StoreError> {
    store.index.read(|connection| {
        let packs = connection
            .prepare("SELECT name, id FROM packs")?
            .query_map([], |row| {
                Ok((ObjectDigest::from_bytes(row.get(0)?), row.get(1)?))
            })?
            .collect::<Result<_, _>>()?;
        let mut roots = BTreeMap::new();
        let mut statement = connection.prepare("SELECT name, sequence, removed FROM roots")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let name: String = row.get(0)?;
            if let Ok(name) = name.parse() {
                roots.insert(name, (row.get(1)?, row.get(2)?));
            }
        }
        Ok(Tables { packs, roots })
    })
}

/// Reads the indexes and records of all packs. One that is lost or damaged is left to `verify`.
fn survey(store: &Inner, packs: &BTreeMap<ObjectDigest, i64>) -> Result<Vec<Surveyed>, StoreError> {
    let mut surveyed = Vec::new();
    for (name, id) in packs {
        let path = store.layout.pack(name);
        let mut sum = 0;
        let pack = Pack::open_with(&path, |entry| {
            sum += weight(entry);
            entry.kind == EntryKind::Record
        });
        let pack = match pack {
            Ok(pack) => pack,
            Err(StoreError::Pack { .. } | StoreError::NewerPack { .. }) => continue,
            Err(StoreError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if let Some(records) = read_records(&pack) {
            surveyed.push(Surveyed {
                id: *id,
                name: *name,
                path,
                weight: sum,
                records,
            });
        }
    }
    Ok(surveyed)
}

/// What the records of a pack are about, sorted by their offsets; none if one of them is damaged.
pub(super) fn read_records(pack: &Pack) -> Option<Vec<Record>> {
    let entries = pack.entries.iter();
    let mut records = entries
        .filter(|entry| entry.kind == EntryKind::Record)
        .map(|entry| {
            let start = pack.intact_start(entry, HEAD_SIZE).ok()??;
            let head = RecordHead::from_start(&start)?;
            let subject = match (head.key, head.name) {
                (Some(key), None) => Subject::Realisation(key),
                (None, Some(name)) => Subject::Root(name),
                _ => return None,
            };
            Some(Record {
                subject,
                sequence: head.sequence,
                weight: weight(entry),
                offset: entry.offset,
            })
        })
        .collect::<Option<Vec<_>>>()?;
    records.sort_unstable_by_key(|record| record.offset);
    Some(records)
}

/// What of a pack is of use, if these subjects are forgotten.
fn live_entries(
    pack: &Surveyed,
    judge: &Judge<'_>,
    forgotten: &BTreeSet<Subject>,
) -> Result<Vec<(Entry, Option<i64>)>, StoreError> {
    let mut live = Vec::new();
    Pack::open_with(&pack.path, |entry| {
        if entry.kind == EntryKind::Object {
            let row = judge.live_row(pack, entry);
            live.extend(row.map(|id| (*entry, Some(id))));
            return false;
        }
        let records = &pack.records;
        let at = records.binary_search_by_key(&entry.offset, |record| record.offset);
        let record = at.ok().and_then(|at| records.get(at));
        if record.is_none_or(|record| !judge.is_dead(record, forgotten)) {
            live.push((*entry, None));
        }
        false
    })?;
    Ok(live)
}

/// Realisations with an output that is not there or is going, and roots that were removed.
fn dead_subjects(
    marked: &Marked,
    roots: &BTreeMap<RootName, (i64, bool)>,
    deleted: &[bool],
) -> BTreeSet<Subject> {
    let realisations = marked
        .realisations
        .iter()
        .filter(|row| {
            row.outputs
                .iter()
                .any(|output| output.is_none_or(|at| deleted.get(at) == Some(&true)))
        })
        .map(|row| Subject::Realisation(row.key));
    let roots = roots
        .iter()
        .filter(|(_, (_, removed))| *removed)
        .map(|(name, _)| Subject::Root(name.clone()));
    realisations.chain(roots).collect()
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}
