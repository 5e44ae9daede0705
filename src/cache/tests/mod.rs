//! What a collection leaves, and caches that fail or do not answer.

mod orders;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use forebay_store::{ObjectDigest, Realisation, Recipe, RecipeKey, Store};
use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::bucket::{
    Bucket, BucketError, BucketLocation, Checksums, Listing, ObjectKey, ReadObject,
    StorageGeneration, StoredObject, WriteCondition,
};

/// What is in a bucket: bytes, generation, time.
type Contents = BTreeMap<String, (Bytes, u64, Timestamp)>;

/// A bucket in memory that obeys the documented rules strictly, with a clock of its own.
#[derive(Clone)]
struct Memory {
    objects: Contents,
    generation: u64,
    now: Timestamp,
    /// As on S3: the generation is a digest of the bytes.
    is_told_by_bytes: bool,
}

impl Memory {
    fn new() -> Self {
        Self {
            objects: Contents::new(),
            generation: 1,
            now: "2031-05-05T12:00:00Z".parse().unwrap(),
            is_told_by_bytes: false,
        }
    }

    fn next_generation(&mut self, bytes: &[u8]) -> u64 {
        self.generation += 1;
        match self.is_told_by_bytes {
            true => u64::from_le_bytes(Checksums::of(bytes).md5[..8].try_into().unwrap()),
            false => self.generation,
        }
    }

    fn stored(&self, key: &str) -> Option<StoredObject> {
        let (bytes, generation, updated) = self.objects.get(key)?;
        let checksums = Checksums::of(bytes);
        Some(StoredObject {
            key: key.to_owned(),
            size: checksums.size,
            generation: StorageGeneration(*generation),
            crc32c: Some(checksums.crc32c),
            md5: Some(checksums.md5),
            updated: *updated,
        })
    }

    fn advance(&mut self, hours: i64) {
        self.now += SignedDuration::from_hours(hours);
    }
}

/// A cache's view of the bucket.
struct View {
    location: BucketLocation,
    memory: Arc<Mutex<Memory>>,
}

impl View {
    fn condition_failed(&self, key: &ObjectKey) -> BucketError {
        BucketError::ConditionFailed {
            bucket: self.location.to_string(),
            key: key.to_string(),
        }
    }
}

#[async_trait]
impl Bucket for View {
    fn location(&self) -> &BucketLocation {
        &self.location
    }

    async fn list(&self, prefix: &str) -> Result<Listing, BucketError> {
        let memory = self.memory.lock().unwrap();
        let keys = memory.objects.keys();
        Ok(Listing {
            objects: keys
                .filter(|key| key.starts_with(prefix))
                .filter_map(|key| memory.stored(key))
                .collect(),
            server_time: memory.now,
        })
    }

    async fn read(&self, key: &ObjectKey) -> Result<Option<ReadObject>, BucketError> {
        let memory = self.memory.lock().unwrap();
        Ok(memory.stored(key.as_str()).map(|object| ReadObject {
            object,
            bytes: memory.objects[key.as_str()].0.clone(),
            server_time: memory.now,
        }))
    }

    async fn write(
        &self,
        key: &ObjectKey,
        bytes: Bytes,
        condition: WriteCondition,
    ) -> Result<StoredObject, BucketError> {
        let mut memory = self.memory.lock().unwrap();
        let seen = memory.stored(key.as_str()).map(|object| object.generation);
        let holds = match condition {
            WriteCondition::Absent => seen.is_none(),
            WriteCondition::Unchanged(generation) => seen == Some(generation),
        };
        if !holds {
            return Err(self.condition_failed(key));
        }
        let generation = memory.next_generation(&bytes);
        let entry = (bytes, generation, memory.now);
        memory.objects.insert(key.to_string(), entry);
        Ok(memory.stored(key.as_str()).unwrap())
    }

    async fn delete(
        &self,
        key: &ObjectKey,
        generation: StorageGeneration,
    ) -> Result<(), BucketError> {
        let mut memory = self.memory.lock().unwrap();
        match memory.stored(key.as_str()) {
            Some(object) if object.generation != generation => Err(self.condition_failed(key)),
            _ => {
                memory.objects.remove(key.as_str());
                Ok(())
            }
        }
    }

