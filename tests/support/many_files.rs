//! Deploys of many DAG files, and what each costs the process that makes it.
#![allow(dead_code)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::fakes::fake_registry::FakeRegistry;
use super::fakes::faults::Calls;
use super::fakes::world::{Wish, deploy, image, key, wish};
use async_trait::async_trait;
use bytes::Bytes;
use forebay::bucket::{
    Bucket, BucketError, BucketLocation, DirectoryBucket, Listing, ObjectKey, ReadObject,
    StorageGeneration, StoredObject, WriteCondition,
};
use forebay::clock::SystemClock;
use forebay::environment::{Environment, Options, Retention};
use forebay::progress::Silent;
use forebay::registry::push;
use forebay_store::{ObjectDigest, Store};

/// As long as a file of a workflow with five jobs.
const CONTENT: usize = 2_000;

/// The objects of a page of a listing.
const PAGE: usize = 1_000;

/// A directory whose requests are counted as they would be sent to Google: a listing by its pages.
struct Counted {
    bucket: DirectoryBucket,
    reads: AtomicUsize,
    writes: AtomicUsize,
}

impl Counted {
    fn count(counter: &AtomicUsize, requests: usize) {
        counter.fetch_add(requests, Ordering::Relaxed);
    }
}

#[async_trait]
impl Bucket for Counted {
    fn location(&self) -> &BucketLocation {
        self.bucket.location()
    }

    async fn list(&self, prefix: &str) -> Result<Listing, BucketError> {
        let listing = self.bucket.list(prefix).await?;
        Self::count(&self.reads, listing.objects.len().div_ceil(PAGE).max(1));
        Ok(listing)
    }

    async fn read(&self, key: &ObjectKey) -> Result<Option<ReadObject>, BucketError> {
        Self::count(&self.reads, 1);
        self.bucket.read(key).await
    }

    async fn write(
        &self,
        key: &ObjectKey,
        bytes: Bytes,
        condition: WriteCondition,
    ) -> Result<StoredObject, BucketError> {
        Self::count(&self.writes, 1);
        self.bucket.write(key, bytes, condition).await
    }

    async fn delete(
        &self,
        key: &ObjectKey,
        generation: StorageGeneration,
    ) -> Result<(), BucketError> {
        Self::count(&self.writes, 1);
        self.bucket.delete(key, generation).await
    }
}

fn set(files: usize, changed: usize) -> Wish {
    let content: &'static str = "#".repeat(CONTENT).leak();
    let other: &'static str = "!".repeat(CONTENT).leak();
    let dags: Vec<(&'static str, &'static str)> = (0..files)
        .map(|n| {
            let content = if n < changed { other } else { content };
            (&*format!("workflow_{n:05}").leak(), content)
        })
        .collect();
    wish("1.0", "one", &dags)
}

/// What is deployed: all files, the same again, or ten of them changed.
pub(crate) const DEPLOYS: [(&str, usize); 3] = [("all", 0), ("none", 0), ("ten", 10)];

/// What a deploy cost.
pub(crate) struct Cost {
    /// Requests that read, to bucket and registry.
    pub(crate) reads: usize,
    /// Requests that write.
    pub(crate) writes: usize,
    /// User and system time, in seconds.
    pub(crate) cpu: f64,
    /// The most memory that was ever resident, in MiB.
    pub(crate) peak: f64,
}

/// A folder in memory where there is such a thing: thousands of files are synced in it.
pub(crate) fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    match memory.is_dir() {
        true => tempfile::tempdir_in(memory).unwrap(),
        false => tempfile::tempdir().unwrap(),
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // Each call to the directory is a thread's, with a stack of its own; requests have none.
        .max_blocking_threads(4)
        .build()
        .unwrap()
}

fn counted(folder: &Path) -> Counted {
    Counted {
        bucket: DirectoryBucket::new(&folder.join("bucket")),
        reads: AtomicUsize::new(0),
        writes: AtomicUsize::new(0),
    }
}

