//! Following a plan.
//!
//! The order: what is alive in the packs that go is copied into a new pack, which
//! becomes durable and gets its name; one transaction moves the rows there and
//! drops the dead ones; then the old files are removed. Removals are not synced:
//! a file that comes back after a power cut has no row, and goes with the next run.

use std::collections::HashMap;
use std::path::PathBuf;

use rusqlite::{Transaction, params};

use super::mark::Marked;
use super::orphans::without_rows;
use super::plan::{Plan, Subject, read_records};
use crate::batch::is_intact_pack;
use crate::index::{WriteError, checksum, to_integer};
use crate::inner::Inner;
use crate::pack::{Entry, Pack, PackWriter, SealedPack};
use crate::{ObjectDigest, StoreError, durable, staging};

/// How many files are removed before writers may go on. A removal can take milliseconds
/// where others sync.
const CHUNK: usize = 8;

/// How it went.
pub(super) enum Outcome {
    /// As planned.
    Done,
    /// Somebody has used something meanwhile: there must be another plan.
    Overtaken,
    /// Something that is needed is damaged in that pack, which must be left alone; `verify`
    /// moves it aside.
    Damaged(ObjectDigest),
}

/// Deletes what is planned, or nothing.
pub(super) fn delete(store: &Inner, marked: &Marked, plan: &Plan) -> Result<Outcome, StoreError> {
    let new_pack = match copy_live(store, plan)? {
        Ok(new_pack) => new_pack,
        Err(damaged) => return Ok(Outcome::Damaged(damaged)),
    };
    {
        let _publishing = store.publishing()?;
        let published = match new_pack {
            Some(pack) => Some(publish(store, pack)?),
            None => None,
        };
        if !plan.is_empty() {
            let done = store.index.write(|transaction| {
                drop_rows(store, transaction, marked, plan, published.as_ref())
            })?;
            if !done {
                // The new pack has no row: the next run removes it.
                return Ok(Outcome::Overtaken);
            }
        }
    }
    let files = plan.files.iter().filter_map(|at| marked.objects.get(*at));
    let mut paths: Vec<PathBuf> = files.map(|row| store.layout.object(&row.digest)).collect();
    paths.extend(plan.packs.iter().map(|pack| store.layout.pack(&pack.name)));
    paths.extend(plan.orphans.iter().cloned());
    for chunk in paths.chunks(CHUNK) {
        let _publishing = store.nobody_publishes()?;
        for path in without_rows(store, chunk.to_vec())? {
            durable::remove_file(store.file_system.as_ref(), &path)?;
        }
    }
    Ok(Outcome::Done)
}

/// Where the copies are, by the ids of their rows: the old pack and offset, and the new offset.
type Moved = HashMap<i64, (i64, Entry, u64)>;

/// Copies what is alive in the packs that go; nothing if nothing is. Instead, the name of a
/// pack in which it is damaged.
#[allow(clippy::type_complexity)]
fn copy_live(
    store: &Inner,
    plan: &Plan,
) -> Result<Result<Option<(SealedPack, Moved)>, ObjectDigest>, StoreError> {
    let mut writer = None;
    let mut moved = Moved::new();
    for pack in plan.packs.iter().filter(|pack| !pack.live.is_empty()) {
        let path = store.layout.pack(&pack.name);
        let source = Pack::open_with(&path, |_| false)?;
        for (entry, row) in &pack.live {
            let bytes = source.bytes(entry).map_err(StoreError::io("read", &path))?;
            if ObjectDigest::of(&bytes) != entry.info.digest {
                return Ok(Err(pack.name));
            }
            let writer = match &mut writer {
                Some(writer) => writer,
                none => none.insert(PackWriter::new(store.staged_file()?)?),
            };
            let offset = writer.append(entry.kind, entry.info, &bytes)?;
            if let Some(row) = row {
                moved.insert(*row, (pack.id, *entry, offset));
            }
        }
    }
    let sealed = writer.map(PackWriter::seal).transpose()?;
    Ok(Ok(sealed.map(|sealed| (sealed, moved))))
}

fn publish(
    store: &Inner,
    (pack, moved): (SealedPack, Moved),
) -> Result<(ObjectDigest, Moved), StoreError> {
    let file_system = store.file_system.as_ref();
    let target = store.layout.pack(&pack.name);
    let mut staged = pack.path;
    while let Some(refused) = durable::publish(file_system, staged, &target)? {
        // The same entries, in a pack that perhaps goes too: then it stays.
        if is_intact_pack(&target, &pack.entries)? {
            break;
        }
        durable::remove_file(file_system, &target)?;
        staged = refused;
    }
    durable::sync_directory(file_system, &store.layout.packs())?;
    Ok((pack.name, moved))
}

