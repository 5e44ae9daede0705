//! What a collection deletes, and what it never does.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::common::{dump_index, files_under, large, new_store, put};
use forebay_store::{
    CollectOptions, CollectReport, ObjectDigest, Realisation, Recipe, RecipeKey, Store,
};

fn now() -> CollectOptions {
    CollectOptions {
        grace: Duration::ZERO,
        ..CollectOptions::default()
    }
}

fn key(name: &str) -> RecipeKey {
    Recipe::new("test", 1, &name).unwrap().key()
}

/// Realises `name` with these outputs; roots them if `root`.
fn realise(store: &Store, name: &str, bodies: &[&[u8]], root: bool) -> Vec<ObjectDigest> {
    let mut batch = store.begin().unwrap();
    let mut realisation = Realisation::default();
    let mut digests = Vec::new();
    for (number, body) in bodies.iter().enumerate() {
        let digest = batch.put(body).unwrap().digest;
        realisation.outputs.insert(number.to_string(), digest);
        digests.push(digest);
    }
    batch.realise(&key(name), &realisation).unwrap();
    if root {
        batch
            .set_root(&format!("root/{name}").parse().unwrap(), &digests)
            .unwrap();
    }
    batch.commit().unwrap();
    digests
}

/// The store, opened anew: what the old handle used is no longer leased.
fn reopened(store: Store) -> Store {
    let root = store.root().to_owned();
    drop(store);
    Store::open(&root).unwrap()
}

fn deleted(report: &CollectReport) -> BTreeSet<ObjectDigest> {
    report.deleted.iter().map(|object| object.digest).collect()
}

fn has(store: &Store, digest: &ObjectDigest) -> bool {
    dump_index(store.root())
        .iter()
        .any(|row| row.to_lowercase().starts_with(&format!("object {digest}")))
}

/// The index says what the files say: made anew from them it is the same.
fn assert_rebuild_is_equal(store: &Store) {
    let before = dump_index(store.root());
    let report = store.rebuild_index().unwrap();
    assert!(report.damaged.is_empty());
    assert_eq!(dump_index(store.root()), before);
}

#[test]
fn what_nobody_needs_goes_and_the_rest_stays() {
    let (_directory, store) = new_store();
    let big = large(1);
    let kept = realise(&store, "kept", &[b"kept small", &large(2)], true);
    let dead = realise(&store, "dead", &[b"dead small", b"dead other", &big], false);
    let loose = put(&store, b"loose");
    let store = reopened(store);

    let dry = store
        .collect(&CollectOptions {
            dry_run: true,
            ..now()
        })
        .unwrap();
    assert!(has(&store, &loose));
    let report = store.collect(&now()).unwrap();
    assert_eq!(dry, report);
    let expected: BTreeSet<_> = dead.iter().copied().chain([loose]).collect();
    assert_eq!(deleted(&report), expected);
    assert_eq!(report.realisations, [key("dead")]);
    assert_eq!((report.kept, report.waiting), (2, 0));
    assert!(report.freed >= big.len() as u64);
    for digest in &expected {
        assert!(store.info(digest).unwrap().is_none());
    }
    assert_eq!(store.read(&kept[0]).unwrap(), b"kept small");
    assert!(store.realisation(&key("kept")).unwrap().is_some());
    assert!(store.realisation(&key("dead")).unwrap().is_none());
    assert_eq!(files_under(&store.root().join("objects")).len(), 1);
    assert_eq!(files_under(&store.root().join("packs")).len(), 1);
    assert_rebuild_is_equal(&store);
    assert_eq!(store.collect(&now()).unwrap().deleted, []);
    // And it can be put again.
    put(&store, b"loose");
    assert_eq!(store.read(&loose).unwrap(), b"loose");
}

#[test]
fn what_a_live_handle_has_put_or_looked_up_stays_until_it_is_dropped() {
    let (_directory, store) = new_store();
    let put_by_us = put(&store, b"ours");
    let other = Store::open(store.root()).unwrap();
    let read_by_other = realise(&other, "theirs", &[b"theirs", &large(3)], false);
    let third = reopened(other);
    assert!(third.realisation(&key("theirs")).unwrap().is_some());
    assert_eq!(store.collect(&now()).unwrap().deleted, []);
    assert_eq!(third.used(), {
        let mut sorted = read_by_other.clone();
        sorted.sort();
        sorted
    });
    drop(third);
    let report = store.collect(&now()).unwrap();
    assert_eq!(deleted(&report), read_by_other.into_iter().collect());
    assert_eq!(store.read(&put_by_us).unwrap(), b"ours");
}

#[test]
fn a_condemned_object_waits_for_the_grace_period_and_is_revived_by_use() {
    let (_directory, store) = new_store();
    let seen = put(&store, b"seen again");
    let put_again = put(&store, b"put again");
    let rooted = put(&store, b"rooted");
    let forgotten = put(&store, b"forgotten");
    let store = reopened(store);
    let report = store.collect(&CollectOptions::default()).unwrap();
    assert_eq!((report.deleted.len(), report.waiting), (0, 4));

    let user = Store::open(store.root()).unwrap();
    assert!(user.info(&seen).unwrap().is_some());
    put(&user, b"put again");
    let mut batch = user.begin().unwrap();
    batch
        .set_root(&"pin/x".parse().unwrap(), &[rooted])
        .unwrap();
    batch.commit().unwrap();
    let report = store.collect(&now()).unwrap();
    assert_eq!(deleted(&report), [forgotten].into());
    drop(user);
    // Their grace period has begun again.
    let hour = CollectOptions {
        grace: Duration::from_secs(3600),
        ..now()
    };
    let report = store.collect(&hour).unwrap();
    assert_eq!((report.deleted.len(), report.waiting), (0, 2));
    let report = store.collect(&now()).unwrap();
    assert_eq!(deleted(&report), [seen, put_again].into());
    assert_eq!(store.read(&rooted).unwrap(), b"rooted");
}

