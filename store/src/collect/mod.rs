//! Garbage collection: deleting what nobody needs, while others read and write.
//!
//! Needed is what a root names, what is in the lease of a live process
//! (see [`crate::staging`]), and every realisation all of whose outputs are
//! needed. All else is deleted in two phases:
//!
//! 1. *Condemn.* One transaction marks what is reachable and writes down what is
//!    not. From then on, whoever uses a condemned object takes its name off that
//!    list (*revives* it) before relying on it, in a transaction of their own.
//! 2. *Delete*, when the grace period is over. Rows go first, in one transaction
//!    that looks again at list and leases; then the files. Killed in between,
//!    files without rows remain, and the next collection removes them.
//!
//! A large object is a file, and is deleted alone. Small ones share a pack, which is
//! written anew without what is dead before the old one goes, if that is worth it: a
//! small pack whenever anything in it is dead, another one when a fifth of it is. So
//! no more than a fifth of a pack is ever wasted, and four bytes at most are written
//! for one that is freed. Small packs that have become many are written together as
//! one, so that their number does not grow with the number of batches. See
//! [`worth`].
//!
//! What is dead in other packs stays, as a cache that costs nothing more. So the index
//! always says what the files say, and can be made anew from them; and a collection,
//! which reads both, refuses to delete anything if the index says less than the records
//! do ([`check`]).

mod check;
mod delete;
mod mark;
mod orphans;
mod plan;
mod worth;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::inner::Inner;
use crate::{ObjectDigest, RecipeKey, StoreError, staging};
use delete::Outcome;
pub(crate) use mark::Marked;
use plan::Plan;

pub(crate) use orphans::list_files;

/// How a collection is to be done.
#[derive(Debug, Clone)]
pub struct CollectOptions {
    /// Say what would be deleted, and change nothing.
    pub dry_run: bool,
    /// How long an object must have been condemned before it is deleted.
    pub grace: Duration,
    /// Keep realisations that nobody needs, the newest first, until the objects
    /// of the store have this many bytes together. Without it none are kept.
    pub max_size: Option<u64>,
}

impl CollectOptions {
    /// The grace period if nobody says otherwise: one day.
    pub const DEFAULT_GRACE: Duration = Duration::from_secs(24 * 60 * 60);
}

impl Default for CollectOptions {
    fn default() -> Self {
        Self {
            dry_run: false,
            grace: Self::DEFAULT_GRACE,
            max_size: None,
        }
    }
}

/// One object that was deleted, or would be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CollectedObject {
    /// Its name.
    pub digest: ObjectDigest,
    /// Its size in bytes.
    pub size: u64,
}

/// What a collection did, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CollectReport {
    /// The objects that are deleted, sorted.
    pub deleted: Vec<CollectedObject>,
    /// The realisations that are deleted, sorted.
    pub realisations: Vec<RecipeKey>,
    /// Files that no row of the index named: left by batches that were killed.
    pub orphans: Vec<PathBuf>,
    /// How many packs are removed or written anew, without what was dead or together.
    pub packs: usize,
    /// How many bytes of files that frees.
    pub freed: u64,
    /// Objects that nobody needs, but whose grace period is not over, or
    /// whose pack is almost wholly alive.
    pub waiting: usize,
    /// How many bytes they have.
    pub waiting_bytes: u64,
    /// How many objects are needed.
    pub kept: usize,
    /// How many bytes they have.
    pub kept_bytes: u64,
}

/// How often a collection begins again because somebody used what it was about to delete.
const ATTEMPTS: usize = 5;

/// See [`crate::Store::collect`].
pub(crate) fn collect(
    store: &Arc<Inner>,
    options: &CollectOptions,
) -> Result<CollectReport, StoreError> {
    let _collecting = store.collecting()?;
    let mut report = CollectReport::default();
    let mut damaged = HashSet::new();
    for _ in 0..ATTEMPTS {
        let files = orphans::list_files(store)?;
        let now = seconds_since_1970();
        let leased = staging::live_leases(&store.layout.staging())?;
        let (mut marked, changes) = store.index.read_by_two(|connection, other| {
            let mut marked = Marked::new(connection, other, &leased, options.max_size)?;
            let changes = marked.condemn(now);
            Ok((marked, changes))
        })?;
        if !options.dry_run && !changes.is_empty() {
            // What is condemned must be out of reach while it is: nobody writes meanwhile.
            marked = store.index.write(|transaction| {
                let leased = staging::live_leases(&store.layout.staging())?;
                let other = store.index.beside()?;
                let mut marked = Marked::new(transaction, other, &leased, options.max_size)?;
                marked.condemn(now).write(transaction, now)?;
                Ok(marked)
            })?;
        }
        let plan = Plan::make(store, &marked, files, now, options.grace, &damaged)?;
        report = plan.report(&marked);
        if options.dry_run {
            return Ok(report);
        }
        match delete::delete(store, &marked, &plan)? {
            Outcome::Done => return Ok(report),
            Outcome::Overtaken => {}
            Outcome::Damaged(pack) => {
                damaged.insert(pack);
            }
        }
    }
    Ok(CollectReport {
        kept: report.kept,
        kept_bytes: report.kept_bytes,
        ..CollectReport::default()
    })
}

fn seconds_since_1970() -> i64 {
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs());
    i64::try_from(seconds).unwrap_or(i64::MAX)
}
