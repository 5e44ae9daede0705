//! A bucket in memory that obeys the documented rules of Google Cloud Storage
//! strictly, has a clock of its own, and fails when told to.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use forebay::bucket::{
    Bucket, BucketError, BucketLocation, Checksums, Listing, ObjectKey, ReadObject,
    StorageGeneration, StoredObject, WriteCondition,
};
use jiff::{SignedDuration, Timestamp};

use super::faults::{Calls, Effect, Injected};

struct Entry {
    bytes: Bytes,
    generation: u64,
    updated: Timestamp,
}

struct State {
    objects: BTreeMap<String, Entry>,
    generation: u64,
    skew: SignedDuration,
    started: tokio::time::Instant,
}

pub(crate) struct FakeBucket {
    location: BucketLocation,
    state: Mutex<State>,
    calls: Arc<Calls>,
    sabotage: Mutex<Option<Sabotage>>,
}

/// After the first call that starts with `after`, somebody else writes.
struct Sabotage {
    after: String,
    writes: BTreeMap<String, Bytes>,
}

impl FakeBucket {
    pub(crate) fn new(calls: Arc<Calls>) -> Self {
        Self {
            location: "gs://fake".parse().unwrap(),
            state: Mutex::new(State {
                objects: BTreeMap::new(),
                generation: 1_000,
                skew: SignedDuration::ZERO,
                started: tokio::time::Instant::now(),
            }),
            calls,
            sabotage: Mutex::default(),
        }
    }

    /// Lets somebody else write right after the first call that starts with `after`.
    pub(crate) fn sabotage(&self, after: &str, key: &str, bytes: &[u8]) {
        let writes = [(key.to_owned(), Bytes::copy_from_slice(bytes))];
        self.sabotage_all(after, writes.into());
    }

    /// The same with many objects.
    pub(crate) fn sabotage_all(&self, after: &str, writes: BTreeMap<String, Bytes>) {
        *self.sabotage.lock().unwrap() = Some(Sabotage {
            after: after.to_owned(),
            writes,
        });
    }

    /// Lets the server's clock go on.
    pub(crate) fn advance(&self, seconds: i64) {
        let mut state = self.state.lock().unwrap();
        state.skew += SignedDuration::from_secs(seconds);
    }

    /// What somebody else writes, without any condition.
    pub(crate) fn put(&self, key: &str, bytes: &[u8]) {
        self.state
            .lock()
            .unwrap()
            .put(key, Bytes::copy_from_slice(bytes));
    }

    /// What somebody else deletes.
    pub(crate) fn remove(&self, key: &str) {
        self.state.lock().unwrap().objects.remove(key);
    }

    /// Keys and bytes under a prefix.
    pub(crate) fn contents(&self, prefix: &str) -> BTreeMap<String, Bytes> {
        let state = self.state.lock().unwrap();
        let objects = state.objects.iter();
        objects
            .filter(|(key, _)| key.starts_with(prefix))
            .map(|(key, entry)| (key.clone(), entry.bytes.clone()))
            .collect()
    }

    fn injected(&self, _: Injected) -> BucketError {
        BucketError::Unreachable {
            bucket: self.location.to_string(),
            source: "injected".into(),
        }
    }

    fn suffer_sabotage(&self, what: &str) {
        let mut planned = self.sabotage.lock().unwrap();
        if let Some(act) = planned.take_if(|act| what.starts_with(&act.after)) {
            for (key, bytes) in &act.writes {
                self.put(key, bytes);
            }
        }
    }

    async fn call<T>(
        &self,
        effect: Effect,
        what: String,
        apply: impl FnOnce(&mut State) -> Result<T, BucketError> + Send,
    ) -> Result<T, BucketError> {
        let number = self
            .calls
            .before(effect, what.clone())
            .await
            .map_err(|fault| self.injected(fault))?;
        let result = apply(&mut self.state.lock().unwrap());
        self.suffer_sabotage(&what);
        self.calls
            .after(number)
            .await
            .map_err(|fault| self.injected(fault))?;
        result
    }

    fn condition_failed(&self, key: &ObjectKey) -> BucketError {
        BucketError::ConditionFailed {
            bucket: self.location.to_string(),
            key: key.to_string(),
        }
    }
}

impl State {
    /// Far from this machine's clock, since nobody may mix the two; it goes on
    /// with the test's time.
    fn now(&self) -> Timestamp {
        let start: Timestamp = "2031-05-05T12:00:00Z".parse().unwrap();
        start + self.skew + SignedDuration::try_from(self.started.elapsed()).unwrap()
    }

    fn put(&mut self, key: &str, bytes: Bytes) -> StoredObject {
        self.generation += 1;
        let entry = Entry {
            bytes,
            generation: self.generation,
            updated: self.now(),
        };
        let object = stored(key, &entry);
        self.objects.insert(key.to_owned(), entry);
        object
    }
}

fn stored(key: &str, entry: &Entry) -> StoredObject {
    let checksums = Checksums::of(&entry.bytes);
    StoredObject {
        key: key.to_owned(),
        size: checksums.size,
        generation: StorageGeneration(entry.generation),
        crc32c: Some(checksums.crc32c),
        md5: Some(checksums.md5),
        updated: entry.updated,
    }
}

#[async_trait]
impl Bucket for FakeBucket {
    fn location(&self) -> &BucketLocation {
        &self.location
    }

    async fn list(&self, prefix: &str) -> Result<Listing, BucketError> {
        self.call(Effect::Reads, format!("list {prefix}"), |state| {
            Ok(Listing {
                objects: state
                    .objects
                    .iter()
                    .filter(|(key, _)| key.starts_with(prefix))
                    .map(|(key, entry)| stored(key, entry))
                    .collect(),
                server_time: state.now(),
            })
        })
        .await
    }

    async fn read(&self, key: &ObjectKey) -> Result<Option<ReadObject>, BucketError> {
        self.call(Effect::Reads, format!("read {key}"), |state| {
            let entry = state.objects.get(key.as_str());
            Ok(entry.map(|entry| ReadObject {
                object: stored(key.as_str(), entry),
                bytes: entry.bytes.clone(),
                server_time: state.now(),
            }))
        })
        .await
    }

    async fn write(
        &self,
        key: &ObjectKey,
        bytes: Bytes,
        condition: WriteCondition,
    ) -> Result<StoredObject, BucketError> {
        self.call(Effect::Writes, format!("write {key}"), |state| {
            let current = state.objects.get(key.as_str());
            let holds = match condition {
                WriteCondition::Absent => current.is_none(),
                WriteCondition::Unchanged(seen) => {
                    current.is_some_and(|entry| entry.generation == seen.0)
                }
            };
            if holds {
                Ok(state.put(key.as_str(), bytes))
            } else {
                Err(self.condition_failed(key))
            }
        })
        .await
    }

    async fn delete(
        &self,
        key: &ObjectKey,
        generation: StorageGeneration,
    ) -> Result<(), BucketError> {
        self.call(Effect::Writes, format!("delete {key}"), |state| match state
            .objects
            .get(key.as_str())
        {
            None => Ok(()),
            Some(entry) if entry.generation == generation.0 => {
                state.objects.remove(key.as_str());
                Ok(())
            }
            Some(_) => Err(self.condition_failed(key)),
        })
        .await
    }
}
