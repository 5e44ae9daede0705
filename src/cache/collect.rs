//! Deleting from a plain bucket what nobody needs, while others write.
//!
//! A collection has two halves, and time between them:
//!
//! 1. It lists the cache, reads every entry that was written in the last `keep`, and notes in
//!    the mark, under the generations that it saw, what is too old and what no entry names.
//! 2. After the grace period, by the bucket's clock, it lists and reads again, and deletes
//!    what is in the mark, still unneeded and still of that generation: entries first, then
//!    objects. What it then finds unneeded goes into the next mark.
//!
//! A writer looks at the mark before it looks at anything else, and again after it has written
//! its entries (see `push.rs`). Entries that are written before the second half's listing are
//! seen by it. Whoever writes them later finds either this mark, and writes what it condemns
//! again; or the next one, and looks for everything that it relies on. What a mark condemned and
//! is needed after all is in the next one too, as long as it is not written again: another
//! collection may be about to delete it. So no order of steps leaves an entry whose objects are
//! deleted, however long a writer or a collector sleeps in between (`tests/orders.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use forebay_store::{ObjectDigest, RecipeKey};
use futures_util::stream::{self, StreamExt as _};
use jiff::Timestamp;

use super::client::Cache;
use super::entry::{Entry, EntryError};
use super::mark::Mark;
use super::remote::{CacheError, Remote};
use crate::bucket::{BucketError, Listing, ObjectKey, StorageGeneration, StoredObject};

/// Entries that are read, and keys that are deleted, at the same time.
const AT_ONCE: usize = 8;

/// How a cache is collected.
#[derive(Debug, Clone, Copy)]
pub struct CollectOptions {
    /// Entries that were written within this time stay, with all that they name.
    pub keep: Duration,
    /// What is found unneeded is deleted this long after.
    pub grace: Duration,
    /// Only says what would be done.
    pub dry_run: bool,
}

/// What a collection did, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CollectReport {
    /// Entries that stay.
    pub entries: usize,
    /// Keys that were deleted, sorted.
    pub deleted: Vec<String>,
    /// What those had together, in bytes.
    pub deleted_bytes: u64,
    /// Keys that will be deleted after the grace period, sorted.
    pub condemned: Vec<String>,
    /// What those have together, in bytes.
    pub condemned_bytes: u64,
    /// Keys that somebody wrote again in time.
    pub revived: usize,
    /// Whether another collection was quicker: then this one has left it to that.
    pub is_busy: bool,
}

/// What a listing shows to be unneeded, and what stays.
struct Survey {
    unneeded: BTreeMap<String, StoredObject>,
    needed: BTreeMap<String, StoredObject>,
    entries: usize,
    now: Timestamp,
}

impl Cache {
    /// Collects the first cache of the list.
    ///
    /// # Errors
    /// See [`CacheError`]. What is not deleted then is deleted by the next collection.
    pub fn collect(&self, options: &CollectOptions) -> Result<CollectReport, CacheError> {
        let nothing = || CacheError::Open("there is no cache to collect".to_owned());
        let remote = self.remotes.first().ok_or_else(nothing)?;
        self.wait(async || collect(remote, options).await)
            .unwrap_or_else(|| Err(nothing()))
    }
}

async fn collect(remote: &Remote, options: &CollectOptions) -> Result<CollectReport, CacheError> {
    if !options.dry_run {
        require_safe_deletes(remote).await?;
    }
    let mut report = CollectReport::default();
    // The mark before the listing: a writer that has not seen it is in the listing.
    let mark = Mark::find(remote).await?;
    let survey = survey(remote, options).await?;
    report.entries = survey.entries;
    let mut unneeded = survey.unneeded;
    if let Some((mark, object)) = &mark
        && is_older(survey.now, object.updated, options.grace)
    {
        let mut doomed = Vec::new();
        for (key, generation) in &mark.condemned {
            match unneeded.get(key) {
                Some(object) if object.generation.0 == *generation => {
                    doomed.extend(unneeded.remove(key));
                }
                Some(_) => report.revived += 1,
                None => {}
            }
        }
        sweep(remote, doomed, options, &mut report).await?;
    }
    report.condemned = unneeded.keys().cloned().collect();
    report.condemned_bytes = unneeded.values().map(|object| object.size).sum();
    if options.dry_run {
        return Ok(report);
    }
    let mut next = unneeded;
    if let Some((mark, _)) = &mark {
        next.extend(in_other_hands(mark, survey.needed));
    }
    let next = Mark::of(&next);
    let seen = mark.as_ref().map(|(_, object)| object);
    let waits = mark.as_ref().is_some_and(|(mark, object)| {
        // What is condemned already must not wait longer for every collection in between.
        !is_older(survey.now, object.updated, options.grace) && !mark.condemned.is_empty()
    });
    let is_settled = waits || seen.is_none() && next.condemned.is_empty();
    if !is_settled {
        let bytes = serde_json::to_vec(&next).map_err(std::io::Error::from)?;
        let key = remote.location.mark()?;
        report.is_busy = !remote.replace(&key, Bytes::from(bytes), seen).await?;
    }
    Ok(report)
}

/// Where a delete does not spare what was written again, it would take what a writer has just
/// come to rely on.
async fn require_safe_deletes(remote: &Remote) -> Result<(), CacheError> {
    let key = remote.location.probe()?;
    let limit = remote.patience.part;
    let holds = remote
        .ask(limit, async |bucket| {
            bucket.deletes_only_what_was_seen(&key).await
        })
        .await?;
    match holds {
        true => Ok(()),
        false => Err(CacheError::Unconditional(Box::new(remote.location.clone()))),
    }
}

