//! Reading and writing rows.

use std::collections::BTreeSet;

use rusqlite::{Connection, Row, Transaction, params};

use super::checksum;
use crate::object::{Located, ObjectInfo, Place};
use crate::record::Record;
use crate::{ObjectDigest, Realisation, RecipeKey, Root, RootName, Sha256Digest};

/// What a batch, or a rebuild, adds to the index.
#[derive(Debug, Default)]
pub(crate) struct Additions {
    pub(crate) files: Vec<ObjectInfo>,
    pub(crate) packs: Vec<(ObjectDigest, Vec<(ObjectInfo, u64)>)>,
    pub(crate) records: Vec<Record>,
}

impl Additions {
    /// Every object that is added or named.
    pub(crate) fn digests(&self) -> impl Iterator<Item = &ObjectDigest> {
        let packed = self.packs.iter().flat_map(|(_, objects)| objects);
        let named = self.records.iter().flat_map(Record::objects);
        self.files
            .iter()
            .chain(packed.map(|(info, _)| info))
            .map(|info| &info.digest)
            .chain(named)
    }
}

/// Takes back that the object is condemned.
pub(super) fn revive(
    transaction: &Transaction<'_>,
    digest: &ObjectDigest,
) -> rusqlite::Result<usize> {
    transaction
        .prepare_cached(
            "DELETE FROM condemned WHERE object = (SELECT id FROM objects WHERE digest = ?1)",
        )?
        .execute([digest.as_bytes()])
}

pub(super) fn add(transaction: &Transaction<'_>, additions: &Additions) -> rusqlite::Result<()> {
    for info in &additions.files {
        add_object(transaction, info, None)?;
    }
    for (name, objects) in &additions.packs {
        transaction
            .prepare_cached("INSERT INTO packs (name) VALUES (?1) ON CONFLICT DO NOTHING")?
            .execute([name.as_bytes()])?;
        let pack: i64 = transaction
            .prepare_cached("SELECT id FROM packs WHERE name = ?1")?
            .query_row([name.as_bytes()], |row| row.get(0))?;
        for (info, offset) in objects {
            add_object(transaction, info, Some((pack, *offset)))?;
        }
    }
    for record in &additions.records {
        add_record(transaction, record)?;
    }
    // A writer makes what it relies on safe in its own transaction.
    let any: bool = transaction
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM condemned)")?
        .query_row([], |row| row.get(0))?;
    if any {
        for digest in additions.digests() {
            revive(transaction, digest)?;
        }
    }
    Ok(())
}

fn add_object(
    transaction: &Transaction<'_>,
    info: &ObjectInfo,
    pack: Option<(i64, u64)>,
) -> rusqlite::Result<()> {
    // Whoever was first with the same object has it as safely as we do.
    transaction
        .prepare_cached(
            "INSERT INTO objects (digest, sha256, size, pack, offset, checksum)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (digest) DO NOTHING",
        )?
        .execute(params![
            info.digest.as_bytes(),
            info.sha256.as_bytes(),
            to_integer(info.size)?,
            pack.map(|(id, _)| id),
            pack.map(|(_, offset)| to_integer(offset)).transpose()?,
            checksum::of_object(info, pack)?,
        ])
        .map(drop)
}

