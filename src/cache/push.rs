//! Bringing what was built to the cache: objects, then the entries that name them, then a
//! look at the collector's mark.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use forebay_store::{ObjectDigest, ObjectInfo, RecipeKey, Store};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;

use super::client::{Cache, Target};
use super::entry::{Entry, Object, Statement};
use super::location::CacheLocation;
use super::mark::Mark;
use super::part::STAMP;
use super::remote::{CacheError, Remote};
use crate::bucket::{Checksums, ObjectKey, StoredObject};

/// Texts up to this size (bytes) are inside the entries that name them,
const MAX_INLINE: u64 = 256 << 10;
/// but no more than this of them together; the others lie beside, as large ones do.
const MAX_INLINE_TOGETHER: u64 = 32 << 20;
/// After this time a build's entry is written again although nothing changed, and its objects
/// are looked for: the collector deletes by age.
const REFRESH: Duration = Duration::from_secs(7 * 24 * 3600);
/// Transfers at the same time: each needs the memory of one part.
const AT_ONCE: usize = 4;

/// Objects up to this size (bytes) are sent without a question first: if it is there, the
/// write fails.
const SMALL: u64 = 1 << 20;
/// How often a write is tried that somebody else's comes in between.
const ATTEMPTS: u32 = 4;

/// What a push did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PushReport {
    /// Recipes whose results are there now.
    pub realisations: usize,
    /// Entries that were written.
    pub entries: usize,
    /// Objects that were sent.
    pub objects: usize,
    /// What those have together, in bytes.
    pub bytes: u64,
}

impl PushReport {
    /// Whether there was nothing to do.
    pub fn is_unchanged(&self) -> bool {
        self.entries == 0 && self.objects == 0
    }
}

/// What is to be brought.
struct Load {
    realisations: BTreeMap<RecipeKey, BTreeMap<String, ObjectDigest>>,
    objects: BTreeMap<ObjectDigest, Object>,
    inline: BTreeMap<ObjectDigest, Bytes>,
}

impl Cache {
    /// Brings everything that this run looked up or made, and that another machine would look
    /// up too, to the cache that is written.
    ///
    /// # Errors
    /// See [`CacheError`]. What was written until then is whole and counts.
    pub fn push(&self, store: &Store, producer: &str) -> Result<PushReport, CacheError> {
        let target = self
            .target
            .as_ref()
            .and_then(|target| Some((target, self.remotes.get(target.remote)?)));
        let (Some(closure), Some((target, remote))) = (self.closure(), target) else {
            return Ok(PushReport::default());
        };
        // What is there already is known from the entries of this build, or of the latest.
        self.load(store);
        self.load_target();
        let load = self.load_of(store)?;
        let is_fresh = self.closure_written().is_some_and(|created| {
            Timestamp::now().duration_since(created).unsigned_abs() < REFRESH
        });
        let is_stored = |key: &RecipeKey| self.stored(key).as_ref() == load.realisations.get(key);
        if is_fresh && load.realisations.keys().all(is_stored) {
            return Ok(PushReport {
                realisations: load.realisations.len(),
                ..PushReport::default()
            });
        }
        let push = Push {
            cache: self,
            store,
            remote,
            target,
            producer,
            load: &load,
        };
        let singles = load.realisations.keys().copied();
        let singles = singles.filter(|key| !is_fresh || !is_stored(key));
        let keys: Vec<RecipeKey> = singles.collect();
        self.wait(async || {
            push.run(closure.exact, closure.latest, &keys, is_fresh)
                .await
        })
        .unwrap_or_else(|| Err(CacheError::Open("there is no thread for it".to_owned())))
    }

    /// Everything that can be brought: a recipe of whose results something is neither here nor
    /// in that cache is left out.
    fn load_of(&self, store: &Store) -> Result<Load, CacheError> {
        let mut load = Load {
            realisations: BTreeMap::new(),
            objects: BTreeMap::new(),
            inline: BTreeMap::new(),
        };
        let mut room = MAX_INLINE_TOGETHER;
        'recipes: for key in store.shared() {
            let Some(realisation) = store.realisation(&key)? else {
                continue;
            };
            let mut objects = Vec::new();
            for digest in realisation.outputs.values() {
                let here = store.local_info(digest)?;
                let Some(info) = here.or_else(|| self.info_in_target(digest)) else {
                    continue 'recipes;
                };
                if load.objects.contains_key(digest) {
                    continue;
                }
                let document = match here {
                    Some(_) if info.size <= room => document(store, &info)?,
                    _ => None,
                };
                if document.is_some() {
                    room -= info.size;
                }
                objects.push((info, document));
            }
            for (info, document) in objects {
                let object = Object {
                    digest: info.digest,
                    sha256: info.sha256,
                    size: info.size,
                    inline: document.is_some(),
                };
                load.objects.insert(info.digest, object);
                load.inline
                    .extend(document.map(|bytes| (info.digest, bytes)));
            }
            load.realisations.insert(key, realisation.outputs);
        }
        Ok(load)
    }
}

