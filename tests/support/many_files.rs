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
use forebay::environment::{Environment, Options};
use forebay::progress::Silent;
use forebay::registry::push;
use forebay_store::Store;

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

/// Deploys, in a folder where a deploy of `all` comes first.
pub(crate) fn measure(files: usize, name: &str, folder: &Path) -> Cost {
    let (_, changed) = DEPLOYS
        .into_iter()
        .find(|(deploy, _)| *deploy == name)
        .unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let calls = Arc::new(Calls::default());
    let registry = Arc::new(FakeRegistry::new(Arc::clone(&calls)));
    if name != "all" {
        // As the deploy of all has left it.
        let image = image("one");
        let pushed = push(&*registry, &image, &[], None, &Silent);
        runtime.block_on(pushed).unwrap();
        calls.reset();
    }
    let bucket = Arc::new(Counted {
        bucket: DirectoryBucket::new(&folder.join("bucket")),
        reads: AtomicUsize::new(0),
        writes: AtomicUsize::new(0),
    });
    let environment = Environment::new(
        key("hello", "dev"),
        Arc::clone(&bucket) as _,
        registry,
        Arc::new(Store::open(&folder.join("store")).unwrap()),
        Arc::new(SystemClock),
        Arc::new(Silent),
        Options {
            // However slow the machine is, it need not be renewed.
            lease: Duration::from_secs(86_400),
            ..Options::new("somebody")
        },
    );
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