fn is_older(now: Timestamp, than: Timestamp, age: Duration) -> bool {
    let elapsed = now.duration_since(than);
    !elapsed.is_negative() && elapsed.unsigned_abs() >= age
}

/// What was condemned, is there unchanged, and is needed by now. Another collection that has
/// begun before may yet delete it, so that it stays in the mark until a writer has written it
/// again.
fn in_other_hands(
    mark: &Mark,
    needed: BTreeMap<String, StoredObject>,
) -> impl Iterator<Item = (String, StoredObject)> {
    needed.into_iter().filter(|(key, object)| {
        let condemned = mark.condemned.get(key);
        condemned.is_some_and(|generation| *generation == object.generation.0)
    })
}

/// Lists everything and reads the entries that stay.
async fn survey(remote: &Remote, options: &CollectOptions) -> Result<Survey, CacheError> {
    let location = &remote.location;
    let prefix = location.prefix();
    let limit = remote.patience.part;
    let Listing {
        objects: listed,
        server_time: now,
    } = remote
        .ask(limit, async |bucket| bucket.list(&prefix).await)
        .await?;
    let mut unneeded = BTreeMap::new();
    let mut entries = Vec::new();
    let mut parts = Vec::new();
    for object in listed {
        if let Some(digest) = location.object_of_part(&object.key) {
            parts.push((digest, object));
        } else if is_entry(&location.entries(), &object.key) {
            match is_older(now, object.updated, options.keep) {
                true => drop(unneeded.insert(object.key.clone(), object)),
                false => entries.push(object),
            }
        }
        // Whatever else lies there is not ours.
    }
    let read = stream::iter(&entries)
        .map(|object| read_entry(remote, object))
        .buffer_unordered(AT_ONCE)
        .collect::<Vec<_>>()
        .await;
    let mut named: BTreeSet<ObjectDigest> = BTreeSet::new();
    let mut kept = 0;
    for answer in read {
        // One that is gone since, or damaged, names nothing: whoever needs it writes it again.
        if let Some(objects) = answer? {
            named.extend(objects);
            kept += 1;
        }
    }
    let mut needed = BTreeMap::new();
    for (digest, object) in parts {
        // What is young may belong to a push whose entries are still to come.
        let is_unneeded = !named.contains(&digest) && is_older(now, object.updated, options.grace);
        match is_unneeded {
            true => unneeded.insert(object.key.clone(), object),
            false => needed.insert(object.key.clone(), object),
        };
    }
    Ok(Survey {
        unneeded,
        needed,
        entries: kept,
        now,
    })
}

fn is_entry(prefix: &str, key: &str) -> bool {
    let rest = key.strip_prefix(prefix).unwrap_or_default();
    let name = rest.split_once('/').map(|(_, name)| name);
    name.is_some_and(|name| name.parse::<RecipeKey>().is_ok())
}

/// The objects that an entry names beside itself; none if it cannot be read.
async fn read_entry(
    remote: &Remote,
    object: &StoredObject,
) -> Result<Option<Vec<ObjectDigest>>, CacheError> {
    let key: ObjectKey = object.key.parse()?;
    let read = match remote.read(key).await {
        Ok(Some(read)) => read,
        Ok(None) | Err(CacheError::Bucket(BucketError::Damaged { .. })) => return Ok(None),
        Err(error) => return Err(error),
    };
    match Entry::decode_unverified(&read.bytes) {
        Ok(entry) => {
            let objects = entry.statement.objects.into_iter();
            Ok(Some(objects.map(|object| object.digest).collect()))
        }
        // What a later program's entries name is not known here.
        Err(error @ EntryError::Newer(_)) => Err(CacheError::Open(format!(
            "the entry {} cannot be read: {error}; collect with that program",
            object.key
        ))),
        Err(_) => Ok(None),
    }
}

/// Deletes entries, then objects, each only as it was seen.
async fn sweep(
    remote: &Remote,
    doomed: Vec<StoredObject>,
    options: &CollectOptions,
    report: &mut CollectReport,
) -> Result<(), CacheError> {
    let location = &remote.location;
    let (parts, entries): (Vec<_>, Vec<_>) = doomed
        .into_iter()
        .partition(|object| location.object_of_part(&object.key).is_some());
    for objects in [entries, parts] {
        let deleted = stream::iter(&objects)
            .map(async |object| match options.dry_run {
                true => Ok(true),
                false => delete(remote, &object.key, object.generation).await,
            })
            .buffer_unordered(AT_ONCE)
            .collect::<Vec<_>>()
            .await;
        // The order of the answers is another; the counts are the same.
        let spared = deleted.into_iter().collect::<Result<Vec<bool>, _>>()?;
        report.revived += spared.iter().filter(|deleted| !**deleted).count();
        report
            .deleted
            .extend(objects.iter().map(|object| object.key.clone()));
        report.deleted_bytes += objects.iter().map(|object| object.size).sum::<u64>();
    }
    report.deleted.sort();
    Ok(())
}

/// False if somebody wrote it again.
async fn delete(
    remote: &Remote,
    key: &str,
    generation: StorageGeneration,
) -> Result<bool, CacheError> {
    let key: ObjectKey = key.parse()?;
    let limit = remote.patience.answer;
    let deleted = remote
        .ask(limit, async |bucket| bucket.delete(&key, generation).await)
        .await;
    match deleted {
        Ok(()) => Ok(true),
        Err(CacheError::Bucket(BucketError::ConditionFailed { .. })) => Ok(false),
        Err(error) => Err(error),
    }
}
