//! What every bucket promises, whatever it is made of. Each test gets an
//! empty bucket.

use bytes::Bytes;
use forebay::bucket::{
    Bucket, BucketError, Checksums, ObjectKey, StorageGeneration, StoredObject, WriteCondition,
};

/// Where an emulator is less strict than the service that it stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Strictness {
    /// `fake-gcs-server` ignores `ifGenerationMatch` on deletes.
    pub(crate) delete_preconditions: bool,
    /// moto compares and writes in two steps.
    pub(crate) one_of_many_writers: bool,
}

pub(crate) async fn all(bucket: &dyn Bucket, strictness: Strictness) {
    an_empty_bucket_is_an_answer(bucket).await;
    what_was_written_is_read_and_listed(bucket).await;
    creating_never_replaces(bucket).await;
    replacing_takes_exactly_what_was_seen(bucket).await;
    deleting_takes_exactly_what_was_seen(bucket, strictness).await;
    odd_but_valid_keys_survive(bucket).await;
    long_listings_are_complete_and_sorted(bucket).await;
    if strictness.one_of_many_writers {
        one_of_many_writers_wins(bucket).await;
    }
}

fn key(text: &str) -> ObjectKey {
    text.parse().unwrap()
}

fn failed<T: std::fmt::Debug>(result: Result<T, BucketError>) {
    assert!(
        matches!(result, Err(BucketError::ConditionFailed { .. })),
        "{result:?}"
    );
}

async fn an_empty_bucket_is_an_answer(bucket: &dyn Bucket) {
    assert!(bucket.list("dags/").await.unwrap().objects.is_empty());
    assert!(bucket.read(&key("dags/none.py")).await.unwrap().is_none());
}

async fn what_was_written_is_read_and_listed(bucket: &dyn Bucket) {
    let bytes = Bytes::from_static(b"print('a')\n\0\xff--");
    let written = bucket
        .write(&key("dags/a.py"), bytes.clone(), WriteCondition::Absent)
        .await
        .unwrap();
    assert!(Checksums::of(&bytes).matches(&written));

    let read = bucket.read(&key("dags/a.py")).await.unwrap().unwrap();
    assert_eq!(read.bytes, bytes);
    assert_eq!(read.object.generation, written.generation);

    let listing = bucket.list("dags/").await.unwrap();
    let [listed] = &listing.objects[..] else {
        panic!("{listing:?}");
    };
    // Only Google's answer to a write has its very time; others round it.
    let written = StoredObject {
        updated: listed.updated,
        ..written
    };
    assert_eq!(listed, &written);
    // Neither the folder's siblings nor anything else of the bucket.
    for sibling in ["dags_backup/a.py", "dag", "other/dags/a.py"] {
        bucket
            .write(&key(sibling), Bytes::new(), WriteCondition::Absent)
            .await
            .unwrap();
    }
    assert_eq!(bucket.list("dags/").await.unwrap().objects.len(), 1);
    assert!(read.server_time >= read.object.updated);
}

async fn creating_never_replaces(bucket: &dyn Bucket) {
    let place = key("create/once");
    let write = |text: &'static str| {
        bucket.write(
            &place,
            Bytes::from_static(text.as_bytes()),
            WriteCondition::Absent,
        )
    };
    write("first").await.unwrap();
    failed(write("second").await);
    assert_eq!(bucket.read(&place).await.unwrap().unwrap().bytes, "first");
}

async fn replacing_takes_exactly_what_was_seen(bucket: &dyn Bucket) {
    let place = key("replace/me");
    let first = bucket
        .write(&place, Bytes::from_static(b"first"), WriteCondition::Absent)
        .await
        .unwrap();
    let seen = WriteCondition::Unchanged(first.generation);
    let second = bucket
        .write(&place, Bytes::from_static(b"other"), seen)
        .await
        .unwrap();
    assert_ne!(first.generation, second.generation);
    failed(
        bucket
            .write(&place, Bytes::from_static(b"third"), seen)
            .await,
    );
    assert_eq!(bucket.read(&place).await.unwrap().unwrap().bytes, "other");
    // What does not exist was not seen.
    failed(bucket.write(&key("replace/none"), Bytes::new(), seen).await);
}

async fn deleting_takes_exactly_what_was_seen(bucket: &dyn Bucket, strictness: Strictness) {
    let place = key("delete/me");
    let first = bucket
        .write(&place, Bytes::from_static(b"first"), WriteCondition::Absent)
        .await
        .unwrap();
    let second = bucket
        .write(
            &place,
            Bytes::from_static(b"other"),
            WriteCondition::Unchanged(first.generation),
        )
        .await
        .unwrap();
    if strictness.delete_preconditions {
        failed(bucket.delete(&place, first.generation).await);
        assert!(bucket.read(&place).await.unwrap().is_some());
    }
    bucket.delete(&place, second.generation).await.unwrap();
    assert!(bucket.read(&place).await.unwrap().is_none());
    bucket.delete(&place, second.generation).await.unwrap();
    bucket
        .delete(&key("never/was"), StorageGeneration(7))
        .await
        .unwrap();
}

async fn odd_but_valid_keys_survive(bucket: &dyn Bucket) {
    let keys = [
        "odd/ blank",
        "odd/+%25&?#=",
        "odd/[x]*~",
        "odd/é",
        "odd/日本",
    ];
    for text in keys {
        let bytes = Bytes::from(text.as_bytes());
        bucket
            .write(&key(text), bytes.clone(), WriteCondition::Absent)
            .await
            .unwrap();
        assert_eq!(bucket.read(&key(text)).await.unwrap().unwrap().bytes, bytes);
    }
    let listing = bucket.list("odd/").await.unwrap();
    for object in listing.objects {
        assert!(keys.contains(&object.key.as_str()), "{}", object.key);
        bucket
            .delete(&key(&object.key), object.generation)
            .await
            .unwrap();
    }
    assert!(bucket.list("odd/").await.unwrap().objects.is_empty());
}

async fn long_listings_are_complete_and_sorted(bucket: &dyn Bucket) {
    let keys: Vec<String> = (0..20).map(|n| format!("many/{n:02}/x")).collect();
    for text in keys.iter().rev() {
        bucket
            .write(&key(text), Bytes::new(), WriteCondition::Absent)
            .await
            .unwrap();
    }
    let listing = bucket.list("many/").await.unwrap();
    let listed: Vec<&str> = listing.objects.iter().map(|o| o.key.as_str()).collect();
    assert_eq!(listed, keys);
}

async fn one_of_many_writers_wins(bucket: &dyn Bucket) {
    let place = key("race/HEAD.json");
    let base = bucket
        .write(&place, Bytes::from_static(b"base"), WriteCondition::Absent)
        .await
        .unwrap();
    let writers = (0..8).map(|n| {
        let place = place.clone();
        async move {
            let seen = WriteCondition::Unchanged(base.generation);
            bucket
                .write(&place, format!("writer {n}").into(), seen)
                .await
        }
    });
    let results = futures_util::future::join_all(writers).await;
    let winners = results.iter().filter(|result| result.is_ok()).count();
    assert_eq!(winners, 1, "{results:?}");
    for result in results.into_iter().filter(Result::is_err) {
        failed(result);
    }
}
