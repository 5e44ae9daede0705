//! The SQLite index: which object is where, what recipes gave, what is kept.
//!
//! Its SQL is `schema/index.sql`. Several processes use it at once: write
//! transactions are immediate (a deferred one fails as soon as another process
//! writes between its read and its write), and wait for each other in a queue that
//! the system keeps. SQLite's own way to wait, asking again after a pause, leaves
//! the index idle most of the time when many wait.
//!
//! A transaction is durable when its write returns, but the log is synced after the
//! next one may begin: several that end at about the same time share one sync. Whoever
//! relies on what somebody else has just written calls [`Index::sync`] before saying so.

pub(crate) mod checksum;
mod rows;
mod schema;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{
    Connection, ErrorCode, OpenFlags, OptionalExtension as _, Transaction, TransactionBehavior,
    params,
};

pub(crate) use rows::{
    AT_DIGEST, Additions, at_digest, can_have_id, from_integer, object, roots, to_integer,
};

use rows::LOCATED;

use crate::file_system::{FileSystem, RealFileSystem};
use crate::layout::Layout;
use crate::object::{Located, Place};
use crate::{
    ObjectDigest, Realisation, RecipeKey, Root, RootName, Sha256Digest, StoreError, durable,
};

/// How long SQLite waits for others. Writers wait in [`Index::write`]; what remains is
/// programs that know nothing of it.
const BUSY_TIMEOUT: Duration = Duration::from_secs(60);

/// An open index.
#[derive(Debug)]
pub(crate) struct Index {
    path: PathBuf,
    /// Held by the one process that writes.
    queue: PathBuf,
    file_system: Arc<dyn FileSystem>,
    connection: Mutex<Connection>,
}

impl Index {
    /// Opens the index; none if it is missing, or not one, or not whole.
    pub(crate) fn open(
        layout: &Layout,
        file_system: &Arc<dyn FileSystem>,
    ) -> Result<Option<Self>, StoreError> {
        let path = &layout.index();
        if !exists(path)? || exists(&damage_mark(path))? {
            return Ok(None);
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let opened = Connection::open_with_flags(path, flags).and_then(|connection| {
            configure(&connection)?;
            let version = schema::version(&connection)?;
            match version {
                Some(old @ 1..schema::VERSION) => migrate(connection, old),
                _ => Ok((connection, version)),
            }
        });
        match opened {
            Ok((connection, Some(schema::VERSION))) => Ok(Some(Self {
                path: path.to_owned(),
                queue: layout.index_lock(),
                file_system: Arc::clone(file_system),
                connection: Mutex::new(connection),
            })),
            Ok((_, Some(found))) if found > schema::VERSION => Err(StoreError::NewerSchema {
                path: path.to_owned(),
                found,
                supported: schema::VERSION,
            }),
            Ok(_) => Ok(None),
            Err(error) if is_damage(&error) => Ok(None),
            Err(source) => Err(StoreError::Index {
                path: path.to_owned(),
                source,
            }),
        }
    }

    /// Writes a new index with `additions`, where no file is. Its bytes are durable, its name is
    /// not.
    pub(crate) fn create(layout: &Layout, additions: &Additions) -> Result<(), StoreError> {
        // Nobody sees it before it is whole, so that one sync makes it safe.
        let path = &layout.new_index();
        durable::remove_file(&RealFileSystem, path)?;
        let create = || {
            let mut connection = Connection::open(path)?;
            configure(&connection)?;
            connection.pragma_update(None, "synchronous", "OFF")?;
            connection.pragma_update(None, "journal_mode", "OFF")?;
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            schema::create(&transaction)?;
            rows::add(&transaction, additions)?;
            transaction.commit()?;
            connection.pragma_update(None, "journal_mode", "WAL")?;
            connection.close().map_err(|(_, error)| error)
        };
        create().map_err(|source| StoreError::Index {
            path: path.to_owned(),
            source,
        })?;
        durable::sync_file(&RealFileSystem, path)?;
        fs::rename(path, layout.index()).map_err(StoreError::io("create", &layout.index()))
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

    pub(crate) fn error(&self, source: rusqlite::Error) -> StoreError {
        let path = self.path.clone();
        if is_damage(&source) {
            // The next open finds the mark. If it cannot be made, this is found again.
            let _ = File::create(damage_mark(&path));
            return StoreError::IndexDamaged { path, source };
        }
        StoreError::Index { path, source }
    }

    /// Where the object is, and whether it is condemned.
    pub(crate) fn locate(
        &self,
        digest: &ObjectDigest,
    ) -> Result<Option<(Located, bool)>, StoreError> {
        self.query(|connection| {
            connection
                .prepare_cached(&format!(
                    "SELECT {LOCATED}, EXISTS (SELECT 1 FROM condemned WHERE object = objects.id)
                     FROM objects WHERE {AT_DIGEST}",
                ))?
                .query_row(at_digest(digest), |row| {
                    Ok((rows::located(row)?, row.get(7)?))
                })
                .optional()
        })
    }

    /// Takes back that the object is condemned; where it is, if it is not deleted yet.
    pub(crate) fn revive(&self, digest: &ObjectDigest) -> Result<Option<Located>, StoreError> {
        self.write(|transaction| {
            rows::revive(transaction, digest)?;
            Ok(())
        })?;
        Ok(self.locate(digest)?.map(|(located, _)| located))
    }

    /// Does `work` in one transaction while nobody else writes; an error undoes it. It is
    /// visible to everybody, but not durable: see [`Index::sync`].
    pub(crate) fn write_unsynced<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, WriteError>,
    ) -> Result<T, StoreError> {
        let mut connection = self.connection();
        let _turn = durable::lock_file(&self.queue, File::lock)?;
        let run = || {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let result = work(&transaction)?;
            transaction.commit()?;
            Ok(result)
        };
        run().map_err(|error| self.write_error(error))
    }

    /// Does `work` in one transaction while nobody else writes; an error undoes it. It is
    /// durable when this returns.
    pub(crate) fn write<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, WriteError>,
    ) -> Result<T, StoreError> {
        let result = self.write_unsynced(work)?;
        self.sync()?;
        Ok(result)
    }