    fn tells_writes_apart(&self) -> bool {
        !self.memory.lock().unwrap().is_told_by_bytes
    }
}

fn key(name: &str) -> RecipeKey {
    Recipe::new("test", 1, &name).unwrap().key()
}

/// A store with one result: an archive, which lies beside the entries.
struct Host {
    store: Store,
    _directory: tempfile::TempDir,
}

const ARCHIVE: &[u8] = b"PK\xff not a text";

impl Host {
    fn empty() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self {
            store: Store::open(directory.path()).unwrap(),
            _directory: directory,
        }
    }

    fn new() -> Self {
        let host = Self::empty();
        let mut batch = host.store.begin().unwrap();
        let archive = batch.put(ARCHIVE).unwrap().digest;
        let outputs = [("archive".to_owned(), archive)].into();
        batch
            .realise(&key("result"), &Realisation { outputs })
            .unwrap();
        batch.commit().unwrap();
        host.store.share(&key("result"));
        host
    }

    fn cache(&self, open: &OpenBucket, patience: Patience) -> Cache {
        let options = CacheOptions {
            locations: vec!["gs://team".parse().unwrap()],
            unsigned: true,
            write: true,
            ..CacheOptions::default()
        };
        Cache::new(options, patience, self.store.root(), open)
    }
}

fn opener(memory: &Arc<Mutex<Memory>>) -> OpenBucket {
    let memory = Arc::clone(memory);
    Arc::new(move |location: &CacheLocation| {
        Ok(Arc::new(View {
            location: location.bucket.clone(),
            memory: Arc::clone(&memory),
        }) as Arc<dyn Bucket>)
    })
}

const COLLECT: CollectOptions = CollectOptions {
    keep: Duration::from_secs(24 * 3600),
    grace: Duration::from_secs(3600),
    dry_run: false,
};

fn push(host: &Host, build: &str, open: &OpenBucket) -> PushReport {
    let cache = host.cache(open, Patience::default());
    cache.expect(Closure {
        exact: key(build),
        latest: key("latest"),
    });
    let report = cache.push(&host.store, "test").unwrap();
    assert_eq!(cache.warning(), None);
    report
}

/// Every entry that is there names only what is there.
fn assert_whole(memory: &Memory) {
    let location: CacheLocation = "gs://team".parse().unwrap();
    for (key, (bytes, ..)) in &memory.objects {
        if !key.starts_with(&location.entries()) {
            continue;
        }
        let entry = Entry::decode_unverified(bytes).unwrap();
        for object in entry
            .statement
            .objects
            .iter()
            .filter(|object| !object.inline)
        {
            let part = location.part(&object.digest, 0).unwrap();
            let there = memory.objects.get(part.as_str());
            assert!(
                there.is_some_and(|(bytes, ..)| bytes.starts_with(ARCHIVE)),
                "{key} names what is gone"
            );
        }
    }
}

/// A cache whose only build is old and condemned, and whose grace period is over.
fn condemned(host: &Host) -> Memory {
    condemned_in(host, Memory::new())
}

fn condemned_in(host: &Host, memory: Memory) -> Memory {
    let memory = Arc::new(Mutex::new(memory));
    let open = opener(&memory);
    assert!(!push(host, "old", &open).is_unchanged());
    memory.lock().unwrap().advance(24 * 30);
    let cache = host.cache(&open, Patience::default());
    let report = cache.collect(&COLLECT).unwrap();
    assert_eq!((report.condemned.len(), report.deleted.len()), (4, 0));
    memory.lock().unwrap().advance(2);
    let memory = memory.lock().unwrap();
    memory.clone()
}