fn environment(folder: &Path, bucket: Arc<Counted>, registry: Arc<FakeRegistry>) -> Environment {
    Environment::new(
        key("hello", "dev"),
        bucket,
        registry,
        Arc::new(Store::open(&folder.join("store")).unwrap()),
        Arc::new(SystemClock),
        Arc::new(Silent),
        Options {
            // However slow the machine is, it need not be renewed.
            lease: Duration::from_secs(86_400),
            ..Options::new("somebody")
        },
    )
}

/// Deploys, in a folder where a deploy of `all` comes first.
pub(crate) fn measure(files: usize, name: &str, folder: &Path) -> Cost {
    let (_, changed) = DEPLOYS
        .into_iter()
        .find(|(deploy, _)| *deploy == name)
        .unwrap();
    let runtime = runtime();
    let calls = Arc::new(Calls::default());
    let registry = Arc::new(FakeRegistry::new(Arc::clone(&calls)));
    if name != "all" {
        // As the deploy of all has left it.
        let image = image("one");
        let pushed = push(&*registry, &image, &[], None, &Silent);
        runtime.block_on(pushed).unwrap();
        calls.reset();
    }
    let bucket = Arc::new(counted(folder));
    let environment = environment(folder, Arc::clone(&bucket), registry);
    let wish = set(files, changed.min(files));
    let before = cpu();
    let applied = runtime.block_on(deploy(&environment, &wish)).unwrap();
    assert_eq!(applied.changed, name != "none");
    let sent = calls.writes().len();
    Cost {
        reads: bucket.reads.load(Ordering::Relaxed) + calls.log().len() - sent,
        writes: bucket.writes.load(Ordering::Relaxed) + sent,
        cpu: cpu() - before,
        peak: peak(),
    }
}

/// Lets an environment have more generations, of the same files each, up to this number.
pub(crate) fn lengthen_history(folder: &Path, to: u64) {
    let state = folder.join("bucket/forebay/v1/hello/dev");
    let read = |path: &Path| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    };
    let record_path = |number: u64| state.join(format!("generations/{number:08}.json"));
    let head_path = state.join("HEAD.json");
    let mut head = read(&head_path);
    let last = head["live"]["generation"].as_u64().unwrap();
    let mut record = read(&record_path(last));
    for number in last + 1..=to {
        let live = &mut head["live"];
        record["generation"] = number.into();
        record["parent"] = serde_json::json!({
            "generation": live["generation"], "record": live["record"],
        });
        let bytes = serde_json::to_vec(&record).unwrap();
        live["generation"] = number.into();
        live["record"] = ObjectDigest::of(&bytes).to_string().into();
        std::fs::write(record_path(number), bytes).unwrap();
    }
    std::fs::write(head_path, head.to_string()).unwrap();
}

/// How many generations are kept.
pub(crate) const KEPT: u32 = 10;

/// Finds out what could be pruned where many generations were live. Gives how many records that
/// are, and the most memory that was ever resident, in MiB.
pub(crate) fn measure_pruning(folder: &Path) -> (usize, f64) {
    let registry = Arc::new(FakeRegistry::new(Arc::default()));
    let environment = environment(folder, Arc::new(counted(folder)), registry);
    let retention = Retention {
        keep: KEPT as usize,
        grace: Duration::from_secs(0),
    };
    let prunable = runtime().block_on(environment.prunable(&retention));
    (prunable.unwrap().records.len(), peak())
}

/// User and system time of this process, in seconds.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let ticks = fields.split_whitespace().skip(11).take(2);
    ticks
        .map(|ticks| ticks.parse::<f64>().unwrap())
        .sum::<f64>()
        / 100.0
}

/// The most memory that was ever resident, in MiB.
fn peak() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    let kilobytes = line.split_whitespace().nth(1).unwrap();
    kilobytes.parse::<f64>().unwrap() / 1024.0
}
