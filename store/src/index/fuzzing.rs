//! See [`crate::fuzzing`].
#![allow(clippy::unwrap_used)]

use rusqlite::{Connection, OptionalExtension as _};

use super::objects::{AT_DIGEST, LOCATED, at_digest, located};
use super::{records, schema};
use crate::{ObjectDigest, RecipeKey, RootName};

/// The tables without what SQLite would refuse: a disk changes values without asking it.
pub(crate) fn create_without_rules(connection: &mut Connection) {
    let texts: Vec<String> = {
        let mut real = Connection::open_in_memory().unwrap();
        let transaction = real.transaction().unwrap();
        schema::create(&transaction).unwrap();
        let query = "SELECT sql FROM sqlite_schema WHERE type = 'table'";
        let mut tables = transaction.prepare(query).unwrap();
        let texts = tables.query_map([], |row| row.get(0)).unwrap();
        texts.map(Result::unwrap).collect()
    };
    for text in texts {
        let text = text.replace(" STRICT, WITHOUT ROWID", "");
        let text = text.replace(" STRICT", "").replace(" NOT NULL", "");
        connection.execute_batch(&text).unwrap();
    }
    let pragmas = "PRAGMA ignore_check_constraints = ON; PRAGMA foreign_keys = OFF";
    connection.execute_batch(pragmas).unwrap();
}

/// Reads these, and everything: all is refused, or what it says that it is.
pub(crate) fn read(
    connection: &Connection,
    digests: &[ObjectDigest],
    keys: &[RecipeKey],
    names: &[RootName],
) {
    let query = format!("SELECT {LOCATED} FROM objects WHERE {AT_DIGEST}");
    let mut statement = connection.prepare(&query).unwrap();
    for digest in digests {
        let found = statement.query_row(at_digest(digest), located);
        if let Ok(Some(located)) = found.optional() {
            assert_eq!(located.info.digest, *digest);
        }
    }
    for key in keys {
        let _ = records::realisation(connection, key);
    }
    let roots = records::roots(connection).unwrap_or_default();
    assert!(roots.is_sorted_by(|a, b| a.name < b.name));
    for name in names {
        let root = records::root(connection, name);
        // The two ways to read a root come to the same.
        if let Some(listed) = roots.iter().find(|listed| listed.name == *name) {
            let (_, objects) = root.unwrap().unwrap();
            assert!(listed.objects.iter().eq(&objects.unwrap()));
        }
    }
}