#[test]
fn what_is_old_goes_after_the_grace_period_and_what_is_needed_stays() {
    let host = Host::new();
    let memory = Arc::new(Mutex::new(condemned(&host)));
    let open = opener(&memory);
    let cache = host.cache(&open, Patience::default());
    let dry = cache
        .collect(&CollectOptions {
            dry_run: true,
            ..COLLECT
        })
        .unwrap();
    let report = cache.collect(&COLLECT).unwrap();
    assert_eq!(dry.deleted, report.deleted);
    assert_eq!(report.deleted.len(), 4);
    let left: Vec<_> = memory.lock().unwrap().objects.keys().cloned().collect();
    assert_eq!(left, ["forebay-cache/v1/mark.json"]);

    // A build that is there again is not touched.
    assert_eq!(push(&host, "new", &open).objects, 1);
    memory.lock().unwrap().advance(2);
    for _ in 0..2 {
        let report = cache.collect(&COLLECT).unwrap();
        assert_eq!((report.deleted.len(), report.condemned.len()), (0, 0));
        memory.lock().unwrap().advance(2);
    }
    assert_whole(&memory.lock().unwrap());
}

#[test]
fn a_collector_that_slept_spares_what_was_written_again_also_where_bytes_tell_writes() {
    let host = Host::new();
    let memory = Arc::new(Mutex::new(condemned_in(
        &host,
        Memory {
            is_told_by_bytes: true,
            ..Memory::new()
        },
    )));
    let open = opener(&memory);
    let location: CacheLocation = "gs://team".parse().unwrap();
    let part = location.part(&ObjectDigest::of(ARCHIVE), 0).unwrap();
    let mark = location.mark().unwrap();
    let bucket = open(&location).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let seen = |key: &ObjectKey| {
        let memory = memory.lock().unwrap();
        memory
            .stored(key.as_str())
            .map(|object| object.generation)
            .unwrap()
    };
    let mut before = vec![seen(&part)];
    let mut marks = vec![seen(&mark)];
    for build in ["revived", "brought anew", "brought once more"] {
        push(&host, build, &open);
        assert!(!before.contains(&seen(&part)), "{build}");
        for generation in &before {
            let deleted = runtime.block_on(bucket.delete(&part, *generation));
            assert!(
                matches!(deleted, Err(BucketError::ConditionFailed { .. })),
                "{build}"
            );
        }
        assert_whole(&memory.lock().unwrap());
        before.push(seen(&part));

        // All of it goes, and the marks condemn the same and nothing by turns.
        for hours in [24 * 30, 2] {
            memory.lock().unwrap().advance(hours);
            let cache = host.cache(&open, Patience::default());
            cache.collect(&COLLECT).unwrap();
            assert!(!marks.contains(&seen(&mark)), "{build}");
            marks.push(seen(&mark));
        }
        assert_eq!(memory.lock().unwrap().objects.len(), 1);
    }
}

#[test]
fn a_mark_that_cannot_be_read_condemns_nothing_and_is_written_anew() {
    let host = Host::new();
    let memory = Arc::new(Mutex::new(condemned(&host)));
    let open = opener(&memory);
    let mark = "forebay-cache/v1/mark.json".to_owned();
    for damage in [&b"{\"version\":1,\"condemned\":{\"x\""[..], b"", b"\xff"] {
        let (_, generation, time) = memory.lock().unwrap().objects[&mark].clone();
        let damaged = (Bytes::from_static(damage), generation, time);
        memory.lock().unwrap().objects.insert(mark.clone(), damaged);
        let cache = host.cache(&open, Patience::default());
        let report = cache.collect(&COLLECT).unwrap();
        assert_eq!((report.deleted.len(), report.condemned.len()), (0, 4));
    }
    memory.lock().unwrap().advance(2);
    let cache = host.cache(&open, Patience::default());
    assert_eq!(cache.collect(&COLLECT).unwrap().deleted.len(), 4);
}

/// Caches of these names, in this order, each in a memory of its own.
fn caches(host: &Host, names: [&str; 2], memories: [&Arc<Mutex<Memory>>; 2]) -> Cache {
    let each = names.into_iter().zip(memories);
    let openers: BTreeMap<String, OpenBucket> = each
        .map(|(name, memory)| (format!("gs://{name}"), opener(memory)))
        .collect();
    let open: OpenBucket =
        Arc::new(move |location: &CacheLocation| openers[&location.to_string()](location));
    let options = CacheOptions {
        locations: names
            .iter()
            .map(|name| format!("gs://{name}").parse().unwrap())
            .collect(),
        unsigned: true,
        ..CacheOptions::default()
    };
    let cache = Cache::new(options, Patience::default(), host.store.root(), &open);
    cache.expect(Closure {
        exact: key("new"),
        latest: key("latest"),
    });
    cache
}