    /// Makes every transaction durable that can be seen now, whoever wrote it.
    ///
    /// If that fails, nobody knows what of the log is on the disk: the next open makes the
    /// index anew from the files, which are.
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        let mut log = self.path.clone().into_os_string();
        log.push("-wal");
        let log = PathBuf::from(log);
        durable::sync_file(self.file_system.as_ref(), &log).inspect_err(|_| {
            let _ = File::create(damage_mark(&self.path));
        })
    }

    fn write_error(&self, error: WriteError) -> StoreError {
        match error {
            WriteError::Index(source) => self.error(source),
            WriteError::Store(error) => *error,
        }
    }

    /// Does `work` on one moment's state, without holding anybody up.
    pub(crate) fn read<T>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, WriteError>,
    ) -> Result<T, StoreError> {
        let mut connection = self.connection();
        let run = || {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Deferred)?;
            work(&transaction)
        };
        run().map_err(|error| self.write_error(error))
    }

    /// Where the object with that SHA-256 is.
    pub(crate) fn locate_by_sha256(
        &self,
        digest: &Sha256Digest,
    ) -> Result<Option<Located>, StoreError> {
        self.query(|connection| {
            connection
                .prepare_cached(&format!(
                    "SELECT {LOCATED} FROM objects WHERE sha256 = ?1 ORDER BY id LIMIT 1",
                ))?
                .query_row([digest.as_bytes()], rows::located)
                .optional()
        })
    }

    /// Where every object is.
    pub(crate) fn all_objects(&self) -> Result<Vec<Located>, StoreError> {
        self.query(|connection| {
            connection
                .prepare(&format!(
                    "SELECT {LOCATED} FROM objects ORDER BY pack, offset, digest",
                ))?
                .query_map([], rows::located)?
                .collect()
        })
    }

    /// Drops the row of an object if it still says that place, and `is_bad` finds, while
    /// nobody else can write to the index, that the bytes there are still not the object's.
    pub(crate) fn forget_if(
        &self,
        object: &Located,
        is_bad: impl FnOnce() -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        let (pack, offset) = match object.place {
            Place::File => (None, None),
            Place::Pack { name, offset } => (Some(name), Some(offset)),
        };
        self.write(|transaction| {
            if is_bad()? {
                let (first, digest) = at_digest(&object.info.digest);
                transaction.execute(
                    &format!(
                        "DELETE FROM objects WHERE {AT_DIGEST} AND offset IS ?4
                         AND pack IS (SELECT id FROM packs WHERE name = ?3)"
                    ),
                    params![
                        first,
                        digest,
                        pack.as_ref().map(ObjectDigest::as_bytes),
                        offset.map(rows::to_integer).transpose()?,
                    ],
                )?;
            }
            Ok(())
        })
    }

    /// The recorded outputs of a recipe, whether or not they are in the store.
    pub(crate) fn realisation(&self, key: &RecipeKey) -> Result<Option<Realisation>, StoreError> {
        self.query(|connection| Ok(rows::realisation(connection, key)?.map(|(_, value)| value)))
    }

    /// The objects of one root; none if there is no such root.
    pub(crate) fn root(
        &self,
        name: &RootName,
    ) -> Result<Option<BTreeSet<ObjectDigest>>, StoreError> {
        self.query(|connection| Ok(rows::root(connection, name)?.and_then(|(_, objects)| objects)))
    }

    /// Every root, sorted by name.
    pub(crate) fn roots(&self) -> Result<Vec<Root>, StoreError> {
        self.read(|connection| Ok(rows::roots(connection)?))
    }

    /// The names of all packs.
    pub(crate) fn packs(&self) -> Result<Vec<ObjectDigest>, StoreError> {
        self.query(|connection| {
            connection
                .prepare("SELECT name FROM packs")?
                .query_map([], |row| Ok(ObjectDigest::from_bytes(row.get(0)?)))?
                .collect()
        })
    }

    /// Every realisation with its sequence, sorted by key.
    pub(crate) fn realisations(&self) -> Result<Vec<(RecipeKey, i64, Realisation)>, StoreError> {
        self.query(|connection| {
            let keys: Vec<[u8; 32]> = connection
                .prepare("SELECT key FROM realisations ORDER BY key")?
                .query_map([], |row| row.get(0))?
                .collect::<Result<_, _>>()?;
            let mut found = Vec::with_capacity(keys.len());
            for key in keys.into_iter().map(RecipeKey::from_bytes) {
                if let Some((sequence, value)) = rows::realisation(connection, &key)? {
                    found.push((key, sequence, value));
                }
            }
            Ok(found)
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

    /// Adds all of it, or nothing. Not durable yet: see [`Index::sync`].
    pub(crate) fn add(&self, additions: &Additions) -> Result<(), StoreError> {
        self.write_unsynced(|transaction| Ok(rows::add(transaction, additions)?))
    }

    /// Replaces everything by what `survey` finds while nobody else writes.
    pub(crate) fn replace(
        &self,
        survey: impl FnOnce() -> Result<Additions, StoreError>,
    ) -> Result<(), StoreError> {
        self.write(|transaction| {
            let additions = survey()?;
            transaction.execute_batch(
                "DELETE FROM root_objects; DELETE FROM roots;
                 DELETE FROM realisation_outputs; DELETE FROM realisations;
                 DELETE FROM objects; DELETE FROM packs; UPDATE clock SET last_sequence = 0;",
            )?;
            Ok(rows::add(transaction, &additions)?)
        })
    }
}

/// Why a transaction was undone.
#[derive(Debug)]
pub(crate) enum WriteError {
    Index(rusqlite::Error),
    Store(Box<StoreError>),
}

impl From<rusqlite::Error> for WriteError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Index(error)
    }
}

impl From<StoreError> for WriteError {
    fn from(error: StoreError) -> Self {
        Self::Store(Box::new(error))
    }
}

/// Brings an index of an older version to this one, unless somebody else just has.
fn migrate(mut connection: Connection, old: i64) -> rusqlite::Result<(Connection, Option<i64>)> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let now: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if now == old {
        schema::upgrade(&transaction, old)?;
    }
    transaction.commit()?;
    let version = schema::version(&connection)?;
    Ok((connection, version))
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // The index cannot be torn by a power cut; `Index::sync` sees to it that nothing is lost.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    // In KiB, if negative. Digests are spread over the whole of their index: a batch of
    // 100,000 objects would write the same pages again and again from a smaller cache.
    connection.pragma_update(None, "cache_size", -32 * 1024)?;
    connection.set_prepared_statement_cache_capacity(32);
    connection.pragma_update(None, "foreign_keys", true)
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
