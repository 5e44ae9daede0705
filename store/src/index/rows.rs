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

/// How many ids an object can have, in `schema/index-4.sql`. That many digests that begin with
/// the same 62 bits nobody can find.
const IDS: i64 = 16;

/// The lowest id that an object with that digest can have.
fn first_id(digest: &ObjectDigest) -> i64 {
    let first = digest.as_bytes().first_chunk();
    first.map_or(0, |bytes| (u64::from_be_bytes(*bytes) >> 2) as i64)
}

/// Whether an object with that digest can have that id.
pub(crate) fn can_have_id(digest: &ObjectDigest, id: i64) -> bool {
    let first = first_id(digest);
    (first..first + IDS).contains(&id)
}

/// Selects, from `objects`, the row of a digest: its parameters are [`at_digest`].
pub(crate) const AT_DIGEST: &str = "id BETWEEN ?1 AND ?1 + 15 AND digest = ?2";

pub(crate) fn at_digest(digest: &ObjectDigest) -> (i64, &[u8; 32]) {
    (first_id(digest), digest.as_bytes())
}

/// Takes back that the object is condemned.
pub(super) fn revive(
    transaction: &Transaction<'_>,
    digest: &ObjectDigest,
) -> rusqlite::Result<usize> {
    transaction
        .prepare_cached(&format!(
            "DELETE FROM condemned WHERE object = (SELECT id FROM objects WHERE {AT_DIGEST})",
        ))?
        .execute(at_digest(digest))
}

/// The object's id: the one that it has, or can be given. Whether it has it.
fn id_of(connection: &Connection, digest: &ObjectDigest) -> rusqlite::Result<(i64, bool)> {
    let first = first_id(digest);
    let mut statement = connection.prepare_cached(
        "SELECT id, digest FROM objects WHERE id BETWEEN ?1 AND ?1 + 15 ORDER BY id",
    )?;
    let mut rows = statement.query([first])?;
    let mut free = first;
    while let Some(row) = rows.next()? {
        let id = row.get(0)?;
        if object_digest(row, 1)? == *digest {
            return Ok((id, true));
        }
        if id == free {
            free += 1;
        }
    }
    match free < first + IDS {
        true => Ok((free, false)),
        false => Err(checksum::damage(&format!(
            "no id is left for object {digest}"
        ))),
    }
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
        // In the order of their ids: each page of a large index is then changed once, not
        // read and written again for every object on it.
        let mut objects: Vec<_> = objects.iter().collect();
        objects.sort_unstable_by_key(|(info, _)| info.digest);
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

/// Adds an object, unless it is there; its id.
pub(super) fn add_object(
    transaction: &Transaction<'_>,
    info: &ObjectInfo,
    pack: Option<(i64, u64)>,
) -> rusqlite::Result<i64> {
    let (id, is_there) = id_of(transaction, &info.digest)?;
    if is_there {
        // Whoever was first with the same object has it as safely as we do.
        return Ok(id);
    }
    transaction
        .prepare_cached(
            "INSERT INTO objects (id, digest, sha256, size, pack, offset, checksum)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            id,
            info.digest.as_bytes(),
            info.sha256.as_bytes(),
            to_integer(info.size)?,
            pack.map(|(id, _)| id),
            pack.map(|(_, offset)| to_integer(offset)).transpose()?,
            checksum::of_object(info, pack)?,
        ])?;
    Ok(id)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn info(first: u8, last: u8) -> ObjectInfo {
        let mut digest = [first; 32];
        digest[31] = last;
        ObjectInfo {
            digest: ObjectDigest::from_bytes(digest),
            sha256: Sha256Digest::from_bytes([last; 32]),
            size: last.into(),
        }
    }

    fn find(connection: &Connection, info: &ObjectInfo) -> Option<ObjectInfo> {
        let query = format!("SELECT {LOCATED} FROM objects WHERE {AT_DIGEST}");
        let mut statement = connection.prepare(&query).unwrap();
        let mut rows = statement.query(at_digest(&info.digest)).unwrap();
        rows.next().unwrap().map(|row| located(row).unwrap().info)
    }

    /// The first and the last ids that there are, and some between.
    #[test]
    fn objects_whose_digests_begin_alike_are_told_apart() {
        for first in [0, 1, 0x7f, 0xff] {
            let mut connection = Connection::open_in_memory().unwrap();
            let transaction = connection.transaction().unwrap();
            super::super::schema::create(&transaction).unwrap();
            let ids: Vec<i64> = (0..16)
                .map(|last| add_object(&transaction, &info(first, last), None).unwrap())
                .collect();
            assert!(
                ids.iter()
                    .all(|id| can_have_id(&info(first, 0).digest, *id))
            );
            assert!(add_object(&transaction, &info(first, 16), None).is_err());
            // One that has lost those before it is not added a second time.
            for id in &ids[..5] {
                let delete = "DELETE FROM objects WHERE id = ?1";
                transaction.execute(delete, [id]).unwrap();
            }
            for last in 0..16 {
                let found = find(&transaction, &info(first, last));
                assert_eq!(found, (last >= 5).then(|| info(first, last)));
            }
            assert_eq!(
                add_object(&transaction, &info(first, 9), None).unwrap(),
                ids[9]
            );
            assert_eq!(
                add_object(&transaction, &info(first, 16), None).unwrap(),
                ids[0]
            );
            assert_eq!(find(&transaction, &info(first, 16)), Some(info(first, 16)));
        }
    }
}
