//! Rows of objects: where an object is.

use rusqlite::{Connection, Row, Transaction, params};

use super::checksum;
use super::columns::{from_integer, object_digest, to_integer};
use crate::object::{Located, ObjectInfo, Place};
use crate::{ObjectDigest, Sha256Digest};

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
