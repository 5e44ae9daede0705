//! Adding rows: everything of a batch, or of a rebuild, in one transaction.

use rusqlite::Transaction;

use super::objects::{add_object, revive};
use super::records::add_record;
use crate::ObjectDigest;
use crate::object::ObjectInfo;
use crate::record::Record;

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