#[test]
fn a_budget_keeps_the_newest_unneeded_realisations() {
    let (_directory, store) = new_store();
    realise(&store, "oldest", &[&large(1)], false);
    realise(&store, "middle", &[&large(2)], false);
    realise(&store, "newest", &[&large(3)], false);
    realise(&store, "rooted", &[&large(4)], true);
    let store = reopened(store);
    let budget = |max_size| CollectOptions {
        max_size: Some(max_size),
        ..now()
    };
    let names = |report: &CollectReport| report.realisations.clone();
    assert_eq!(store.collect(&budget(1_200_000)).unwrap().deleted, []);
    let report = store.collect(&budget(1_199_999)).unwrap();
    assert_eq!(names(&report), [key("oldest")]);
    let report = store.collect(&budget(0)).unwrap();
    assert_eq!(names(&report).len(), 2);
    assert!(store.realisation(&key("rooted")).unwrap().is_some());
}

#[test]
fn a_pack_that_is_mostly_alive_stays_and_one_that_is_mostly_dead_is_written_anew() {
    let (_directory, store) = new_store();
    let mut batch = store.begin().unwrap();
    let digests: Vec<_> = (0..100u8)
        .map(|n| batch.put(&[n; 500]).unwrap().digest)
        .collect();
    batch
        .set_root(&"root/most".parse().unwrap(), &digests[..80])
        .unwrap();
    batch.commit().unwrap();
    let store = reopened(store);
    let report = store.collect(&now()).unwrap();
    assert_eq!((report.deleted.len(), report.waiting), (0, 20));
    assert_rebuild_is_equal(&store);

    let mut batch = store.begin().unwrap();
    batch
        .set_root(&"root/most".parse().unwrap(), &digests[10..20])
        .unwrap();
    batch.commit().unwrap();
    let reader = store.reader(&digests[15]).unwrap();
    let store = reopened(store);
    let report = store.collect(&now()).unwrap();
    assert_eq!((report.deleted.len(), report.kept), (90, 10));
    assert_rebuild_is_equal(&store);
    for (n, digest) in (0u8..).zip(&digests) {
        match store.read(digest) {
            Ok(bytes) => assert_eq!(bytes, [n; 500]),
            Err(_) => assert!(!(10..20).contains(&n)),
        }
    }
    // Who had it open before reads it still.
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut { reader }, &mut bytes).unwrap();
    assert_eq!(bytes, [15; 500]);
}

#[test]
fn what_killed_batches_left_is_an_orphan_and_goes() {
    let (_directory, store) = new_store();
    let object = put(&store, &large(1));
    put(&store, b"small");
    let root = store.root().to_owned();
    let connection = rusqlite::Connection::open(root.join("index.sqlite")).unwrap();
    connection
        .execute_batch("DELETE FROM objects; DELETE FROM packs")
        .unwrap();
    let store = reopened(store);
    let report = store.collect(&now()).unwrap();
    assert_eq!(report.orphans.len(), 2);
    assert!(store.info(&object).unwrap().is_none());
    assert_eq!(
        files_under(&root.join("objects")),
        Vec::<std::path::PathBuf>::new()
    );
    assert_eq!(
        files_under(&root.join("packs")),
        Vec::<std::path::PathBuf>::new()
    );
}

#[test]
fn roots_that_come_and_go_leave_nothing() {
    let (_directory, store) = new_store();
    let root = "build/shop/dev".parse().unwrap();
    for round in 0..20 {
        let mut batch = store.begin().unwrap();
        let digest = batch
            .put(format!("round {round}").as_bytes())
            .unwrap()
            .digest;
        batch.set_root(&root, &[digest]).unwrap();
        batch.commit().unwrap();
    }
    let mut batch = store.begin().unwrap();
    batch.remove_root(&root).unwrap();
    batch.commit().unwrap();
    let store = reopened(store);
    store.collect(&now()).unwrap();
    assert!(files_under(&store.root().join("packs")).is_empty());
    let rows: Vec<_> = dump_index(store.root())
        .into_iter()
        .filter(|row| !row.starts_with("clock "))
        .collect();
    assert_eq!(rows, Vec::<String>::new());
}

#[test]
fn an_index_of_version_1_is_brought_up_to_date() {
    let (_directory, store) = new_store();
    let digest = put(&store, b"old");
    let path = store.root().join("index.sqlite");
    let store = {
        let connection = rusqlite::Connection::open(&path).unwrap();
        connection
            .execute_batch("DROP TABLE condemned; PRAGMA user_version = 1")
            .unwrap();
        reopened(store)
    };
    assert_eq!(store.read(&digest).unwrap(), b"old");
    assert!(!path_has_damage(store.root()));
    let store = reopened(store);
    assert_eq!(
        store.collect(&CollectOptions::default()).unwrap().waiting,
        1
    );
}

fn path_has_damage(root: &Path) -> bool {
    fs::read_dir(root.join("corrupt")).unwrap().count() > 0
}
