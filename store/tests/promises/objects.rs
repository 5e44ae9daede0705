//! Objects, realisations and roots.

use std::fs;
use std::io::{Cursor, Read as _};
use std::path::PathBuf;

use crate::common::{files_under, large, new_store, put};
use forebay_store::{ObjectDigest, Realisation, Recipe, RootName, Sha256Digest, Store, StoreError};

#[test]
fn what_is_committed_is_there_for_the_next_process() {
    let (_directory, store) = new_store();
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
    let (_directory, store) = new_store();
    let mut batch = store.begin().unwrap();
    let info = batch.put(b"small").unwrap();
    batch.put(&large(1)).unwrap();
    let staging = store.root().join("staging");
    assert_eq!(files_under(&staging).len(), 3);
    drop(batch);
    assert_eq!(store.info(&info.digest).unwrap(), None);
    assert!(matches!(
        store.read(&info.digest),
        Err(StoreError::NotFound { digest, .. }) if digest == info.digest
    ));
    let root = store.root().to_owned();
    drop(store);
    for directory in ["staging", "objects", "packs", "corrupt"] {
        assert_eq!(
            files_under(&root.join(directory)),
            Vec::<PathBuf>::new(),
            "{directory}"
        );
    }
}

#[test]
fn published_files_are_read_only_and_small_objects_share_one() {
    use std::os::unix::fs::PermissionsExt as _;

    let (_directory, store) = new_store();
    let mut batch = store.begin().unwrap();
    for n in 0..1000_u32 {
        batch.put(&n.to_le_bytes()).unwrap();
    }
    let big = batch.put(&large(1)).unwrap().digest.to_string();
    batch.commit().unwrap();
    let packs = files_under(&store.root().join("packs"));
    let objects = files_under(&store.root().join("objects"));
    assert_eq!((packs.len(), objects.len()), (1, 1));
    assert!(objects[0].ends_with(format!("{}/{big}", &big[..2])));
    for path in packs.iter().chain(&objects) {
        let mode = fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o444, "{}", path.display());
    }
}

#[test]
fn handles_go_where_they_are_needed() {
    fn shared<T: Send + Sync + 'static>() {}
    fn sent<T: Send + 'static>() {}
    shared::<Store>();
    shared::<forebay_store::ObjectFile>();
    sent::<forebay_store::ObjectReader>();
}

#[test]
fn realisations_are_complete_or_none() {
    let (_directory, store) = new_store();
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
    let (_directory, store) = new_store();
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
    let (_directory, store) = new_store();
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
