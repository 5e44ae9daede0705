//! What a collection will delete, worked out before anything changes: a dry run
//! ends with it, a real run follows it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::mark::Marked;
use super::{CollectReport, CollectedObject};
use crate::pack::{Entry, EntryKind, Pack};
use crate::rebuild::{list, parse_name};
use crate::record::Record;
use crate::store::Inner;
use crate::{ObjectDigest, RecipeKey, RootName, StoreError};

/// What the records of a pack are about, with their sequences, by their offsets.
pub(super) type Records = HashMap<u64, (Subject, i64)>;

/// What a record is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    Realisation(RecipeKey),
    Root(RootName),
}

impl Subject {
    pub(super) fn of(record: &Record) -> Self {
        match record {
            Record::Realisation { key, .. } => Self::Realisation(*key),
            Record::Root { name, .. } => Self::Root(name.clone()),
        }
    }
}

/// The files that a store has.
#[derive(Debug, Default)]
pub(crate) struct Files {
    objects: Vec<(ObjectDigest, PathBuf)>,
    packs: Vec<(ObjectDigest, PathBuf)>,
}

/// A pack that is written anew without what is dead, or removed if all of it is.
#[derive(Debug)]
pub(super) struct DeadPack {
    pub(super) id: i64,
    pub(super) name: ObjectDigest,
    pub(super) pack: Pack,
    /// What the new pack takes over.
    pub(super) live: Vec<Entry>,
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

/// One pack, read.
struct Surveyed {
    id: i64,
    name: ObjectDigest,
    path: PathBuf,
    pack: Pack,
    records: Records,
}

/// Lists the files while no batch is between its files and its rows: a file that
/// has no row afterwards is an orphan.
pub(crate) fn list_files(store: &Inner) -> Result<Files, StoreError> {
    let _publishing = store.nobody_publishes()?;
    let mut files = Files::default();
    for directory in list(&store.layout.objects())? {
        if directory.is_dir() {
            for path in list(&directory)? {
                if let Some(digest) = path.file_name().and_then(parse_name) {
                    files.objects.push((digest, path));
                }
            }
        }
    }
    for path in list(&store.layout.packs())? {
        if let Some(name) = path.file_stem().and_then(parse_name) {
            files.packs.push((name, path));
        }
    }
    Ok(files)
}

impl Files {
    /// Those that are neither one of these large objects nor one of these packs.
    pub(crate) fn without_rows(
        self,
        objects: &HashSet<ObjectDigest>,
        packs: &HashSet<ObjectDigest>,
    ) -> Vec<PathBuf> {
        // What a newer program wrote is not ours to judge.
        let is_newer =
            |path: &PathBuf| matches!(Pack::open(path), Err(StoreError::NewerPack { .. }));
        let objects = self
            .objects
            .into_iter()
            .filter(|(digest, _)| !objects.contains(digest));
        let packs = self
            .packs
            .into_iter()
            .filter(|(name, path)| !packs.contains(name) && !is_newer(path));
        let mut paths: Vec<_> = objects.chain(packs).map(|(_, path)| path).collect();
        paths.sort_unstable();
        paths
    }
}

impl Plan {
    pub(super) fn make(
        store: &Inner,
        marked: &Marked,
        files: Files,
        now: i64,
        grace: Duration,
    ) -> Result<Self, StoreError> {
        let grace = i64::try_from(grace.as_secs()).unwrap_or(i64::MAX);
        let is_due = |at: usize| {
            let row = marked.objects.get(at);
            row.and_then(|row| row.condemned)
                .is_some_and(|since| now.saturating_sub(since) >= grace)
        };
        let due: HashSet<usize> = (0..marked.objects.len()).filter(|at| is_due(*at)).collect();
        let mut plan = Self::default();
        let (packs, roots) = read_tables(store)?;
        let surveyed = survey(store, &packs)?;
        plan.known_packs = surveyed.iter().map(|pack| pack.id).collect();

        // Where each object in a pack really is: an entry that no row points to is dead.
        let rows: HashMap<(i64, u64), usize> = marked
            .objects
            .iter()
            .enumerate()
            .filter_map(|(at, row)| row.pack.map(|place| (place, at)))
            .collect();
        let sequences = sequences(marked, &roots);
        let doomed = dead_subjects(marked, &roots, |at| due.contains(&at));
        let is_dead = |pack: &Surveyed, entry: &Entry, subjects: &BTreeSet<Subject>| {
            if entry.kind == EntryKind::Object {
                return rows
                    .get(&(pack.id, entry.offset))
                    .is_none_or(|at| due.contains(at));
            }
            let Some((subject, sequence)) = pack.records.get(&entry.offset) else {
                return false;
            };
            subjects.contains(subject)
                || sequences
                    .get(subject)
                    .is_none_or(|current| sequence < current)
        };
        let (chosen, others): (Vec<Surveyed>, Vec<Surveyed>) =
            surveyed.into_iter().partition(|pack| {
                let weight = |entry: &&Entry| entry.info.size + 81;
                let entries = &pack.pack.entries;
                let all: u64 = entries.iter().map(|entry| weight(&entry)).sum();
                let dead: u64 = entries
                    .iter()
                    .filter(|entry| is_dead(pack, entry, &doomed))
                    .map(|entry| weight(&entry))
                    .sum();
                dead > all / 2 || all == 0
            });

        let chosen_ids: HashSet<i64> = chosen.iter().map(|pack| pack.id).collect();
        for at in due.iter().copied() {
            match marked.objects.get(at).map(|row| row.pack) {
                Some(None) => plan.files.push(at),
                Some(Some((pack, _))) if chosen_ids.contains(&pack) => plan.packed.push(at),
                _ => {}
            }
        }
        plan.files.sort_unstable();
        plan.packed.sort_unstable();
        // A record elsewhere would bring back what is forgotten here.
        let elsewhere: BTreeSet<&Subject> = others
            .iter()
            .flat_map(|pack| pack.records.values())
            .map(|(subject, _)| subject)
            .collect();
        let deleted: HashSet<usize> = plan.files.iter().chain(&plan.packed).copied().collect();
        let recorded: BTreeSet<&Subject> = chosen
            .iter()
            .flat_map(|pack| pack.records.values())
            .map(|(subject, _)| subject)
            .collect();
        plan.subjects = dead_subjects(marked, &roots, |at| deleted.contains(&at))
            .into_iter()
            .filter(|subject| recorded.contains(subject) && !elsewhere.contains(subject))
            .collect();
        for pack in chosen {
            let live: Vec<Entry> = pack
                .pack
                .entries
                .iter()
                .filter(|entry| !is_dead(&pack, entry, &plan.subjects))
                .copied()
                .collect();
            let size = length(&pack.path);
            let moved: u64 = live.iter().map(|entry| entry.info.size + 81).sum();
            plan.freed += size.saturating_sub(moved);
            plan.packs.push(DeadPack {
                id: pack.id,
                name: pack.name,
                pack: pack.pack,
                live,
            });
        }
        let large = marked
            .objects
            .iter()
            .filter(|row| row.pack.is_none())
            .map(|row| row.digest)
            .collect();
        plan.orphans = files.without_rows(&large, &packs.keys().copied().collect());
        plan.freed += plan.orphans.iter().map(|path| length(path)).sum::<u64>();
        plan.freed += plan
            .files
            .iter()
            .filter_map(|at| marked.objects.get(*at))
            .map(|row| row.size)
            .sum::<u64>();
        Ok(plan)
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

type Roots = BTreeMap<RootName, (i64, bool)>;

/// The packs' ids by name; the roots' sequences, and whether they were removed.
fn read_tables(store: &Inner) -> Result<(BTreeMap<ObjectDigest, i64>, Roots), StoreError> {
    store.index.read(|connection| {
        let packs = connection
            .prepare("SELECT name, id FROM packs")?
            .query_map([], |row| {
                Ok((ObjectDigest::from_bytes(row.get(0)?), row.get(1)?))
            })?
            .collect::<Result<_, _>>()?;
        let mut roots = Roots::new();
        let mut statement = connection.prepare("SELECT name, sequence, removed FROM roots")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let name: String = row.get(0)?;
            if let Ok(name) = name.parse() {
                roots.insert(name, (row.get(1)?, row.get(2)?));
            }
        }
        Ok((packs, roots))
    })
}

/// Reads the indexes and records of all packs. One that is lost or damaged is left to `verify`.
fn survey(store: &Inner, packs: &BTreeMap<ObjectDigest, i64>) -> Result<Vec<Surveyed>, StoreError> {
    let mut surveyed = Vec::new();
    for (name, id) in packs {
        let path = store.layout.pack(name);
        let Ok(pack) = Pack::open(&path) else {
            continue;
        };
        if let Some(records) = read_records(&pack)? {
            surveyed.push(Surveyed {
                id: *id,
                name: *name,
                path,
                pack,
                records,
            });
        }
    }
    Ok(surveyed)
}

/// What the records of a pack are about, with their sequences, by their offsets; none if
/// one of them is damaged.
pub(super) fn read_records(pack: &Pack) -> Result<Option<Records>, StoreError> {
    let mut records = HashMap::new();
    for entry in &pack.entries {
        if entry.kind != EntryKind::Record {
            continue;
        }
        let record = pack
            .bytes(entry)
            .ok()
            .filter(|bytes| ObjectDigest::of(bytes) == entry.info.digest)
            .and_then(|bytes| Record::from_json(&bytes).ok());
        let Some(record) = record else {
            return Ok(None);
        };
        records.insert(entry.offset, (Subject::of(&record), record.sequence()));
    }
    Ok(Some(records))
}

/// The sequence that counts, for every subject.
fn sequences(marked: &Marked, roots: &Roots) -> BTreeMap<Subject, i64> {
    let realisations = marked
        .realisations
        .iter()
        .map(|row| (Subject::Realisation(row.key), row.sequence));
    let roots = roots
        .iter()
        .map(|(name, (sequence, _))| (Subject::Root(name.clone()), *sequence));
    realisations.chain(roots).collect()
}

/// Realisations with an output that is not there or is going, and roots that were removed.
fn dead_subjects(
    marked: &Marked,
    roots: &Roots,
    is_deleted: impl Fn(usize) -> bool,
) -> BTreeSet<Subject> {
    let realisations = marked
        .realisations
        .iter()
        .filter(|row| {
            row.outputs
                .iter()
                .any(|output| output.is_none_or(&is_deleted))
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
