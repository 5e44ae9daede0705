//! One behaviour suite over every bucket, and a real emulator among them.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

#[path = "support/bucket_suite.rs"]
mod bucket_suite;
#[path = "support/clouds.rs"]
mod clouds;
#[path = "support/emulator.rs"]
#[allow(dead_code)]
mod emulator;
#[path = "support/fake_gcs_http.rs"]
#[allow(dead_code)]
mod fake_gcs_http;
#[path = "support/fakes.rs"]
mod fakes;

use bucket_suite::Strictness;
use forebay::bucket::{
    Bucket as _, DirectoryBucket, Endpoint, EntityTagBucket, GcsBucket, WriteCondition,
};
use forebay::http::{HttpClient, HttpOptions};

const STRICT: Strictness = Strictness {
    delete_preconditions: true,
    one_of_many_writers: true,
};

fn http() -> HttpClient {
    HttpClient::new(&HttpOptions::default()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory() {
    let scratch = tempfile::tempdir().unwrap();
    let bucket = DirectoryBucket::new(&scratch.path().join("made/at/first/write"));
    bucket_suite::all(&bucket, STRICT).await;
}

#[tokio::test]
async fn the_strict_fake() {
    let bucket = fakes::fake_bucket::FakeBucket::new(Default::default());
    bucket_suite::all(&bucket, STRICT).await;
}

#[tokio::test]
async fn the_json_api_as_documented() {
    let server = fake_gcs_http::FakeGcs::start().await;
    let endpoint = Endpoint::emulator(&server.address.to_string()).unwrap();
    let bucket = GcsBucket::new("bucket", endpoint, http(), None);
    bucket_suite::all(&bucket, STRICT).await;
}

#[tokio::test]
async fn an_emulator_of_google_cloud_storage() {
    let Some(emulator) = emulator::Emulator::start().await else {
        return;
    };
    emulator.create_bucket("behaviour").await;
    let endpoint = Endpoint::emulator(&emulator.address).unwrap();
    let bucket = GcsBucket::new("behaviour", endpoint, http(), None);
    let strictness = Strictness {
        delete_preconditions: false,
        ..STRICT
    };
    bucket_suite::all(&bucket, strictness).await;
}

#[tokio::test]
async fn an_emulator_of_s3() {
    let Some(emulator) = emulator::Emulator::start_s3().await else {
        return;
    };
    let bucket = clouds::s3_bucket(&emulator, "behaviour").await;
    let strictness = Strictness {
        one_of_many_writers: false,
        ..STRICT
    };
    bucket_suite::all(&bucket, strictness).await;
    let missing = EntityTagBucket::s3("missing", &clouds::s3_variables(&emulator), http());
    a_missing_bucket_is_named(&missing.unwrap()).await;
}

#[tokio::test]
async fn an_emulator_of_azure() {
    let Some(emulator) = emulator::Emulator::start_azure().await else {
        return;
    };
    let bucket = clouds::azure_container(&emulator, "behaviour").await;
    bucket_suite::all(&bucket, STRICT).await;
    let missing = EntityTagBucket::azure("missing", &clouds::azure_variables(&emulator), http());
    a_missing_bucket_is_named(&missing.unwrap()).await;
}

async fn a_missing_bucket_is_named(bucket: &EntityTagBucket) {
    let key = "dags/a.py".parse().unwrap();
    let expected = format!("the bucket {} does not exist", bucket.location());
    for error in [
        bucket.list("dags/").await.unwrap_err(),
        bucket.read(&key).await.unwrap_err(),
        (bucket.write(&key, "x".into(), WriteCondition::Absent).await).unwrap_err(),
    ] {
        assert_eq!(error.to_string(), expected);
    }
}
