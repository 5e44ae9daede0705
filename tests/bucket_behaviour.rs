//! One behaviour suite over every bucket, and a real emulator among them.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

#[path = "support/bucket_suite.rs"]
mod bucket_suite;
#[path = "support/emulator.rs"]
mod emulator;
#[path = "support/fake_bucket.rs"]
#[allow(dead_code)]
mod fake_bucket;
#[path = "support/fake_gcs_http.rs"]
#[allow(dead_code)]
mod fake_gcs_http;
#[path = "support/faults.rs"]
#[allow(dead_code)]
mod faults;

use bucket_suite::Strictness;
use forebay::bucket::{DirectoryBucket, Endpoint, GcsBucket};
use forebay::http::{HttpClient, HttpOptions};

const STRICT: Strictness = Strictness {
    delete_preconditions: true,
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
    let bucket = fake_bucket::FakeBucket::new(Default::default());
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
    };
    bucket_suite::all(&bucket, strictness).await;
}