#[test]
fn caches_are_asked_in_their_order_and_stand_in_for_each_other() {
    let (near, far) = (
        Arc::new(Mutex::new(Memory::new())),
        Arc::new(Mutex::new(Memory::new())),
    );
    push(&Host::new(), "new", &opener(&far));
    let take = |requests: u64| {
        let host = Host::empty();
        let cache = Arc::new(caches(&host, ["near", "far-away"], [&near, &far]));
        host.store.set_source(cache.clone());
        assert!(host.store.realisation(&key("result")).unwrap().is_some());
        let archive = host.store.read(&ObjectDigest::of(ARCHIVE)).unwrap();
        assert_eq!(archive, ARCHIVE);
        assert_eq!(cache.requests(), requests);
        cache.warning()
    };
    // The near one does not know it: the far one's entry, then the object.
    assert_eq!(take(1 + 1 + 1), None);
    push(&Host::new(), "new", &opener(&near));
    // It does: nobody asks the far one.
    assert_eq!(take(1 + 1), None);
    // It has lost the object, which the far one has under the same digest.
    let lost = |key: &String| !key.contains("/objects/");
    near.lock().unwrap().objects.retain(|key, _| lost(key));
    assert!(take(1 + 1 + 1).unwrap().contains("missing"));
}

/// A bucket that says nothing, or 503, to everything.
struct Sick {
    location: BucketLocation,
    is_silent: bool,
    asked: Arc<Mutex<u32>>,
}

impl Sick {
    async fn fail<T>(&self) -> Result<T, BucketError> {
        *self.asked.lock().unwrap() += 1;
        if self.is_silent {
            std::future::pending::<()>().await;
        }
        Err(BucketError::Unexpected {
            bucket: self.location.to_string(),
            status: 503,
            request: "anything".to_owned(),
            detail: None,
        })
    }
}

#[async_trait]
impl Bucket for Sick {
    fn location(&self) -> &BucketLocation {
        &self.location
    }

    async fn list(&self, _: &str) -> Result<Listing, BucketError> {
        self.fail().await
    }

    async fn read(&self, _: &ObjectKey) -> Result<Option<ReadObject>, BucketError> {
        self.fail().await
    }

    async fn write(
        &self,
        _: &ObjectKey,
        _: Bytes,
        _: WriteCondition,
    ) -> Result<StoredObject, BucketError> {
        self.fail().await
    }

    async fn delete(&self, _: &ObjectKey, _: StorageGeneration) -> Result<(), BucketError> {
        self.fail().await
    }
}

#[test]
fn a_cache_that_fails_or_says_nothing_is_asked_once_and_named_in_one_warning() {
    for is_silent in [false, true] {
        let asked = Arc::new(Mutex::new(0));
        let count = Arc::clone(&asked);
        let open: OpenBucket = Arc::new(move |location: &CacheLocation| {
            Ok(Arc::new(Sick {
                location: location.bucket.clone(),
                is_silent,
                asked: Arc::clone(&count),
            }) as Arc<dyn Bucket>)
        });
        let host = Host::new();
        let soon = Duration::from_millis(20);
        let patience = Patience {
            answer: soon,
            part: soon,
            run: soon,
        };
        let cache = Arc::new(host.cache(&open, patience));
        cache.expect(Closure {
            exact: key("new"),
            latest: key("latest"),
        });
        host.store.set_source(cache.clone());
        for name in ["one", "two", "three"] {
            assert_eq!(host.store.realisation(&key(name)).unwrap(), None);
        }
        assert!(host.store.read(&ObjectDigest::of(b"nowhere")).is_err());
        assert!(host.store.realisation(&key("result")).unwrap().is_some());
        assert!(cache.push(&host.store, "test").is_err());
        assert_eq!(*asked.lock().unwrap(), 1);
        assert_eq!(cache.warning().unwrap().lines().count(), 1);
        assert_eq!(cache.warning(), None);
    }
}
