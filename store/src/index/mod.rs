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
//!
//! The last one to close the index has SQLite write the log into the file and remove it. A
//! log that stayed would save that sync, but no checksum tells a log whose end a disk has
//! changed from one whose end was never written: what was acknowledged would be forgotten.

pub(crate) mod checksum;
mod columns;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod objects;
mod queries;
mod records;
mod rows;
mod schema;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};

pub(crate) use columns::{from_integer, to_integer};
pub(crate) use objects::{AT_DIGEST, at_digest, can_have_id, object};
pub(crate) use records::roots;
pub(crate) use rows::Additions;

use crate::file_system::{FileSystem, RealFileSystem};
use crate::layout::Layout;
use crate::{StoreError, durable};

/// How long SQLite waits for others. Writers wait in [`Index::write`]; what remains is
/// programs that know nothing of it.
const BUSY_TIMEOUT: Duration = Duration::from_secs(60);

/// From this many pages on SQLite writes its log into its file after a transaction.
const LOG_PAGES: u32 = 1_000;

/// An open index.
#[derive(Debug)]
pub(crate) struct Index {
    path: PathBuf,
    /// What is written, and not in the file yet.
    log: PathBuf,
    /// Whether the log's name is durable. It stays while anybody has the index open.
    is_log_named: AtomicBool,
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
                log: layout.index_log(),
                is_log_named: AtomicBool::new(false),
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

    /// Does `work` in one transaction while nobody else writes; an error undoes it. It is
    /// visible to everybody, but not durable: see [`Index::sync`].
    pub(crate) fn write_unsynced<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, WriteError>,
    ) -> Result<T, StoreError> {
        let mut connection = self.connection();
        let _turn = durable::lock_file(&self.queue, File::lock)?;
        // SQLite syncs a log's first page, so that pages of an earlier log are not taken for
        // its own. A new log has none; and it is synced before anybody relies on it.
        let is_new = fs::metadata(&self.log).is_ok_and(|log| log.len() == 0);
        let run = |connection: &mut Connection| {
            if is_new {
                leave_syncs(connection)?;
            }
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let result = work(&transaction)?;
            transaction.commit()?;
            Ok(result)
        };
        let result = run(&mut connection);
        if is_new {
            have_syncs(&connection).map_err(|source| self.error(source))?;
        }
        result.map_err(|error| self.write_error(error))
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
        let file_system = self.file_system.as_ref();
        let sync = || {
            durable::sync_file(file_system, &self.log)?;
            if !self.is_log_named.load(Ordering::Acquire) {
                let root = self.path.parent().unwrap_or(&self.path);
                durable::sync_directory(file_system, root)?;
                self.is_log_named.store(true, Ordering::Release);
            }
            Ok(())
        };
        sync().inspect_err(|_| {
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

    /// [`Index::read`] by two threads: with another connection, which sees the same moment.
    pub(crate) fn read_by_two<T>(
        &self,
        work: impl FnOnce(&Connection, Connection) -> Result<T, WriteError>,
    ) -> Result<T, StoreError> {
        let mut connection = self.connection();
        let turn = durable::lock_file(&self.queue, File::lock)?;
        let run = || {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Deferred)?;
            see_this_moment(&transaction)?;
            let other = self.beside()?;
            drop(turn);
            work(&transaction, other)
        };
        run().map_err(|error| self.write_error(error))
    }

    /// Another connection, which as long as it lives sees what everybody sees now: not what
    /// a transaction has changed that is not committed.
    pub(crate) fn beside(&self) -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags)?;
        configure(&connection)?;
        connection.execute_batch("BEGIN")?;
        see_this_moment(&connection)?;
        Ok(connection)
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

/// A transaction that only reads sees the moment of its first statement.
fn see_this_moment(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("SELECT last_sequence FROM clock", [], |_| Ok(()))
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    have_syncs(connection)?;
    // In KiB, if negative. Digests are spread over the whole of their index: a batch of
    // 100,000 objects would write the same pages again and again from a smaller cache.
    connection.pragma_update(None, "cache_size", -32 * 1024)?;
    connection.set_prepared_statement_cache_capacity(32);
    connection.pragma_update(None, "foreign_keys", true)
}

/// The index cannot be torn by a power cut; [`Index::sync`] sees to it that nothing is lost.
fn have_syncs(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "wal_autocheckpoint", LOG_PAGES)
}

/// Until [`have_syncs`], SQLite syncs nothing, and writes nothing but its log.
fn leave_syncs(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "synchronous", "OFF")
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
