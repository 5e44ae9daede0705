//! See [`crate::fuzzing`].

use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags, params_from_iter};

use crate::bytes::{take, take_slice, take_u64};
use crate::collect::Marked;
use crate::index::fuzzing::{create_without_rules, read};
use crate::{ObjectDigest, RecipeKey, RootName};

/// The tables, and how many columns each has.
const TABLES: [(&str, usize); 7] = [
    ("packs", 2),
    ("objects", 7),
    ("condemned", 2),
    ("realisations", 4),
    ("realisation_outputs", 3),
    ("roots", 5),
    ("root_objects", 2),
];

thread_local! {
    /// Made once: making the tables takes longer than reading what is in them.
    static ROWS: Connection = {
        let mut connection = open();
        create_without_rules(&mut connection);
        connection
    };
}

/// One more connection to the same tables, which are in memory.
fn open() -> Connection {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_URI;
    let path = "file:index-rows?mode=memory&cache=shared";
    Connection::open_with_flags(path, flags).unwrap()
}

/// Rows that a disk has changed are refused, or are what they say that they are.
pub fn index_rows(bytes: &[u8]) {
    ROWS.with(|connection| check(connection, bytes));
}

fn check(connection: &Connection, bytes: &[u8]) {
    let transaction = connection.unchecked_transaction().unwrap();
    for (name, _) in TABLES {
        connection
            .execute(&format!("DELETE FROM {name}"), [])
            .unwrap();
    }
    let (mut digests, mut keys, mut names) = (Vec::new(), Vec::new(), Vec::new());
    let mut rest = bytes;
    while let Some([table]) = take(&mut rest) {
        let (name, columns) = TABLES[usize::from(table) % 7];
        let values: Vec<Value> = (0..columns).map_while(|_| value(&mut rest)).collect();
        for value in &values {
            match value {
                Value::Blob(bytes) => {
                    if let Ok(bytes) = bytes.as_slice().try_into() {
                        digests.push(ObjectDigest::from_bytes(bytes));
                        keys.push(RecipeKey::from_bytes(bytes));
                    }
                }
                Value::Text(text) => names.extend(text.parse::<RootName>()),
                _ => {}
            }
        }
        let places = vec!["?"; columns].join(", ");
        let insert = format!("INSERT OR IGNORE INTO {name} VALUES ({places})");
        let mut insert = connection.prepare_cached(&insert).unwrap();
        // The values may be too few.
        let _ = insert.execute(params_from_iter(values));
    }
    transaction.commit().unwrap();

    read(connection, &digests, &keys, &names);
    let leased = digests.iter().copied().take(1).collect();
    // As much as a first byte says, or no budget at all.
    let budget = bytes.first().map(|first| u64::from(*first) << 56);
    let Ok(mut marked) = Marked::new(connection, open(), &leased, budget) else {
        return;
    };
    assert!(marked.objects.is_sorted_by_key(|row| row.digest));
    for digest in &leased {
        assert!(marked.find(digest).is_none_or(|at| marked.objects[at].kept));
    }
    marked.condemn(0);
    let mut objects = marked.objects.iter();
    assert!(objects.all(|row| row.kept == row.condemned.is_none()));
}

/// A value of any type that SQLite has, after a byte that says which.
fn value(rest: &mut &[u8]) -> Option<Value> {
    let [kind] = take(rest)?;
    Some(match kind % 6 {
        0 => Value::Null,
        1 => Value::Integer(take_u64(rest)? as i64),
        2 => Value::Integer(take(rest).map(|[byte]: [u8; 1]| byte.into())?),
        3 => Value::Blob(take::<32>(rest)?.to_vec()),
        4 => Value::Text(String::from_utf8_lossy(some(rest)?).into_owned()),
        _ => match some(rest)? {
            bytes if bytes.len() == 8 => Value::Real(f64::from_le_bytes(bytes.try_into().unwrap())),
            bytes => Value::Blob(bytes.to_vec()),
        },
    })
}

/// So many bytes as the first says.
fn some<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let [length] = take(rest)?;
    take_slice(rest, length.into())
}
