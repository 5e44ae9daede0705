//! The versions of the index's schema, and how one becomes the next.

use rusqlite::{Connection, Transaction};

use super::{checksum, objects};

/// What makes the first version, or leads from one to the next: SQL, and what that cannot say.
type Step = (&'static str, fn(&Transaction<'_>) -> rusqlite::Result<()>);

const STEPS: [Step; 4] = [
    (include_str!("../../../schema/index.sql"), |_| Ok(())),
    (include_str!("../../../schema/index-2.sql"), |_| Ok(())),
    (
        include_str!("../../../schema/index-3.sql"),
        checksum::fill_in,
    ),
    (include_str!("../../../schema/index-4.sql"), place_by_digest),
];
/// `PRAGMA user_version` of an index that is whole.
pub(super) const VERSION: i64 = STEPS.len() as i64;
/// `PRAGMA application_id`: "fbst".
const APPLICATION_ID: i64 = 0x6662_7374;
/// CRC-32 of the schema's text, as SQLite keeps it: a page of it may be damaged, too.
const TEXT: u32 = 0x9a35_860a;

/// Makes the tables of a new index. What makes it a whole one, the version, is part of the
/// transaction.
pub(super) fn create(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    upgrade(transaction, 0)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)
}

/// Brings an index of that version to the newest.
pub(super) fn upgrade(transaction: &Transaction<'_>, from: i64) -> rusqlite::Result<()> {
    for (sql, rest) in STEPS.iter().skip(usize::try_from(from).unwrap_or(0)) {
        transaction.execute_batch(sql)?;
        rest(transaction)?;
    }
    transaction.pragma_update(None, "user_version", VERSION)
}

/// The version of the schema; none if it is not an index of ours, or not whole.
pub(super) fn version(connection: &Connection) -> rusqlite::Result<Option<i64>> {
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    if pragma("application_id")? != APPLICATION_ID {
        return Ok(None);
    }
    let version = pragma("user_version")?;
    if version == VERSION && text(connection)? != TEXT {
        return Ok(None);
    }
    Ok(Some(version))
}

fn text(connection: &Connection) -> rusqlite::Result<u32> {
    let mut text = crc32fast::Hasher::new();
    let mut statement = connection.prepare(
        "SELECT type, name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%' ORDER BY name",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        for column in 0..3 {
            text.update(row.get_ref(column)?.as_bytes().unwrap_or_default());
            text.update(b"\n");
        }
    }
    Ok(text.finalize())
}

/// Moves the objects to the ids that their digests say.
fn place_by_digest(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    {
        let mut select = transaction.prepare(
            "SELECT digest, sha256, size, pack, offset, checksum, since FROM objects_3
             LEFT JOIN condemned_3 ON object = objects_3.id ORDER BY digest",
        )?;
        let mut insert = transaction.prepare("INSERT INTO condemned VALUES (?1, ?2)")?;
        let mut found = select.query([])?;
        while let Some(row) = found.next()? {
            let (info, pack) = objects::object(row, 0)?;
            let id = objects::add_object(transaction, &info, pack)?;
            if let Some(since) = row.get::<_, Option<i64>>(6)? {
                insert.execute([id, since])?;
            }
        }
    }
    transaction.execute_batch("DROP TABLE condemned_3; DROP TABLE objects_3")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_has_the_checksum_that_is_looked_for() {
        let mut connection = Connection::open_in_memory().unwrap();
        let transaction = connection.transaction().unwrap();
        create(&transaction).unwrap();
        transaction.commit().unwrap();
        assert_eq!(
            format!("{:#x}", text(&connection).unwrap()),
            format!("{TEXT:#x}")
        );
        assert_eq!(version(&connection).unwrap(), Some(VERSION));
        connection
            .execute_batch("DROP INDEX objects_by_pack")
            .unwrap();
        assert_eq!(version(&connection).unwrap(), None);
    }
}
