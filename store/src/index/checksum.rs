//! Checksums of rows, as `schema/index-3.sql` describes them: SQLite does not notice that
//! a disk has changed a byte within a row.

use rusqlite::{Connection, Transaction, params};

use super::columns::{from_integer, to_integer};
use crate::object::ObjectInfo;
use crate::{ObjectDigest, RecipeKey, Sha256Digest};

/// Gathers what a row says.
struct Checksum(crc32fast::Hasher);

impl Checksum {
    fn new() -> Self {
        Self(crc32fast::Hasher::new())
    }

    fn number(&mut self, number: i64) -> &mut Self {
        self.bytes(&number.to_le_bytes())
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.update(bytes);
        self
    }

    fn finish(self) -> i64 {
        self.0.finalize().into()
    }
}

/// Of an object in the pack with that id, from that offset on, or in a file of its own.
pub(crate) fn of_object(info: &ObjectInfo, pack: Option<(i64, u64)>) -> rusqlite::Result<i64> {
    let (id, offset) = match pack {
        Some((id, offset)) => (id, to_integer(offset)?),
        None => (-1, -1),
    };
    // Together, because a collection does this for every object.
    let numbers = [to_integer(info.size)?, id, offset].map(i64::to_le_bytes);
    let mut checksum = Checksum::new();
    checksum
        .bytes(info.digest.as_bytes())
        .bytes(info.sha256.as_bytes())
        .bytes(numbers.as_flattened());
    Ok(checksum.finish())
}

/// Of a realisation; its outputs sorted by name.
pub(crate) fn of_realisation<'a>(
    key: &RecipeKey,
    sequence: i64,
    outputs: impl Iterator<Item = (&'a str, &'a ObjectDigest)>,
) -> rusqlite::Result<i64> {
    let mut checksum = Checksum::new();
    checksum.bytes(key.as_bytes()).number(sequence);
    for (name, digest) in outputs {
        checksum
            .number(to_integer(name.len() as u64)?)
            .bytes(name.as_bytes())
            .bytes(digest.as_bytes());
    }
    Ok(checksum.finish())
}

/// Of a root; its objects sorted.
pub(crate) fn of_root<'a>(
    name: &str,
    sequence: i64,
    removed: bool,
    objects: impl Iterator<Item = &'a ObjectDigest>,
) -> i64 {
    let mut checksum = Checksum::new();
    checksum.number(sequence).number(removed.into());
    checksum.bytes(name.as_bytes());
    for digest in objects {
        checksum.bytes(digest.as_bytes());
    }
    checksum.finish()
}

/// The error of a row that does not have its checksum: as SQLite's own for a damaged file.
pub(crate) fn damage(what: &str) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(
        rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT),
        Some(what.to_owned()),
    )
}

/// The error if the two are not the same.
pub(crate) fn check(
    found: i64,
    expected: i64,
    what: impl FnOnce() -> String,
) -> rusqlite::Result<()> {
    match found == expected {
        true => Ok(()),
        false => Err(damage(&format!("{} does not have its checksum", what()))),
    }
}

/// Fills in the checksums of all rows, for an index that had none.
pub(super) fn fill_in(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    each_object(transaction)?;
    let mut update = transaction.prepare("UPDATE realisations SET checksum = ?2 WHERE key = ?1")?;
    let keys: Vec<[u8; 32]> = first_column(transaction, "SELECT key FROM realisations")?;
    for key in keys {
        let key = RecipeKey::from_bytes(key);
        if let Some((sequence, _, value)) = super::records::realisation_row(transaction, &key)? {
            let outputs = value.outputs.iter().map(|(name, digest)| (&**name, digest));
            let checksum = of_realisation(&key, sequence, outputs)?;
            update.execute(params![key.as_bytes(), checksum])?;
        }
    }
    let mut update = transaction.prepare("UPDATE roots SET checksum = ?2 WHERE name = ?1")?;
    let names: Vec<String> = first_column(transaction, "SELECT name FROM roots")?;
    for name in names {
        if let Some((sequence, _, value)) = super::records::root_row(transaction, &name)? {
            let objects = value.iter().flatten();
            let checksum = of_root(&name, sequence, value.is_none(), objects);
            update.execute(params![name, checksum])?;
        }
    }
    Ok(())
}

fn each_object(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    let mut select =
        transaction.prepare("SELECT id, digest, sha256, size, pack, offset FROM objects")?;
    let mut update = transaction.prepare("UPDATE objects SET checksum = ?2 WHERE id = ?1")?;
    let mut rows = select.query([])?;
    let mut checksums: Vec<(i64, i64)> = Vec::new();
    while let Some(row) = rows.next()? {
        let info = ObjectInfo {
            digest: ObjectDigest::from_bytes(row.get(1)?),
            sha256: Sha256Digest::from_bytes(row.get(2)?),
            size: from_integer(row, 3)?,
        };
        let pack = match row.get(4)? {
            Some(id) => Some((id, from_integer(row, 5)?)),
            None => None,
        };
        checksums.push((row.get(0)?, of_object(&info, pack)?));
    }
    for (id, checksum) in checksums {
        update.execute([id, checksum])?;
    }
    Ok(())
}

fn first_column<T: rusqlite::types::FromSql>(
    connection: &Connection,
    query: &str,
) -> rusqlite::Result<Vec<T>> {
    connection
        .prepare(query)?
        .query_map([], |row| row.get(0))?
        .collect()
}