/// Adds a record unless the index has a newer one.
fn add_record(transaction: &Transaction<'_>, record: &Record) -> rusqlite::Result<()> {
    transaction
        .prepare_cached("UPDATE clock SET last_sequence = max(last_sequence, ?1)")?
        .execute([record.sequence()])?;
    match record {
        Record::Realisation {
            key,
            sequence,
            outputs,
            ..
        } => {
            let old = realisation(transaction, key)?;
            if old.is_some_and(|(at, value)| (at, &value.outputs) >= (*sequence, outputs)) {
                return Ok(());
            }
            let named = outputs.iter().map(|(name, digest)| (&**name, digest));
            let checksum = checksum::of_realisation(key, *sequence, named)?;
            let id: i64 = transaction
                .prepare_cached(
                    "INSERT INTO realisations (key, sequence, checksum) VALUES (?1, ?2, ?3)
                     ON CONFLICT (key) DO UPDATE
                     SET sequence = excluded.sequence, checksum = excluded.checksum RETURNING id",
                )?
                .query_row(params![key.as_bytes(), sequence, checksum], |row| {
                    row.get(0)
                })?;
            transaction
                .prepare_cached("DELETE FROM realisation_outputs WHERE realisation = ?1")?
                .execute([id])?;
            let mut insert = transaction.prepare_cached(
                "INSERT INTO realisation_outputs (realisation, name, digest) VALUES (?1, ?2, ?3)",
            )?;
            for (name, digest) in outputs {
                insert.execute(params![id, name, digest.as_bytes()])?;
            }
        }
        Record::Root {
            name,
            sequence,
            objects,
            ..
        } => {
            let old = root(transaction, name)?;
            if old.is_some_and(|(at, value)| (at, &value) >= (*sequence, objects)) {
                return Ok(());
            }
            let removed = objects.is_none();
            let kept = objects.iter().flatten();
            let checksum = checksum::of_root(name.as_str(), *sequence, removed, kept);
            let id: i64 = transaction
                .prepare_cached(
                    "INSERT INTO roots (name, sequence, removed, checksum) VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT (name) DO UPDATE SET sequence = excluded.sequence,
                         removed = excluded.removed, checksum = excluded.checksum RETURNING id",
                )?
                .query_row(params![name.as_str(), sequence, removed, checksum], |row| {
                    row.get(0)
                })?;
            transaction
                .prepare_cached("DELETE FROM root_objects WHERE root = ?1")?
                .execute([id])?;
            let mut insert = transaction
                .prepare_cached("INSERT INTO root_objects (root, digest) VALUES (?1, ?2)")?;
            for digest in objects.iter().flatten() {
                insert.execute(params![id, digest.as_bytes()])?;
            }
        }
    }
    Ok(())
}

/// The sequence of the record that counts, and what it says.
type Versioned<T> = Option<(i64, T)>;

/// What a recipe gave, if the row has its checksum.
pub(super) fn realisation(
    connection: &Connection,
    key: &RecipeKey,
) -> rusqlite::Result<Versioned<Realisation>> {
    let Some((sequence, sum, value)) = realisation_row(connection, key)? else {
        return Ok(None);
    };
    let outputs = value.outputs.iter().map(|(name, digest)| (&**name, digest));
    let expected = checksum::of_realisation(key, sequence, outputs)?;
    checksum::check(sum, expected, || format!("realisation {key}"))?;
    Ok(Some((sequence, value)))
}

/// Sequence, checksum and value. One statement, so that all of it is of one moment.
pub(super) fn realisation_row(
    connection: &Connection,
    key: &RecipeKey,
) -> rusqlite::Result<Option<(i64, i64, Realisation)>> {
    let mut statement = connection.prepare_cached(
        "SELECT sequence, name, digest, checksum FROM realisations
         LEFT JOIN realisation_outputs ON realisation = id WHERE key = ?1",
    )?;
    let mut rows = statement.query([key.as_bytes()])?;
    let mut found: Option<(i64, i64, Realisation)> = None;
    while let Some(row) = rows.next()? {
        let (.., value) = found.get_or_insert((row.get(0)?, row.get(3)?, Realisation::default()));
        if let Some(name) = row.get(1)? {
            value.outputs.insert(name, object_digest(row, 2)?);
        }
    }
    Ok(found)
}

/// What a root keeps; none inside if it was removed.
type Kept = Option<BTreeSet<ObjectDigest>>;

/// What a root keeps, if the row has its checksum.
pub(super) fn root(connection: &Connection, name: &RootName) -> rusqlite::Result<Versioned<Kept>> {
    let Some((sequence, sum, value)) = root_row(connection, name.as_str())? else {
        return Ok(None);
    };
    let objects = value.iter().flatten();
    let expected = checksum::of_root(name.as_str(), sequence, value.is_none(), objects);
    checksum::check(sum, expected, || format!("root {name}"))?;
    Ok(Some((sequence, value)))
}

