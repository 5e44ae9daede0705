//! What the client of Google Cloud Storage does when answers are lost, damaged or refused.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

#[path = "support/fake_gcs_http.rs"]
#[allow(dead_code)]
mod fake_gcs_http;
#[path = "support/http_faults.rs"]
mod http_faults;

use std::sync::Arc;

use bytes::Bytes;
use fake_gcs_http::{FakeGcs, HttpFault};
use forebay::bucket::{
    Bucket, BucketError, Endpoint, GcsBucket, ObjectKey, StorageGeneration, WriteCondition,
};
use http_faults::{Tokens, impatient};

async fn start() -> (FakeGcs, GcsBucket) {
    let server = FakeGcs::start().await;
    let endpoint = Endpoint::emulator(&server.address.to_string()).unwrap();
    (
        server,
        GcsBucket::new("bucket", endpoint, impatient(), None),
    )
}

fn key() -> ObjectKey {
    "dags/a.py".parse().unwrap()
}

async fn create(bucket: &GcsBucket) -> Result<forebay::bucket::StoredObject, BucketError> {
    let bytes = Bytes::from_static(b"the bytes of this object");
    bucket.write(&key(), bytes, WriteCondition::Absent).await
}

#[tokio::test]
async fn a_write_whose_answer_was_lost_is_recognised_as_our_own() {
    for fault in [HttpFault::ResetAfter, HttpFault::Truncate] {
        let (server, bucket) = start().await;
        server.fault(0, fault);
        let written = create(&bucket).await.unwrap();
        // The write, its repetition (412), and the look at who it was.
        assert_eq!(server.requests().len(), 3);
        let read = bucket.read(&key()).await.unwrap().unwrap();
        assert_eq!(read.object.generation, written.generation);
    }
}

#[tokio::test]
async fn the_same_bytes_of_somebody_else_are_not_our_own_write() {
    let (server, bucket) = start().await;
    server.put(key().as_str(), b"the bytes of this object");
    // Our attempt is lost before it is applied; the repetition meets the other's object.
    server.fault(0, HttpFault::ResetBefore);
    let error = create(&bucket).await.unwrap_err();
    assert!(
        matches!(error, BucketError::ConditionFailed { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn passing_failures_are_repeated() {
    for fault in [
        HttpFault::Status(408),
        HttpFault::Status(429),
        HttpFault::Status(500),
        HttpFault::Status(503),
        HttpFault::ResetBefore,
    ] {
        let (server, bucket) = start().await;
        server.fault(0, fault);
        create(&bucket).await.unwrap();
        assert_eq!(server.requests().len(), 2);
    }
}

#[tokio::test]
async fn a_failure_that_stays_is_reported_with_the_servers_words() {
    let (server, bucket) = start().await;
    for at in 0..3 {
        server.fault(at, HttpFault::Status(503));
    }
    let error = create(&bucket).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the bucket gs://bucket answered 503 to writing dags/a.py: injected"
    );
    assert_eq!(server.content(key().as_str()), None);
}

#[tokio::test]
async fn a_clear_refusal_is_not_repeated() {
    let (server, bucket) = start().await;
    server.fault(0, HttpFault::Status(403));
    let error = create(&bucket).await.unwrap_err();
    assert!(
        matches!(
            error,
            BucketError::Denied {
                permission: "storage.objects.create",
                ..
            }
        ),
        "{error}"
    );
    server.put(key().as_str(), b"other");
    let error = create(&bucket).await.unwrap_err();
    assert!(
        matches!(error, BucketError::ConditionFailed { .. }),
        "{error}"
    );
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn damaged_bytes_are_read_again_and_never_given_out() {
    let (server, bucket) = start().await;
    create(&bucket).await.unwrap();
    for fault in [HttpFault::Corrupt, HttpFault::Truncate] {
        server.fault(0, fault);
        let read = bucket.read(&key()).await.unwrap().unwrap();
        assert_eq!(read.bytes, "the bytes of this object");
    }
    for at in 0..3 {
        server.fault(at, HttpFault::Corrupt);
    }
    let error = bucket.read(&key()).await.unwrap_err();
    assert!(matches!(error, BucketError::Damaged { .. }), "{error}");
}

#[tokio::test]
async fn the_time_of_a_write_is_asked_for_if_it_did_not_come_along() {
    let (server, bucket) = start().await;
    let written = create(&bucket).await.unwrap();
    server.hide_last_modified();
    let read = bucket.read(&key()).await.unwrap().unwrap();
    assert_eq!(read.object, written);
}

#[tokio::test]
async fn a_delete_whose_answer_was_lost_is_done() {
    let (server, bucket) = start().await;
    let written = create(&bucket).await.unwrap();
    server.fault(0, HttpFault::ResetAfter);
    bucket.delete(&key(), written.generation).await.unwrap();
    assert_eq!(server.content(key().as_str()), None);
}

#[tokio::test]
async fn a_bucket_that_does_not_exist_is_named() {
    let server = FakeGcs::start().await;
    let endpoint = Endpoint::emulator(&format!("http://{}", server.address)).unwrap();
    let bucket = GcsBucket::new("elsewhere", endpoint, impatient(), None);
    for error in [
        bucket.list("dags/").await.unwrap_err(),
        bucket.read(&key()).await.unwrap_err(),
        create(&bucket).await.unwrap_err(),
    ] {
        assert_eq!(
            error.to_string(),
            "the bucket gs://elsewhere does not exist"
        );
    }
    // What is to be gone is gone.
    bucket.delete(&key(), StorageGeneration(1)).await.unwrap();
}

#[tokio::test]
async fn a_server_that_is_down_is_unreachable() {
    let endpoint = Endpoint::emulator("127.0.0.1:1").unwrap();
    let bucket = GcsBucket::new("bucket", endpoint, impatient(), None);
    let error = bucket.list("dags/").await.unwrap_err();
    assert!(matches!(error, BucketError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn an_expired_token_is_renewed_once() {
    let server = FakeGcs::start().await;
    let endpoint = Endpoint::service_at(&format!("http://{}", server.address)).unwrap();
    let tokens = Arc::new(Tokens::default());
    let bucket = GcsBucket::new("bucket", endpoint, impatient(), Some(tokens.clone()));
    server.expect_token("token-1");
    create(&bucket).await.unwrap();
    assert_eq!(tokens.forgotten(), 1);

    server.expect_token("never given");
    let error = bucket.read(&key()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "tester may not storage.objects.get in gs://bucket"
    );
    assert_eq!(tokens.forgotten(), 2);
}

#[tokio::test]
async fn an_emulator_never_sees_a_token() {
    let server = FakeGcs::start().await;
    server.expect_token("token-0");
    let endpoint = Endpoint::emulator(&server.address.to_string()).unwrap();
    let bucket = GcsBucket::new(
        "bucket",
        endpoint,
        impatient(),
        Some(Arc::new(Tokens::default())),
    );
    let error = bucket.list("").await.unwrap_err();
    assert!(matches!(error, BucketError::Denied { .. }), "{error}");
}
