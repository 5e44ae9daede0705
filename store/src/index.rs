//! The SQLite index: which object is where, what recipes gave, what is kept.
//!
//! Its SQL is `schema/index.sql`. Several processes use it at once: write
//! transactions are immediate (a deferred one fails as soon as another process
//! writes between its read and its write), and wait for each other.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{
    Connection, ErrorCode, OpenFlags, OptionalExtension as _, Row, Transaction,
    TransactionBehavior, params,
};

use crate::object::{Located, ObjectInfo, Place};
use crate::record::Record;
use crate::{
    ObjectDigest, Realisation, RecipeKey, Root, RootName, Sha256Digest, StoreError, durable,
};

const SCHEMA: &str = include_str!("../../schema/index.sql");
/// `PRAGMA user_version` of an index that is whole.
const SCHEMA_VERSION: i64 = 1;
/// `PRAGMA application_id`: "fbst".
const APPLICATION_ID: i64 = 0x6662_7374;
const TABLES: [&str; 7] = [
    "clock",
    "objects",
    "packs",
    "realisation_outputs",
    "realisations",
    "root_objects",
    "roots",
];
/// How long a writer waits for the others. A transaction lasts milliseconds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(60);

/// An open index.
#[derive(Debug)]
pub(crate) struct Index {
    path: PathBuf,
    connection: Mutex<Connection>,
}

/// What a batch, or a rebuild, adds to the index.
#[derive(Debug, Default)]
pub(crate) struct Additions {
    pub(crate) files: Vec<ObjectInfo>,
    pub(crate) packs: Vec<(ObjectDigest, Vec<(ObjectInfo, u64)>)>,
    pub(crate) records: Vec<Record>,
}

