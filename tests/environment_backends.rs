//! The way there and back over buckets and registries that are not ours: a
//! directory and an OCI layout, emulators of Google Cloud Storage, S3 and Azure.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

#[path = "support/clouds.rs"]
#[allow(dead_code)]
mod clouds;
#[path = "support/emulator.rs"]
#[allow(dead_code)]
mod emulator;
#[path = "support/fakes.rs"]
mod fakes;
#[path = "support/open.rs"]
mod open;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use fakes::world::{Machine, deploy, key, wish};
use forebay::bucket::{Bucket, DirectoryBucket, Endpoint, GcsBucket, WriteCondition};
use forebay::clock::SystemClock;
use forebay::environment::{Environment, EnvironmentError, State};
use forebay::progress::Silent;

struct Place {
    bucket: Arc<dyn Bucket>,
    layout: String,
}

impl Place {
    fn new(bucket: impl Bucket + 'static, scratch: &Path) -> Self {
        Self {
            bucket: Arc::new(bucket),
            layout: format!("oci:{}", scratch.join("images").display()),
        }
    }

    fn environment(&self, machine: &Machine) -> Environment {
        Environment::new(
            key("hello", "local"),
            Arc::clone(&self.bucket),
            open::repository(&self.layout, Vec::new()),
            machine.store(),
            Arc::new(SystemClock),
            Arc::new(Silent),
            machine.options(),
        )
    }

    async fn files(&self) -> BTreeMap<String, Bytes> {
        let mut files = BTreeMap::new();
        for object in self.bucket.list("dags/").await.unwrap().objects {
            let read = self.bucket.read(&object.key.parse().unwrap()).await;
            files.insert(object.key, read.unwrap().unwrap().bytes);
        }
        files
    }

    async fn everything(&self) -> Vec<(String, u64)> {
        let objects = self.bucket.list("").await.unwrap().objects;
        let each = objects.into_iter();
        each.map(|object| (object.key, object.generation.0))
            .collect()
    }
}

async fn there_and_back(place: Place) {
    let (anna, ben) = (Machine::new("anna"), Machine::new("ben"));
    let first = wish("1.0", "one", &[("daily", "a"), ("hourly", "b")]);
    let second = wish("1.1", "two", &[("daily", "a2"), ("new", "c")]);

    deploy(&place.environment(&anna), &first).await.unwrap();
    assert_eq!(place.files().await, first.files());

    let before = place.everything().await;
    let unchanged = deploy(&place.environment(&ben), &first).await.unwrap();
    assert!(!unchanged.changed);
    assert_eq!(place.everything().await, before);

    deploy(&place.environment(&ben), &second).await.unwrap();
    assert_eq!(place.files().await, second.files());

    let of_anna = wish("1.2", "three", &[("daily", "of anna")]);
    let of_ben = wish("1.3", "four", &[("daily", "of ben")]);
    let machines = (place.environment(&anna), place.environment(&ben));
    let results = tokio::join!(deploy(&machines.0, &of_anna), deploy(&machines.1, &of_ben));
    let winner = match results {
        (Ok(_), Err(EnvironmentError::Lost { .. } | EnvironmentError::Held { .. })) => of_anna,
        (Err(EnvironmentError::Lost { .. } | EnvironmentError::Held { .. }), Ok(_)) => of_ben,
        // One may be so quick that the other comes after it.
        (Ok(anna), Ok(ben)) if anna.generation < ben.generation => of_ben,
        (Ok(_), Ok(_)) => of_anna,
        other => panic!("{other:?}"),
    };
    assert_eq!(place.files().await, winner.files());

    let environment = place.environment(&anna);
    let live = environment.observe(None).await.unwrap();
    let plan = environment.plan_rollback(live, Some(1)).await.unwrap();
    environment.apply(plan).await.unwrap();
    assert_eq!(place.files().await, first.files());
    let status = environment.status().await.unwrap();
    assert_eq!(status.state, State::Committed);
    assert!(status.drift.is_empty());
    assert_eq!(status.foreign, 0);

    // Somebody edits a file of ours, and says nothing.
    let (edited, _) = first.files().into_iter().next().unwrap();
    let edited = edited.parse().unwrap();
    let object = place.bucket.read(&edited).await.unwrap().unwrap().object;
    let condition = WriteCondition::Unchanged(object.generation);
    let edit = place
        .bucket
        .write(&edited, Bytes::from_static(b"edited"), condition);
    edit.await.unwrap();
    let error = deploy(&place.environment(&ben), &second).await.unwrap_err();
    assert!(matches!(error, EnvironmentError::Drift { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_and_an_oci_layout() {
    let scratch = tempfile::tempdir().unwrap();
    let bucket = DirectoryBucket::new(&scratch.path().join("composer"));
    there_and_back(Place::new(bucket, scratch.path())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_emulator_of_google_cloud_storage() {
    let Some(emulator) = emulator::Emulator::start().await else {
        return;
    };
    emulator.create_bucket("composer").await;
    let endpoint = Endpoint::emulator(&emulator.address).unwrap();
    let bucket = GcsBucket::new("composer", endpoint, open::http(), None);
    let scratch = tempfile::tempdir().unwrap();
    there_and_back(Place::new(bucket, scratch.path())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_emulator_of_s3() {
    let Some(emulator) = emulator::Emulator::start_s3().await else {
        return;
    };
    let bucket = clouds::s3_bucket(&emulator, "composer").await;
    let scratch = tempfile::tempdir().unwrap();
    there_and_back(Place::new(bucket, scratch.path())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_emulator_of_azure() {
    let Some(emulator) = emulator::Emulator::start_azure().await else {
        return;
    };
    let bucket = clouds::azure_container(&emulator, "composer").await;
    let scratch = tempfile::tempdir().unwrap();
    there_and_back(Place::new(bucket, scratch.path())).await;
}

#[tokio::test]
async fn a_bucket_that_does_not_exist_is_an_error_and_nothing_else() {
    let Some(emulator) = emulator::Emulator::start().await else {
        return;
    };
    let endpoint = Endpoint::emulator(&emulator.address).unwrap();
    let bucket = GcsBucket::new("missing", endpoint, open::http(), None);
    let scratch = tempfile::tempdir().unwrap();
    let place = Place::new(bucket, scratch.path());
    let set = wish("1.0", "one", &[("daily", "a")]);
    let error = deploy(&place.environment(&Machine::new("anna")), &set).await;
    assert_eq!(
        error.unwrap_err().to_string(),
        "the bucket gs://missing does not exist"
    );
    assert!(!scratch.path().join("images").exists());
}