/// Whether the plan still holds; if so, the rows follow it.
fn drop_rows(
    store: &Inner,
    transaction: &Transaction<'_>,
    marked: &Marked,
    plan: &Plan,
    new_pack: Option<&(ObjectDigest, Moved)>,
) -> Result<bool, WriteError> {
    if !still_holds(store, transaction, marked, plan, new_pack)? {
        return Ok(false);
    }
    if let Some((name, moved)) = new_pack {
        transaction.execute(
            "INSERT INTO packs (name) VALUES (?1) ON CONFLICT DO NOTHING",
            [name.as_bytes()],
        )?;
        let new: i64 = transaction.query_row(
            "SELECT id FROM packs WHERE name = ?1",
            [name.as_bytes()],
            |row| row.get(0),
        )?;
        let mut update = transaction.prepare(
            "UPDATE objects SET pack = ?1, offset = ?2, checksum = ?3
             WHERE id = ?4 AND pack = ?5 AND offset = ?6",
        )?;
        for (row, (old, entry, to)) in moved {
            update.execute(params![
                new,
                to_integer(*to)?,
                checksum::of_object(&entry.info, Some((new, *to)))?,
                row,
                old,
                to_integer(entry.offset)?,
            ])?;
        }
    }
    let mut delete = transaction.prepare("DELETE FROM objects WHERE id = ?1")?;
    for at in plan.files.iter().chain(&plan.packed) {
        if let Some(row) = marked.objects.get(*at) {
            delete.execute([row.id])?;
        }
    }
    for subject in &plan.subjects {
        match subject {
            Subject::Realisation(key) => {
                transaction.execute("DELETE FROM realisations WHERE key = ?1", [key.as_bytes()])?
            }
            Subject::Root(name) => transaction.execute(
                "DELETE FROM roots WHERE name = ?1 AND removed = 1",
                [name.as_str()],
            )?,
        };
    }
    let replaced = plan
        .packs
        .iter()
        .filter(|pack| new_pack.is_none_or(|(name, _)| pack.name != *name));
    for pack in replaced {
        transaction.execute("DELETE FROM packs WHERE id = ?1", [pack.id])?;
    }
    // As an index that is made anew would have it.
    transaction.execute(
        "UPDATE clock SET last_sequence = max(
             coalesce((SELECT max(sequence) FROM realisations), 0),
             coalesce((SELECT max(sequence) FROM roots), 0))",
        [],
    )?;
    Ok(true)
}

fn still_holds(
    store: &Inner,
    transaction: &Transaction<'_>,
    marked: &Marked,
    plan: &Plan,
    new_pack: Option<&(ObjectDigest, Moved)>,
) -> Result<bool, WriteError> {
    let leased = staging::live_leases(&store.layout.staging())?;
    let mut condemned = transaction.prepare("SELECT 1 FROM condemned WHERE object = ?1")?;
    let mut going = std::collections::HashSet::new();
    for at in plan.files.iter().chain(&plan.packed) {
        let Some(row) = marked.objects.get(*at) else {
            continue;
        };
        if leased.contains(&row.digest) || !condemned.exists([row.id])? {
            return Ok(false);
        }
        going.insert(row.id);
    }
    // Nobody has found another use for a pack that goes.
    let mut rows_of = transaction.prepare("SELECT id, digest FROM objects WHERE pack = ?1")?;
    for pack in &plan.packs {
        let mut rows = rows_of.query([pack.id])?;
        while let Some(row) = rows.next()? {
            let (id, digest): (i64, [u8; 32]) = (row.get(0)?, row.get(1)?);
            let moved = new_pack.and_then(|(_, moved)| moved.get(&id));
            let is_moved =
                moved.is_some_and(|(_, entry, _)| *entry.info.digest.as_bytes() == digest);
            if !is_moved && !going.contains(&id) {
                return Ok(false);
            }
        }
    }
    // Nor written down anew what is to be forgotten.
    let mut packs = transaction.prepare("SELECT id, name FROM packs")?;
    let mut rows = packs.query([])?;
    while let Some(row) = rows.next()? {
        if plan.known_packs.contains(&row.get(0)?) {
            continue;
        }
        let path = store.layout.pack(&ObjectDigest::from_bytes(row.get(1)?));
        let Ok(pack) = Pack::open(&path) else {
            continue;
        };
        let records = read_records(&pack).unwrap_or_default();
        if records
            .iter()
            .any(|record| plan.subjects.contains(&record.subject))
        {
            return Ok(false);
        }
    }
    Ok(true)
}