impl Index {
    /// Opens the index at `path`; none if it is missing, or not one, or not whole.
    pub(crate) fn open(path: &Path) -> Result<Option<Self>, StoreError> {
        if !exists(path)? || exists(&damage_mark(path))? {
            return Ok(None);
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let opened = Connection::open_with_flags(path, flags).and_then(|connection| {
            configure(&connection)?;
            let version = schema_version(&connection)?;
            Ok((connection, version))
        });
        match opened {
            Ok((connection, Some(SCHEMA_VERSION))) => Ok(Some(Self {
                path: path.to_owned(),
                connection: Mutex::new(connection),
            })),
            Ok((_, Some(found))) if found > SCHEMA_VERSION => Err(StoreError::NewerSchema {
                path: path.to_owned(),
                found,
                supported: SCHEMA_VERSION,
            }),
            Ok(_) => Ok(None),
            Err(error) if is_damage(&error) => Ok(None),
            Err(source) => Err(StoreError::Index {
                path: path.to_owned(),
                source,
            }),
        }
    }

    /// Writes a new index with `additions` at `path`, where no file is.
    ///
    /// The version, which makes it a whole one, is committed together with the rows.
    pub(crate) fn create(path: &Path, additions: &Additions) -> Result<(), StoreError> {
        let create = || {
            let mut connection = Connection::open(path)?;
            configure(&connection)?;
            connection.pragma_update(None, "journal_mode", "WAL")?;
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            transaction.execute_batch(SCHEMA)?;
            add(&transaction, additions)?;
            transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
            transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
            transaction.commit()
        };
        create().map_err(|source| StoreError::Index {
            path: path.to_owned(),
            source,
        })?;
        path.parent().map_or(Ok(()), durable::sync_directory)
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        // Every write is one transaction, which a panic rolls back.
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn query<T>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        query(&self.connection()).map_err(|source| self.error(source))
    }

    fn error(&self, source: rusqlite::Error) -> StoreError {
        let path = self.path.clone();
        if is_damage(&source) {
            // The next open finds the mark. If it cannot be made, this is found again.
            let _ = File::create(damage_mark(&path));
            return StoreError::IndexDamaged { path, source };
        }
        StoreError::Index { path, source }
    }

    /// Where the object is.
    pub(crate) fn locate(&self, digest: &ObjectDigest) -> Result<Option<Located>, StoreError> {
        self.query(|connection| {
            connection
                .prepare_cached(
                    "SELECT digest, sha256, size, packs.name, offset FROM objects
                     LEFT JOIN packs ON packs.id = objects.pack WHERE digest = ?1",
                )?
                .query_row([digest.as_bytes()], located)
                .optional()
        })
    }

    /// Where the object with that SHA-256 is.
    pub(crate) fn locate_by_sha256(
        &self,
        digest: &Sha256Digest,
    ) -> Result<Option<Located>, StoreError> {
        self.query(|connection| {
            connection
                .prepare_cached(
                    "SELECT digest, sha256, size, packs.name, offset FROM objects
                     LEFT JOIN packs ON packs.id = objects.pack WHERE sha256 = ?1
                     ORDER BY objects.id LIMIT 1",
                )?
                .query_row([digest.as_bytes()], located)
                .optional()
        })
    }

    /// Drops the row of an object, unless it says another place by now.
    pub(crate) fn forget(&self, object: &Located) -> Result<(), StoreError> {
        let (pack, offset) = match object.place {
            Place::File => (None, None),
            Place::Pack { name, offset } => (Some(name), Some(offset)),
        };
        self.query(|connection| {
            connection
                .prepare_cached(
                    "DELETE FROM objects WHERE digest = ?1 AND offset IS ?3
                     AND pack IS (SELECT id FROM packs WHERE name = ?2)",
                )?
                .execute(params![
                    object.info.digest.as_bytes(),
                    pack.as_ref().map(ObjectDigest::as_bytes),
                    offset.map(to_integer).transpose()?,
                ])
                .map(drop)
        })
    }

    /// The recorded outputs of a recipe, whether or not they are in the store.
    pub(crate) fn realisation(&self, key: &RecipeKey) -> Result<Option<Realisation>, StoreError> {
        self.query(|connection| Ok(realisation(connection, key)?.map(|(_, _, value)| value)))
    }

    /// The objects of one root; none if there is no such root.
    pub(crate) fn root(
        &self,
        name: &RootName,
    ) -> Result<Option<BTreeSet<ObjectDigest>>, StoreError> {
        self.query(|connection| Ok(root(connection, name)?.and_then(|(_, _, objects)| objects)))
    }

    /// Every root, sorted by name.
    pub(crate) fn roots(&self) -> Result<Vec<Root>, StoreError> {
        self.query(|connection| {
            let mut names = connection
                .prepare_cached("SELECT name FROM roots WHERE removed = 0 ORDER BY name")?;
            let names: Vec<RootName> = names
                .query_map([], |row| parse(row, 0))?
                .collect::<Result<_, _>>()?;
            let mut roots = Vec::with_capacity(names.len());
            for name in names {
                if let Some((_, _, Some(objects))) = root(connection, &name)? {
                    let objects = objects.into_iter().collect();
                    roots.push(Root { name, objects });
                }
            }
            Ok(roots)
        })
    }

    /// The highest sequence of any record.
    pub(crate) fn last_sequence(&self) -> Result<i64, StoreError> {
        self.query(|connection| {
            connection
                .prepare_cached("SELECT last_sequence FROM clock")?
                .query_row([], |row| row.get(0))
        })
    }

    /// Adds all of it, or nothing.
    pub(crate) fn add(&self, additions: &Additions) -> Result<(), StoreError> {
        let mut connection = self.connection();
        let mut run = || {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            add(&transaction, additions)?;
            transaction.commit()
        };
        run().map_err(|source| self.error(source))
    }

    /// Replaces everything by what `survey` finds while nobody else writes.
    pub(crate) fn replace(
        &self,
        survey: impl FnOnce() -> Result<Additions, StoreError>,
    ) -> Result<(), StoreError> {
        let mut connection = self.connection();
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(|source| self.error(source))?;
        let additions = survey()?;
        let run = || {
            transaction.execute_batch(
                "DELETE FROM root_objects; DELETE FROM roots;
                 DELETE FROM realisation_outputs; DELETE FROM realisations;
                 DELETE FROM objects; DELETE FROM packs; UPDATE clock SET last_sequence = 0;",
            )?;
            add(&transaction, &additions)?;
            transaction.commit()
        };
        run().map_err(|source| self.error(source))
    }
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)
}

/// The version of the schema; none if it is not an index of ours, or not whole.
fn schema_version(connection: &Connection) -> rusqlite::Result<Option<i64>> {
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    if pragma("application_id")? != APPLICATION_ID {
        return Ok(None);
    }
    let version = pragma("user_version")?;
    if version == SCHEMA_VERSION {
        let tables: Vec<String> = connection
            .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")?
            .query_map([], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        if tables != TABLES {
            return Ok(None);
        }
    }
    Ok(Some(version))
}

/// Whether the file is no SQLite database, or not a whole one, rather than unreadable for now.
fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt)
    )
}

fn damage_mark(path: &Path) -> PathBuf {
    path.with_extension("sqlite-damaged")
}

fn exists(path: &Path) -> Result<bool, StoreError> {
    path.try_exists().map_err(StoreError::io("open", path))
}

