//! What several of the modules need.

use std::fs;
use std::path::{Path, PathBuf};

use forebay_store::{ObjectDigest, Store};

/// An empty store in a directory of its own.
pub(crate) fn new_store() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("store")).unwrap();
    (directory, store)
}

/// Commits one object.
pub(crate) fn put(store: &Store, bytes: &[u8]) -> ObjectDigest {
    let mut batch = store.begin().unwrap();
    let info = batch.put(bytes).unwrap();
    batch.commit().unwrap();
    info.digest
}

/// 300,000 bytes: too large for a pack.
pub(crate) fn large(seed: u8) -> Vec<u8> {
    (0..300_000u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8 ^ seed)
        .collect()
}

/// Every file under `directory`, sorted.
pub(crate) fn files_under(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_under(&path));
        } else {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// Everything that the index says, without its own ids.
pub(crate) fn dump_index(root: &Path) -> Vec<String> {
    let connection = rusqlite::Connection::open(root.join("index.sqlite")).unwrap();
    let mut lines = Vec::new();
    for query in [
        "SELECT 'object ' || hex(digest) || ' ' || hex(sha256) || ' ' || size || ' ' ||
             coalesce(hex(name) || ' ' || offset, 'file')
         FROM objects LEFT JOIN packs ON packs.id = pack ORDER BY digest",
        "SELECT 'pack ' || hex(name) FROM packs ORDER BY name",
        "SELECT 'realisation ' || hex(key) || ' ' || sequence || ' ' ||
             coalesce(name || ' ' || hex(digest), 'nothing')
         FROM realisations LEFT JOIN realisation_outputs ON realisation = id ORDER BY key, name",
        "SELECT 'root ' || name || ' ' || sequence || ' ' || removed || ' ' ||
             coalesce(hex(digest), 'nothing')
         FROM roots LEFT JOIN root_objects ON root = id ORDER BY name, digest",
        "SELECT 'clock ' || last_sequence FROM clock",
    ] {
        let mut statement = connection.prepare(query).unwrap();
        let rows = statement.query_map([], |row| row.get(0)).unwrap();
        lines.extend(rows.map(Result::unwrap));
    }
    lines
}

/// Makes the index one of an older version, by that version's own SQL, with the same rows.
pub(crate) fn downgrade_index(root: &Path, version: usize) {
    let path = root.join("index.sqlite");
    let old = root.join("old.sqlite");
    let connection = rusqlite::Connection::open(&old).unwrap();
    connection
        .pragma_update(None, "journal_mode", "WAL")
        .unwrap();
    for name in ["index.sql", "index-2.sql", "index-3.sql"]
        .iter()
        .take(version)
    {
        let schema = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../schema")
            .join(name);
        connection
            .execute_batch(&fs::read_to_string(schema).unwrap())
            .unwrap();
    }
    connection
        .execute("ATTACH ?1 AS new", [path.to_str().unwrap()])
        .unwrap();
    // Ids were given in the order in which objects came; version 3 has checksums of its rows.
    let checksum = if version > 2 { ", checksum" } else { "" };
    connection
        .execute_batch(&format!(
            "CREATE TEMP TABLE ids AS SELECT id AS new, row_number() OVER (ORDER BY sha256) AS old
                 FROM new.objects;
             INSERT INTO packs SELECT * FROM new.packs;
             INSERT INTO objects SELECT old, digest, sha256, size, pack, offset {checksum}
                 FROM new.objects JOIN ids ON ids.new = id;
             INSERT INTO realisations SELECT id, key, sequence {checksum} FROM new.realisations;
             INSERT INTO realisation_outputs SELECT * FROM new.realisation_outputs;
             INSERT INTO roots SELECT id, name, sequence, removed {checksum} FROM new.roots;
             INSERT INTO root_objects SELECT * FROM new.root_objects;
             UPDATE clock SET last_sequence = (SELECT last_sequence FROM new.clock);
             PRAGMA application_id = {}; PRAGMA user_version = {version};",
            0x6662_7374
        ))
        .unwrap();
    if version > 1 {
        connection
            .execute_batch(
                "INSERT INTO condemned SELECT old, since FROM new.condemned
                     JOIN ids ON ids.new = object",
            )
            .unwrap();
    }
    connection.execute_batch("DETACH new").unwrap();
    drop(connection);
    fs::rename(&old, &path).unwrap();
}
