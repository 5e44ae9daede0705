//! What only a directory can do wrong.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::fs;

use bytes::Bytes;
use forebay::bucket::{Bucket, BucketError, DirectoryBucket, ObjectKey, WriteCondition};

fn key(text: &str) -> ObjectKey {
    text.parse().unwrap()
}

#[tokio::test]
async fn looking_creates_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path().join("bucket");
    let bucket = DirectoryBucket::new(&root);
    assert!(bucket.list("dags/").await.unwrap().objects.is_empty());
    assert!(bucket.read(&key("dags/a.py")).await.unwrap().is_none());
    assert!(!root.exists());
}

#[tokio::test]
async fn our_own_files_are_no_objects() {
    let scratch = tempfile::tempdir().unwrap();
    let bucket = DirectoryBucket::new(scratch.path());
    // What a writer that died has left.
    fs::write(scratch.path().join(".forebay-write"), "half").unwrap();
    assert!(bucket.list("").await.unwrap().objects.is_empty());
    bucket
        .write(
            &key("a"),
            Bytes::from_static(b"whole"),
            WriteCondition::Absent,
        )
        .await
        .unwrap();
    let listing = bucket.list("").await.unwrap();
    assert_eq!(listing.objects.len(), 1);
    assert_eq!(fs::read(scratch.path().join("a")).unwrap(), b"whole");
}

#[tokio::test]
async fn a_file_edited_by_hand_is_another_generation() {
    let scratch = tempfile::tempdir().unwrap();
    let bucket = DirectoryBucket::new(scratch.path());
    let place = key("dags/a.py");
    let written = bucket
        .write(&place, Bytes::from_static(b"one"), WriteCondition::Absent)
        .await
        .unwrap();
    fs::write(scratch.path().join("dags/a.py"), "two").unwrap();
    let error = bucket.delete(&place, written.generation).await.unwrap_err();
    assert!(
        matches!(error, BucketError::ConditionFailed { .. }),
        "{error}"
    );
    assert!(scratch.path().join("dags/a.py").exists());
}

#[tokio::test]
async fn a_dangling_link_is_not_absent() {
    let scratch = tempfile::tempdir().unwrap();
    let outside = scratch.path().join("outside");
    let root = scratch.path().join("bucket");
    fs::create_dir_all(root.join("dags")).unwrap();
    std::os::unix::fs::symlink(&outside, root.join("dags/a.py")).unwrap();
    let bucket = DirectoryBucket::new(&root);
    let error = bucket
        .write(&key("dags/a.py"), Bytes::new(), WriteCondition::Absent)
        .await
        .unwrap_err();
    assert!(
        matches!(error, BucketError::ConditionFailed { .. }),
        "{error}"
    );
    assert!(!outside.exists());
}

#[tokio::test]
async fn a_root_that_is_a_file_is_an_error_with_its_path() {
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path().join("file");
    fs::write(&root, "").unwrap();
    let bucket = DirectoryBucket::new(&root);
    let error = bucket
        .write(&key("a"), Bytes::new(), WriteCondition::Absent)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("file"), "{error}");
}

#[tokio::test]
async fn what_a_dead_writer_left_in_a_folder_is_no_object_and_goes() {
    let scratch = tempfile::tempdir().unwrap();
    let bucket = DirectoryBucket::new(scratch.path());
    let left = scratch.path().join("dags/.forebay-write");
    fs::create_dir(scratch.path().join("dags")).unwrap();
    fs::write(&left, "half").unwrap();
    assert!(bucket.list("dags/").await.unwrap().objects.is_empty());
    let whole = Bytes::from_static(b"whole");
    bucket
        .write(&key("dags/a.py"), whole, WriteCondition::Absent)
        .await
        .unwrap();
    assert!(!left.exists());
    assert_eq!(bucket.list("dags/").await.unwrap().objects.len(), 1);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_folder_may_lie_on_another_file_system() {
    let scratch = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir_in("/dev/shm").unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), scratch.path().join("dags")).unwrap();
    let bucket = DirectoryBucket::new(scratch.path());
    for name in ["dags/a.py", "dags/deep/er/b.py"] {
        let bytes = Bytes::from_static(b"whole");
        bucket
            .write(&key(name), bytes, WriteCondition::Absent)
            .await
            .unwrap();
        assert_eq!(fs::read(scratch.path().join(name)).unwrap(), b"whole");
    }
    assert_eq!(bucket.list("dags/").await.unwrap().objects.len(), 2);
}

#[tokio::test]
async fn folders_that_are_missing_are_created() {
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path().join("not/yet");
    let bucket = DirectoryBucket::new(&root);
    bucket
        .write(&key("a/b/c"), Bytes::new(), WriteCondition::Absent)
        .await
        .unwrap();
    assert!(root.join("a/b/c").is_file());
}