fn add(transaction: &Transaction<'_>, additions: &Additions) -> rusqlite::Result<()> {
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
        for (info, offset) in objects {
            add_object(transaction, info, Some((pack, *offset)))?;
        }
    }
    for record in &additions.records {
        add_record(transaction, record)?;
    }
    Ok(())
}

fn add_object(
    transaction: &Transaction<'_>,
    info: &ObjectInfo,
    pack: Option<(i64, u64)>,
) -> rusqlite::Result<()> {
    // Whoever was first with the same object has it as safely as we do.
    transaction
        .prepare_cached(
            "INSERT INTO objects (digest, sha256, size, pack, offset)
             VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (digest) DO NOTHING",
        )?
        .execute(params![
            info.digest.as_bytes(),
            info.sha256.as_bytes(),
            to_integer(info.size)?,
            pack.map(|(id, _)| id),
            pack.map(|(_, offset)| to_integer(offset)).transpose()?,
        ])
        .map(drop)
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
            if old.is_some_and(|(_, at, value)| (at, &value.outputs) >= (*sequence, outputs)) {
                return Ok(());
            }
            let id: i64 = transaction
                .prepare_cached(
                    "INSERT INTO realisations (key, sequence) VALUES (?1, ?2)
                     ON CONFLICT (key) DO UPDATE SET sequence = excluded.sequence RETURNING id",
                )?
                .query_row(params![key.as_bytes(), sequence], |row| row.get(0))?;
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
            if old.is_some_and(|(_, at, value)| (at, &value) >= (*sequence, objects)) {
                return Ok(());
            }
            let id: i64 = transaction
                .prepare_cached(
                    "INSERT INTO roots (name, sequence, removed) VALUES (?1, ?2, ?3)
                     ON CONFLICT (name) DO UPDATE
                     SET sequence = excluded.sequence, removed = excluded.removed RETURNING id",
                )?
                .query_row(params![name.as_str(), sequence, objects.is_none()], |row| {
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

type Versioned<T> = Option<(i64, i64, T)>;

/// A realisation's row id, sequence and outputs.
fn realisation(
    connection: &Connection,
    key: &RecipeKey,
) -> rusqlite::Result<Versioned<Realisation>> {
    let Some((id, sequence)) = connection
        .prepare_cached("SELECT id, sequence FROM realisations WHERE key = ?1")?
        .query_row([key.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?
    else {
        return Ok(None);
    };
    let outputs: BTreeMap<String, ObjectDigest> = connection
        .prepare_cached("SELECT name, digest FROM realisation_outputs WHERE realisation = ?1")?
        .query_map([id], |row| Ok((row.get(0)?, object_digest(row, 1)?)))?
        .collect::<Result<_, _>>()?;
    Ok(Some((id, sequence, Realisation { outputs })))
}

/// A root's row id, sequence and objects; no objects if it was removed.
fn root(
    connection: &Connection,
    name: &RootName,
) -> rusqlite::Result<Versioned<Option<BTreeSet<ObjectDigest>>>> {
    let Some((id, sequence, removed)) = connection
        .prepare_cached("SELECT id, sequence, removed FROM roots WHERE name = ?1")?
        .query_row([name.as_str()], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .optional()?
    else {
        return Ok(None);
    };
    if removed {
        return Ok(Some((id, sequence, None)));
    }
    let objects = connection
        .prepare_cached("SELECT digest FROM root_objects WHERE root = ?1")?
        .query_map([id], |row| object_digest(row, 0))?
        .collect::<Result<_, _>>()?;
    Ok(Some((id, sequence, Some(objects))))
}

fn located(row: &Row<'_>) -> rusqlite::Result<Located> {
    let pack: Option<[u8; 32]> = row.get(3)?;
    let place = match pack {
        None => Place::File,
        Some(name) => Place::Pack {
            name: ObjectDigest::from_bytes(name),
            offset: from_integer(row, 4)?,
        },
    };
    Ok(Located {
        info: ObjectInfo {
            digest: object_digest(row, 0)?,
            sha256: Sha256Digest::from_bytes(row.get(1)?),
            size: from_integer(row, 2)?,
        },
        place,
    })
}

fn object_digest(row: &Row<'_>, column: usize) -> rusqlite::Result<ObjectDigest> {
    row.get(column).map(ObjectDigest::from_bytes)
}

fn parse(row: &Row<'_>, column: usize) -> rusqlite::Result<RootName> {
    let text: String = row.get(column)?;
    text.parse().map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(
            column,
            rusqlite::types::Type::Text,
            Box::new(error),
        )
    })
}

fn to_integer(number: u64) -> rusqlite::Result<i64> {
    i64::try_from(number).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

fn from_integer(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, number))
}