/// The bytes of an object that is a small text: the documents that a build reads to know what it
/// has, and DAG files. Archives are needed only where something is missing.
fn document(store: &Store, info: &ObjectInfo) -> Result<Option<Bytes>, CacheError> {
    if info.size > MAX_INLINE {
        return Ok(None);
    }
    let bytes = store.read(&info.digest)?;
    Ok(std::str::from_utf8(&bytes)
        .is_ok()
        .then(|| Bytes::from(bytes)))
}

/// Whether a part is there as it should be. Where it has a stamp, and on a server without
/// checksums, its length alone tells; what is damaged there is found by whoever reads it.
fn looks_like(seen: &StoredObject, bytes: &[u8], is_stamped: bool) -> bool {
    let length = bytes.len() as u64;
    match (is_stamped, seen.crc32c, seen.md5) {
        (true, ..) => seen.size == length + STAMP,
        (false, None, None) => seen.size == length,
        _ => Checksums::of(bytes).matches(seen),
    }
}

struct Push<'a> {
    cache: &'a Cache,
    store: &'a Store,
    remote: &'a Remote,
    target: &'a Target,
    producer: &'a str,
    load: &'a Load,
}

impl Push<'_> {
    async fn run(
        &self,
        exact: RecipeKey,
        latest: RecipeKey,
        singles: &[RecipeKey],
        is_fresh: bool,
    ) -> Result<PushReport, CacheError> {
        let apart: Vec<&Object> = {
            let objects = self.load.objects.values();
            objects.filter(|object| !object.inline).collect()
        };
        // An old entry's objects are looked for: it may have outlived them.
        let is_believed = is_fresh || self.cache.closure_written().is_none();
        let unknown = apart
            .iter()
            .filter(|object| !is_believed || self.cache.info_in_target(&object.digest).is_none());
        let sent: Vec<u64> = stream::iter(unknown)
            .map(|object| self.send(object, self.cache.is_lost(&object.digest)))
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await?;
        let mut report = PushReport {
            realisations: self.load.realisations.len(),
            entries: 0,
            objects: sent.iter().filter(|bytes| **bytes > 0).count(),
            bytes: sent.iter().sum(),
        };
        let all: Vec<RecipeKey> = self.load.realisations.keys().copied().collect();
        let entries = singles
            .iter()
            .map(|key| (*key, std::slice::from_ref(key)))
            // The build's own entry last: whoever finds it finds everything.
            .chain([(latest, all.as_slice()), (exact, all.as_slice())]);
        let written: Vec<bool> = stream::iter(entries)
            .map(|(key, realisations)| self.write_entry(key, realisations))
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        report.entries = written.iter().filter(|written| **written).count();
        self.revive(&apart).await?;
        Ok(report)
    }

    /// Sends those parts of an object that are not there as they should be; with `again`, all
    /// of them. Gives the number of bytes that were sent.
    async fn send(&self, object: &Object, again: bool) -> Result<u64, CacheError> {
        if !again && object.size <= SMALL && self.store.local_info(&object.digest)?.is_some() {
            let bytes = self.store.read(&object.digest)?;
            let key = self.remote.location.part(&object.digest, 0)?;
            if self.remote.replace_part(&key, bytes, None).await? {
                return Ok(object.size);
            }
        }
        let mut sent = 0;
        for _ in 0..ATTEMPTS {
            let prefix = self.remote.location.object(&object.digest);
            let there = self.remote.list(&prefix).await?;
            if !self.is_at_hand(object, again || there.is_empty()).await? {
                break;
            }
            let (bytes, is_done) = self.send_parts(object, &there, again).await?;
            sent += bytes;
            if is_done {
                break;
            }
        }
        Ok(sent)
    }

    /// Whether the object's bytes are here; `wanted` brings them from the cache itself.
    async fn is_at_hand(&self, object: &Object, wanted: bool) -> Result<bool, CacheError> {
        if self.store.local_info(&object.digest)?.is_some() {
            return Ok(true);
        }
        if !wanted {
            return Ok(false);
        }
        let folder = self.store.root();
        let Some(mut file) = self.remote.object(&object.info(), folder).await? else {
            return Ok(false);
        };
        let mut batch = self.store.begin()?;
        batch.put_reader(&mut file)?;
        batch.commit()?;
        Ok(true)
    }

    /// False if somebody else wrote or deleted a part at the same moment.
    async fn send_parts(
        &self,
        object: &Object,
        there: &BTreeMap<String, StoredObject>,
        again: bool,
    ) -> Result<(u64, bool), CacheError> {
        let file = self.store.file(&object.digest)?;
        let is_stamped = self.remote.stamps_parts().await?;
        let (mut sent, mut is_done) = (0, true);
        for (number, size) in CacheLocation::parts(object.size).enumerate() {
            let mut bytes = vec![0; usize::try_from(size).unwrap_or_default()];
            file.read_exact_at(&mut bytes, number as u64 * CacheLocation::PART)?;
            let key = self.remote.location.part(&object.digest, number as u64)?;
            let seen = there.get(key.as_str());
            if !again && seen.is_some_and(|seen| looks_like(seen, &bytes, is_stamped)) {
                continue;
            }
            match self.remote.replace_part(&key, bytes, seen).await? {
                true => sent += size,
                false => is_done = false,
            }
        }
        Ok((sent, is_done))
    }

    /// Writes an entry; false if the same is there already.
    async fn write_entry(&self, key: RecipeKey, recipes: &[RecipeKey]) -> Result<bool, CacheError> {
        let entry = self.entry(key, recipes);
        let place = self.remote.location.entry(&self.target.domain, &key)?;
        let bytes = entry.encode(self.target.signer.as_ref())?;
        if self.remote.replace(&place, bytes.clone(), None).await? {
            return Ok(true);
        }
        self.replace_entry(&place, &entry, bytes).await
    }

    async fn replace_entry(
        &self,
        place: &ObjectKey,
        entry: &Entry,
        bytes: Bytes,
    ) -> Result<bool, CacheError> {
        let Some(seen) = self.remote.read(place.clone()).await? else {
            return self.remote.replace(place, bytes, None).await;
        };
        let key = &entry.statement.key;
        let domain = &self.target.domain;
        let known = Entry::decode(&seen.bytes, key, domain, &self.remote.trusted);
        let is_young = seen
            .server_time
            .duration_since(seen.object.updated)
            .unsigned_abs()
            < REFRESH;
        if is_young
            && known.is_ok_and(|known| {
                known.statement.realisations == entry.statement.realisations
                    && known.statement.objects == entry.statement.objects
            })
        {
            return Ok(false);
        }
        self.remote.replace(place, bytes, Some(&seen.object)).await
    }

    fn entry(&self, key: RecipeKey, recipes: &[RecipeKey]) -> Entry {
        let realisations: BTreeMap<_, _> = recipes
            .iter()
            .filter_map(|recipe| Some((*recipe, self.load.realisations.get(recipe)?.clone())))
            .collect();
        let named: BTreeSet<&ObjectDigest> =
            realisations.values().flat_map(BTreeMap::values).collect();
        let objects: Vec<Object> = named
            .into_iter()
            .filter_map(|digest| self.load.objects.get(digest).copied())
            .collect();
        Entry {
            inline: objects
                .iter()
                .filter_map(|object| self.load.inline.get(&object.digest).cloned())
                .collect(),
            statement: Statement {
                key,
                domain: self.target.domain.to_string(),
                producer: self.producer.to_owned(),
                created: Timestamp::now(),
                realisations,
                objects,
            },
        }
    }

    /// Makes sure that what the entries rely on is not being deleted. A collector deletes the
    /// generations that its mark names, after one more look at the entries; then it writes the
    /// next mark. So what this mark names is written again, which changes the generation; and
    /// if it is not the mark that was there before anything was looked up, a deletion may have
    /// come in between, and everything is looked for.
    async fn revive(&self, apart: &[&Object]) -> Result<(), CacheError> {
        let mark = Mark::find(self.remote).await?;
        let now = mark.as_ref().map(|(_, object)| object.generation);
        let has_moved = now != self.cache.mark_before();
        for object in apart {
            let prefix = self.remote.location.object(&object.digest);
            let is_condemned = mark
                .as_ref()
                .is_some_and(|(mark, _)| mark.names_any(&prefix));
            if is_condemned || has_moved {
                self.send(object, is_condemned).await?;
            }
        }
        Ok(())
    }
}
