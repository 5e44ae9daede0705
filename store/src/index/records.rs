//! Rows of realisations and roots: what the records in packs say.

use std::collections::BTreeSet;

use rusqlite::{Connection, Row, Transaction, params};

use super::checksum;
use super::columns::object_digest;
use crate::record::Record;
use crate::{ObjectDigest, Realisation, RecipeKey, Root, RootName};

/// Adds a record unless the index has a newer one.
pub(super) fn add_record(transaction: &Transaction<'_>, record: &Record) -> rusqlite::Result<()> {
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

/// Every root that was not removed, sorted by name, if all rows have their checksums. The
/// caller sees to it that all statements are of one moment.
pub(crate) fn roots(connection: &Connection) -> rusqlite::Result<Vec<Root>> {
    let mut statement = connection
        .prepare("SELECT id, name, sequence, removed, checksum FROM roots ORDER BY name")?;
    let mut objects_of =
        connection.prepare("SELECT digest FROM root_objects WHERE root = ?1 ORDER BY digest")?;
    let mut rows = statement.query([])?;
    let mut roots = Vec::new();
    while let Some(row) = rows.next()? {
        let id: i64 = row.get(0)?;
        let name = root_name(row, 1)?;
        let (sequence, removed) = (row.get(2)?, row.get(3)?);
        let objects: Vec<_> = objects_of
            .query_map([id], |row| object_digest(row, 0))?
            .collect::<Result<_, _>>()?;
        let expected = checksum::of_root(name.as_str(), sequence, removed, objects.iter());
        checksum::check(row.get(4)?, expected, || format!("root {name}"))?;
        if !removed {
            roots.push(Root { name, objects });
        }
    }
    Ok(roots)
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