/// Sequence, checksum and value. One statement, so that all of it is of one moment.
pub(super) fn root_row(
    connection: &Connection,
    name: &str,
) -> rusqlite::Result<Option<(i64, i64, Kept)>> {
    let mut statement = connection.prepare_cached(
        "SELECT sequence, removed, digest, checksum FROM roots
         LEFT JOIN root_objects ON root = id WHERE name = ?1",
    )?;
    let mut rows = statement.query([name])?;
    let mut found: Option<(i64, i64, Kept)> = None;
    while let Some(row) = rows.next()? {
        let removed: bool = row.get(1)?;
        let empty = (!removed).then(BTreeSet::new);
        let (.., value) = found.get_or_insert((row.get(0)?, row.get(3)?, empty));
        if let (Some(objects), Some(digest)) = (value, row.get(2)?) {
            objects.insert(ObjectDigest::from_bytes(digest));
        }
    }
    Ok(found)
}

/// Every root that was not removed, sorted by name, if all rows have their checksums.
pub(crate) fn roots(connection: &Connection) -> rusqlite::Result<Vec<Root>> {
    let mut statement = connection.prepare_cached(
        "SELECT name, digest, sequence, removed, checksum
         FROM roots LEFT JOIN root_objects ON root = id ORDER BY name, digest",
    )?;
    let mut rows = statement.query([])?;
    let mut roots: Vec<Root> = Vec::new();
    let mut versions: Vec<(i64, bool, i64)> = Vec::new();
    while let Some(row) = rows.next()? {
        let name = root_name(row, 0)?;
        if roots.last().is_none_or(|last| last.name != name) {
            let objects = Vec::new();
            roots.push(Root { name, objects });
            versions.push((row.get(2)?, row.get(3)?, row.get(4)?));
        }
        if let (Some(root), Some(digest)) = (roots.last_mut(), row.get(1)?) {
            root.objects.push(ObjectDigest::from_bytes(digest));
        }
    }
    for (root, (sequence, removed, sum)) in roots.iter().zip(&versions) {
        let name = root.name.as_str();
        let expected = checksum::of_root(name, *sequence, *removed, root.objects.iter());
        checksum::check(*sum, expected, || format!("root {name}"))?;
    }
    let roots = roots.into_iter().zip(versions);
    let live = roots.filter(|(_, (_, removed, _))| !removed);
    Ok(live.map(|(root, _)| root).collect())
}

/// What [`located`] reads.
pub(super) const LOCATED: &str =
    "digest, sha256, size, pack, offset, checksum, (SELECT name FROM packs WHERE id = pack)";

/// Where an object is, if the row has its checksum.
pub(super) fn located(row: &Row<'_>) -> rusqlite::Result<Located> {
    let (info, pack) = object(row, 0)?;
    let place = match pack {
        None => Place::File,
        Some((_, offset)) => Place::Pack {
            name: object_digest(row, 6)?,
            offset,
        },
    };
    Ok(Located { info, place })
}

/// An object and the pack that it is in, if the row has its checksum: six columns as in
/// [`LOCATED`], from `first` on.
pub(crate) fn object(
    row: &Row<'_>,
    first: usize,
) -> rusqlite::Result<(ObjectInfo, Option<(i64, u64)>)> {
    let info = ObjectInfo {
        digest: object_digest(row, first)?,
        sha256: Sha256Digest::from_bytes(row.get(first + 1)?),
        size: from_integer(row, first + 2)?,
    };
    let pack = match row.get(first + 3)? {
        Some(id) => Some((id, from_integer(row, first + 4)?)),
        None => None,
    };
    let expected = checksum::of_object(&info, pack)?;
    checksum::check(row.get(first + 5)?, expected, || {
        format!("object {}", info.digest)
    })?;
    Ok((info, pack))
}

fn object_digest(row: &Row<'_>, column: usize) -> rusqlite::Result<ObjectDigest> {
    row.get(column).map(ObjectDigest::from_bytes)
}

fn root_name(row: &Row<'_>, column: usize) -> rusqlite::Result<RootName> {
    let text: String = row.get(column)?;
    text.parse().map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(
            column,
            rusqlite::types::Type::Text,
            Box::new(error),
        )
    })
}

pub(crate) fn to_integer(number: u64) -> rusqlite::Result<i64> {
    i64::try_from(number).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

pub(crate) fn from_integer(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, number))
}
