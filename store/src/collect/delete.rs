//! Following a plan.
//!
//! The order: what is alive in the packs that go is copied into a new pack, which
//! becomes durable and gets its name; one transaction moves the rows there and
//! drops the dead ones; then the old files are removed. Removals are not synced:
//! a file that comes back after a power cut has no row, and goes with the next run.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use rusqlite::{OptionalExtension as _, Transaction, params};

use super::mark::Marked;
use super::plan::{Plan, Subject, read_records};
use crate::batch::is_intact_pack;
use crate::index::{WriteError, to_integer};
use crate::pack::{EntryKind, Pack, PackWriter, SealedPack};
use crate::rebuild::parse_name;
use crate::store::Inner;
use crate::{ObjectDigest, StoreError, durable, staging};

/// How many files are removed before writers may go on.
const CHUNK: usize = 500;

/// Deletes; false if somebody has used something meanwhile, so that there must be another plan.
pub(super) fn delete(store: &Inner, marked: &Marked, plan: &Plan) -> Result<bool, StoreError> {
    let new_pack = copy_live(store, plan)?;
    {
        let _publishing = store.nobody_publishes()?;
        let published = match new_pack {
            Some(pack) => Some(publish(store, pack)?),
            None => None,
        };
        let done = store
            .index
            .write(|transaction| drop_rows(store, transaction, marked, plan, published.as_ref()))?;
        if !done {
            // The new pack has no row: the next run removes it.
            return Ok(false);
        }
    }
    let files = plan.files.iter().filter_map(|at| marked.objects.get(*at));
    let mut paths: Vec<PathBuf> = files.map(|row| store.layout.object(&row.digest)).collect();
    paths.extend(plan.packs.iter().map(|pack| store.layout.pack(&pack.name)));
    paths.extend(plan.orphans.iter().cloned());
    for chunk in paths.chunks(CHUNK) {
        remove_orphans(store, chunk)?;
    }
    Ok(true)
}

/// Where the copies are: by the old pack's id and offset.
type Moved = HashMap<(i64, u64), u64>;

/// Copies what is alive in the packs that go; none if nothing is.
fn copy_live(store: &Inner, plan: &Plan) -> Result<Option<(SealedPack, Moved)>, StoreError> {
    let mut writer = None;
    let mut moved = Moved::new();
    for pack in &plan.packs {
        let path = store.layout.pack(&pack.name);
        for entry in &pack.live {
            let bytes = pack
                .pack
                .bytes(entry)
                .map_err(StoreError::io("read", &path))?;
            if ObjectDigest::of(&bytes) != entry.info.digest {
                return Err(StoreError::Pack {
                    path,
                    problem: "an object that is needed has other bytes than its digest says; `verify` moves it aside",
                });
            }
            let writer = match &mut writer {
                Some(writer) => writer,
                none => none.insert(PackWriter::new(store.staged_file()?)?),
            };
            let offset = writer.append(entry.kind, entry.info, &bytes)?;
            if entry.kind == EntryKind::Object {
                moved.insert((pack.id, entry.offset), offset);
            }
        }
    }
    let sealed = writer.map(PackWriter::seal).transpose()?;
    Ok(sealed.map(|sealed| (sealed, moved)))
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
        let mut update = transaction
            .prepare("UPDATE objects SET pack = ?1, offset = ?2 WHERE pack = ?3 AND offset = ?4")?;
        for ((old, offset), to) in moved {
            update.execute(params![new, to_integer(*to)?, old, to_integer(*offset)?])?;
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
    let mut rows_of = transaction.prepare("SELECT id, offset FROM objects WHERE pack = ?1")?;
    for pack in &plan.packs {
        let mut rows = rows_of.query([pack.id])?;
        while let Some(row) = rows.next()? {
            let offset = crate::index::from_integer(row, 1)?;
            let is_moved =
                new_pack.is_some_and(|(_, moved)| moved.contains_key(&(pack.id, offset)));
            if !is_moved && !going.contains(&row.get(0)?) {
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
        let records = read_records(&pack)?.unwrap_or_default();
        if records
            .values()
            .any(|(subject, _)| plan.subjects.contains(subject))
        {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Removes those of the files that no row names.
fn remove_orphans(store: &Inner, paths: &[PathBuf]) -> Result<(), StoreError> {
    let _publishing = store.nobody_publishes()?;
    let orphans: Vec<&PathBuf> = store.index.read(|connection| {
        let mut file =
            connection.prepare("SELECT 1 FROM objects WHERE digest = ?1 AND pack IS NULL")?;
        let mut pack = connection.prepare("SELECT 1 FROM packs WHERE name = ?1")?;
        let mut orphans = Vec::new();
        for path in paths {
            let row: Option<i64> = match named_by(path) {
                Named::Object(digest) => file.query_row([digest.as_bytes()], |row| row.get(0)),
                Named::Pack(name) => pack.query_row([name.as_bytes()], |row| row.get(0)),
                Named::Nothing => continue,
            }
            .optional()?;
            if row.is_none() {
                orphans.push(path);
            }
        }
        Ok(orphans)
    })?;
    for path in orphans {
        durable::remove_file(store.file_system.as_ref(), path)?;
    }
    Ok(())
}

enum Named {
    Object(ObjectDigest),
    Pack(ObjectDigest),
    Nothing,
}

fn named_by(path: &Path) -> Named {
    if path
        .extension()
        .is_some_and(|extension| extension == "pack")
    {
        return path
            .file_stem()
            .and_then(parse_name)
            .map_or(Named::Nothing, Named::Pack);
    }
    path.file_name()
        .and_then(parse_name)
        .map_or(Named::Nothing, Named::Object)
}
