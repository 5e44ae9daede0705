//! Writers and collectors in every order, and caches that fail or do not answer.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex};
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
}

impl Memory {
    fn new() -> Self {
        Self {
            objects: Contents::new(),
            generation: 1,
            now: "2031-05-05T12:00:00Z".parse().unwrap(),
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

/// One call of one actor.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Call {
    kind: &'static str,
    key: String,
}

impl Call {
    fn writes(&self) -> bool {
        matches!(self.kind, "write" | "delete")
    }

    /// Whether the order of the two makes no difference.
    fn commutes_with(&self, other: &Self) -> bool {
        if !self.writes() && !other.writes() {
            return true;
        }
        let touches =
            |list: &Self, write: &Self| list.kind == "list" && write.key.starts_with(&list.key);
        self.key != other.key && !touches(self, other) && !touches(other, self)
    }
}

/// Lets one actor at a time make its next call.
#[derive(Default)]
struct Turns {
    state: Mutex<TurnState>,
    changed: Condvar,
}

#[derive(Default)]
struct TurnState {
    waiting: BTreeMap<usize, Call>,
    granted: Option<usize>,
    running: usize,
}

impl Turns {
    fn wait(&self, actor: usize, call: Call) {
        let mut state = self.state.lock().unwrap();
        state.waiting.insert(actor, call);
        state.running -= 1;
        self.changed.notify_all();
        while state.granted != Some(actor) {
            state = self.changed.wait(state).unwrap();
        }
        state.granted = None;
        state.waiting.remove(&actor);
        state.running += 1;
    }

    fn end(&self) {
        self.state.lock().unwrap().running -= 1;
        self.changed.notify_all();
    }

    /// Once nobody runs: who waits for which call.
    fn pending(&self) -> BTreeMap<usize, Call> {
        let mut state = self.state.lock().unwrap();
        while state.running > 0 || state.granted.is_some() {
            state = self.changed.wait(state).unwrap();
        }
        state.waiting.clone()
    }

    fn grant(&self, actor: usize) {
        self.state.lock().unwrap().granted = Some(actor);
        self.changed.notify_all();
    }
}

/// An actor's view of the bucket.
struct View {
    location: BucketLocation,
    memory: Arc<Mutex<Memory>>,
    turns: Option<(usize, Arc<Turns>)>,
}

impl View {
    fn turn(&self, kind: &'static str, key: &str) {
        if let Some((actor, turns)) = &self.turns {
            let key = key.to_owned();
            turns.wait(*actor, Call { kind, key });
        }
    }

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
        self.turn("list", prefix);
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
        self.turn("read", key.as_str());
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
        self.turn("write", key.as_str());
        let mut memory = self.memory.lock().unwrap();
        let seen = memory.stored(key.as_str()).map(|object| object.generation);
        let holds = match condition {
            WriteCondition::Absent => seen.is_none(),
            WriteCondition::Unchanged(generation) => seen == Some(generation),
        };
        if !holds {
            return Err(self.condition_failed(key));
        }
        memory.generation += 1;
        let entry = (bytes, memory.generation, memory.now);
        memory.objects.insert(key.to_string(), entry);
        Ok(memory.stored(key.as_str()).unwrap())
    }

    async fn delete(
        &self,
        key: &ObjectKey,
        generation: StorageGeneration,
    ) -> Result<(), BucketError> {
        self.turn("delete", key.as_str());
        let mut memory = self.memory.lock().unwrap();
        match memory.stored(key.as_str()) {
            Some(object) if object.generation != generation => Err(self.condition_failed(key)),
            _ => {
                memory.objects.remove(key.as_str());
                Ok(())
            }
        }
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

const ARCHIVE: &[u8] = b"PK not a document";

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

fn opener(memory: &Arc<Mutex<Memory>>, turns: Option<(usize, Arc<Turns>)>) -> OpenBucket {
    let memory = Arc::clone(memory);
    Arc::new(move |location: &CacheLocation| {
        Ok(Arc::new(View {
            location: location.bucket.clone(),
            memory: Arc::clone(&memory),
            turns: turns.clone(),
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
fn assert_whole(memory: &Memory, order: &[String]) {
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
                there.is_some_and(|(bytes, ..)| bytes.as_ref() == ARCHIVE),
                "{key} names what is gone, after:\n{}",
                order.join("\n")
            );
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Actor {
    /// Brings a build of its own, which needs what is condemned.
    Writer(&'static str),
    Collector,
}

/// Runs the actors in every order of their calls that makes a difference, from the same start;
/// at most `limit` of them. Gives how many there were.
fn explore(start: &Memory, hosts: &[Host], actors: &[Actor], limit: usize) -> usize {
    // Which of the possible next actors was taken at each step; the last is advanced.
    let mut path: Vec<(usize, usize)> = Vec::new();
    let mut runs = 0;
    loop {
        runs += 1;
        let memory = Arc::new(Mutex::new(start.clone()));
        let turns = Arc::new(Turns::default());
        turns.state.lock().unwrap().running = actors.len();
        let mut order = Vec::new();
        let is_new = std::thread::scope(|scope| {
            for (number, actor) in actors.iter().enumerate() {
                let open = opener(&memory, Some((number, Arc::clone(&turns))));
                let (turns, host) = (Arc::clone(&turns), &hosts[number]);
                scope.spawn(move || {
                    match actor {
                        Actor::Writer(build) => drop(push(host, build, &open)),
                        Actor::Collector => {
                            let cache = host.cache(&open, Patience::default());
                            cache.collect(&COLLECT).unwrap();
                        }
                    }
                    turns.end();
                });
            }
            let (mut step, mut last, mut is_new) = (0, None::<(usize, Call)>, true);
            loop {
                let pending = turns.pending();
                if pending.is_empty() {
                    return is_new;
                }
                // Two calls in a row that commute are tried in one order only.
                let options: Vec<usize> = pending
                    .iter()
                    .filter(|(actor, call)| {
                        last.as_ref().is_none_or(|(before, done)| {
                            *actor >= before || !call.commutes_with(done)
                        })
                    })
                    .map(|(actor, _)| *actor)
                    .collect();
                let actor = match options.is_empty() || !is_new {
                    // This order equals another one: it only has to end.
                    true => {
                        is_new = false;
                        *pending.keys().next().unwrap()
                    }
                    false => {
                        if path.len() == step {
                            path.push((0, options.len()));
                        }
                        path[step].1 = options.len();
                        options[path[step].0]
                    }
                };
                if is_new {
                    step += 1;
                }
                let call = pending[&actor].clone();
                order.push(format!("{:?} {} {}", actors[actor], call.kind, call.key));
                last = Some((actor, call));
                turns.grant(actor);
            }
        });
        if is_new {
            assert_whole(&memory.lock().unwrap(), &order);
        }
        while let Some((taken, options)) = path.pop() {
            if taken + 1 < options {
                path.push((taken + 1, options));
                break;
            }
        }
        if path.is_empty() || runs >= limit {
            return runs;
        }
    }
}

/// A cache whose only build is old and condemned, and whose grace period is over.
fn condemned(host: &Host) -> Memory {
    let memory = Arc::new(Mutex::new(Memory::new()));
    let open = opener(&memory, None);
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
fn no_order_of_a_writer_and_a_collector_leaves_an_entry_without_its_objects() {
    let hosts = [Host::new(), Host::empty()];
    let start = condemned(&hosts[0]);
    let actors = [Actor::Writer("new"), Actor::Collector];
    let runs = explore(&start, &hosts, &actors, usize::MAX);
    assert!(runs > 50, "{runs}");
}

#[test]
fn nor_does_any_order_of_two_writers_or_two_collectors() {
    let hosts = [Host::new(), Host::new(), Host::empty(), Host::empty()];
    let start = condemned(&hosts[0]);
    let (one, two) = (Actor::Writer("one"), Actor::Writer("two"));
    let collect = Actor::Collector;
    assert!(explore(&start, &hosts[2..], &[collect, collect], 3000) > 20);
    assert!(explore(&start, &hosts, &[one, two], 1500) > 20);
    explore(&start, &hosts, &[one, two, collect, collect], 1500);
}

#[test]
fn what_is_old_goes_after_the_grace_period_and_what_is_needed_stays() {
    let host = Host::new();
    let memory = Arc::new(Mutex::new(condemned(&host)));
    let open = opener(&memory, None);
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
    assert_whole(&memory.lock().unwrap(), &[]);
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
