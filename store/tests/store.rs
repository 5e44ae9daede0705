//! What a store promises, through its public interface.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::io::{Cursor, Read as _};
use std::path::{Path, PathBuf};

use forebay_store::{ObjectDigest, Realisation, Recipe, RootName, Sha256Digest, Store, StoreError};

fn store() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("store")).unwrap();
    (directory, store)
}

fn put(store: &Store, bytes: &[u8]) -> ObjectDigest {
    let mut batch = store.begin().unwrap();
    let info = batch.put(bytes).unwrap();
    batch.commit().unwrap();
    info.digest
}

fn large(seed: u8) -> Vec<u8> {
    (0..300_000u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8 ^ seed)
        .collect()
}

fn files_under(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_under(&path));
        } else {
            files.push(path);
        }
    }
    files.sort();
    files
}

#[test]
fn what_is_committed_is_there_for_the_next_process() {
    let (_directory, store) = store();
    let big = large(0);
    let mut batch = store.begin().unwrap();
    let small = batch.put(b"small").unwrap();
    let streamed = batch.put_reader(&mut Cursor::new(&big)).unwrap();
    let empty = batch.put(b"").unwrap();
    assert_eq!(batch.put(b"small").unwrap(), small);
    assert_eq!(store.info(&small.digest).unwrap(), None);
    batch.commit().unwrap();

    let again = Store::open(store.root()).unwrap();
    assert_eq!(again.read(&small.digest).unwrap(), b"small");
    assert_eq!(again.read(&empty.digest).unwrap(), b"");
    assert_eq!(again.read(&streamed.digest).unwrap(), big);
    assert_eq!(streamed.sha256, Sha256Digest::of(&big));
    assert_eq!(again.info(&streamed.digest).unwrap(), Some(streamed));
    assert_eq!(again.info_by_sha256(&small.sha256).unwrap(), Some(small));
    let mut bytes = Vec::new();
    again
        .reader(&streamed.digest)
        .unwrap()
        .read_to_end(&mut bytes)
        .unwrap();
    assert_eq!(bytes, big);
    let file = again.file(&streamed.digest).unwrap();
    let mut part = [0; 10];
    file.read_exact_at(&mut part, 299_990).unwrap();
    assert_eq!(part, big[299_990..]);
    assert!(matches!(
        file.read_exact_at(&mut part, 299_991),
        Err(StoreError::OutOfRange { .. })
    ));
}

#[test]
fn a_dropped_batch_leaves_nothing() {
    let (_directory, store) = store();
    let before = files_under(store.root()).len();
    let mut batch = store.begin().unwrap();
    let info = batch.put(b"small").unwrap();
    batch.put(&large(1)).unwrap();
    drop(batch);
    assert_eq!(store.info(&info.digest).unwrap(), None);
    let root = store.root().to_owned();
    drop(store);
    let _ = Store::open(&root).unwrap();
    // SQLite's own files come and go.
    let left = files_under(&root);
    assert!(left.len() <= before, "{left:?}");
    assert!(!left.iter().any(|path| path.ends_with("pack")));
}

#[test]
fn realisations_are_complete_or_none() {
    let (_directory, store) = store();
    let key = Recipe::new("layer", 1, &["input"]).unwrap().key();
    assert_eq!(store.realisation(&key).unwrap(), None);
    let mut batch = store.begin().unwrap();
    let info = batch.put(b"out").unwrap();
    let realisation = Realisation {
        outputs: [("layer".to_owned(), info.digest)].into(),
    };
    batch.realise(&key, &realisation).unwrap();
    batch.commit().unwrap();
    assert_eq!(store.realisation(&key).unwrap(), Some(realisation));

    let later = Realisation {
        outputs: [("layer".to_owned(), ObjectDigest::of(b"not there"))].into(),
    };
    let mut batch = store.begin().unwrap();
    batch.realise(&key, &later).unwrap();
    batch.commit().unwrap();
    assert_eq!(store.realisation(&key).unwrap(), None);
    put(&store, b"not there");
    assert_eq!(store.realisation(&key).unwrap(), Some(later));
}

#[test]
fn roots_are_set_replaced_and_removed() {
    let (_directory, store) = store();
    let name: RootName = "generation/shop/dev/1".parse().unwrap();
    let digest = put(&store, b"kept");
    for objects in [vec![digest, digest], vec![]] {
        let mut batch = store.begin().unwrap();
        batch.set_root(&name, &objects).unwrap();
        batch.commit().unwrap();
        let roots = store.roots().unwrap();
        assert_eq!(roots.len(), 1);
        assert_eq!(roots[0].objects.len(), objects.len().min(1));
    }
    let mut batch = store.begin().unwrap();
    batch.remove_root(&name).unwrap();
    batch.commit().unwrap();
    assert!(store.roots().unwrap().is_empty());
}

#[test]
fn a_batch_with_nothing_new_writes_nothing() {
    let (_directory, store) = store();
    let key = Recipe::new("layer", 1, &()).unwrap().key();
    let name: RootName = "pin/a".parse().unwrap();
    let absent: RootName = "pin/absent".parse().unwrap();
    let write = || {
        let mut batch = store.begin().unwrap();
        let info = batch.put(b"small").unwrap();
        batch.put(&large(2)).unwrap();
        batch.put_reader(&mut Cursor::new(large(2))).unwrap();
        let outputs = [("a".to_owned(), info.digest)].into();
        batch.realise(&key, &Realisation { outputs }).unwrap();
        batch.set_root(&name, &[info.digest]).unwrap();
        batch.remove_root(&absent).unwrap();
        batch.commit().unwrap();
    };
    let state = || {
        files_under(store.root())
            .into_iter()
            .filter(|path| !path.ends_with("index.sqlite-shm"))
            .map(|path| {
                let metadata = fs::metadata(&path).unwrap();
                (path, metadata.len(), metadata.modified().unwrap())
            })
            .collect::<Vec<_>>()
    };
    write();
    let first = state();
    write();
    assert_eq!(state(), first);
}
