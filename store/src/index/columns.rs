//! What a column of a row holds: digests, and numbers that SQLite has as signed ones.

use rusqlite::Row;

use crate::ObjectDigest;

pub(super) fn object_digest(row: &Row<'_>, column: usize) -> rusqlite::Result<ObjectDigest> {
    row.get(column).map(ObjectDigest::from_bytes)
}

pub(crate) fn to_integer(number: u64) -> rusqlite::Result<i64> {
    i64::try_from(number).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

pub(crate) fn from_integer(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, number))
}
