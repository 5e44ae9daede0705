//! What a collection deletes, and what it never does.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use crate::common::{downgrade_index, dump_index, files_under, large, new_store, put};
use forebay_store::{
    CollectOptions, CollectReport, ObjectDigest, Realisation, Recipe, RecipeKey, Store, StoreError,
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

/// Keeps exactly these under "root/most"; the store, opened anew.
fn keep(store: Store, objects: &[ObjectDigest]) -> Store {
    let mut batch = store.begin().unwrap();
    batch
        .set_root(&"root/most".parse().unwrap(), objects)
        .unwrap();
    batch.commit().unwrap();
    reopened(store)
}

fn collected(store: &Store) -> CollectReport {
    let dry = CollectOptions {
        dry_run: true,
        ..now()
    };
    let expected = store.collect(&dry).unwrap();
    let report = store.collect(&now()).unwrap();
    assert_eq!(report, expected);
    assert_rebuild_is_equal(store);
    report
}

fn bodies(count: u8, size: usize) -> Vec<Vec<u8>> {
    (0..count).map(|n| vec![n; size]).collect()
}

fn put_all(store: &Store, bodies: &[Vec<u8>]) -> Vec<ObjectDigest> {
    let mut batch = store.begin().unwrap();
    let digests = bodies
        .iter()
        .map(|body| batch.put(body).unwrap().digest)
        .collect();
    batch.commit().unwrap();
    digests
}

#[test]
fn a_small_pack_is_written_anew_if_anything_in_it_is_dead() {
    let (_directory, store) = new_store();
    let digests = put_all(&store, &bodies(100, 500));
    let store = keep(store, &digests[..99]);
    let report = collected(&store);
    assert_eq!(
        (report.deleted.len(), report.waiting, report.packs),
        (1, 0, 1)
    );
    let store = keep(store, &digests[10..20]);
    let mut reader = store.reader(&digests[15]).unwrap();
    let store = reopened(store);
    let report = collected(&store);
    assert_eq!((report.deleted.len(), report.kept), (89, 10));
    for (n, digest) in digests.iter().enumerate() {
        match store.read(digest) {
            Ok(bytes) => assert_eq!(bytes, [n as u8; 500]),
            Err(_) => assert!(!(10..20).contains(&n)),
        }
    }
    // Who had it open before reads it still.
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut reader, &mut bytes).unwrap();
    assert_eq!(bytes, [15; 500]);
    // Nothing is dead any more: nothing is written again.
    let report = collected(&store);
    assert_eq!((report.packs, report.freed), (0, 0));
}

/// An empty object begins in its pack where the next one does.
#[test]
fn an_empty_object_and_its_neighbour_are_told_apart() {
    for keeps_empty in [false, true] {
        let (_directory, store) = new_store();
        let bodies = [b"before".to_vec(), Vec::new(), b"after".to_vec()];
        let digests = put_all(&store, &bodies);
        let kept = if keeps_empty { 1 } else { 2 };
        let store = keep(store, &[digests[0], digests[kept]]);
        let report = collected(&store);
        assert_eq!(deleted(&report), [digests[3 - kept]].into());
        for at in [0, kept] {
            assert_eq!(store.read(&digests[at]).unwrap(), bodies[at]);
        }
        // Both are there, and stay where a pack is written anew for another reason.
        let digests = put_all(&store, &bodies);
        let store = keep(store, &digests[1..]);
        assert_eq!(deleted(&collected(&store)), [digests[0]].into());
        for at in [1, 2] {
            assert_eq!(store.read(&digests[at]).unwrap(), bodies[at]);
        }
    }
}

#[test]
fn a_large_pack_is_written_anew_when_a_fifth_of_it_is_dead() {
    let (_directory, store) = new_store();
    let digests = put_all(&store, &bodies(100, 20_000));
    let store = keep(store, &digests[..81]);
    let report = collected(&store);
    assert_eq!((report.deleted.len(), report.waiting), (0, 19));
    let store = keep(store, &digests[..79]);
    let report = collected(&store);
    assert_eq!((report.deleted.len(), report.waiting), (21, 0));
    assert!(report.freed >= 21 * 20_000);
    assert_eq!(store.read(&digests[78]).unwrap(), [78; 20_000]);
}

#[test]
fn small_packs_that_have_become_many_are_written_as_one() {
    let (_directory, store) = new_store();
    let large_pack = put_all(&store, &bodies(60, 20_000));
    let mut digests = large_pack;
    let packs = |store: &Store| files_under(&store.root().join("packs")).len();
    let mut store = keep(store, &digests);
    for n in 0..14 {
        digests.extend(put_all(&store, &[format!("small {n}").into_bytes()]));
    }
    store = keep(store, &digests);
    // The first root's record is dead, the pack that it was alone in goes.
    assert_eq!(collected(&store).packs, 1);
    assert_eq!(packs(&store), 16);
    assert_eq!(collected(&store).packs, 0);
    for n in 14..16 {
        digests.extend(put_all(&store, &[format!("small {n}").into_bytes()]));
    }
    // As one, with what is alive in all of them.
    let report = collected(&store);
    assert_eq!((report.packs, report.deleted.len()), (17, 0));
    assert_eq!(packs(&store), 2);
    for digest in &digests {
        store.read(digest).unwrap();
    }
    assert_eq!(collected(&store).packs, 0);
}

#[test]
fn a_pack_in_which_something_needed_is_damaged_is_left_to_verify() {
    let (_directory, store) = new_store();
    let digests = put_all(&store, &bodies(3, 100));
    let other = put(&store, &large(1));
    let store = keep(store, &digests[..2]);
    let pack = files_under(&store.root().join("packs"))
        .into_iter()
        .max_by_key(|path| fs::metadata(path).unwrap().len())
        .unwrap();
    fs::set_permissions(&pack, fs::Permissions::from_mode(0o644)).unwrap();
    let mut bytes = fs::read(&pack).unwrap();
    bytes[20] ^= 1;
    fs::write(&pack, bytes).unwrap();
    let report = store.collect(&now()).unwrap();
    assert_eq!(deleted(&report), [other].into());
    assert_eq!(report.waiting, 1);
    assert_eq!(
        store.verify(&Default::default()).unwrap().corrupt,
        [digests[0]]
    );
    put_all(&store, &bodies(1, 100));
    let report = collected(&reopened(store));
    assert_eq!(deleted(&report), [digests[2]].into());
}

#[test]
fn an_index_that_has_lost_rows_deletes_nothing_and_is_made_anew() {
    let harms = [
        "DELETE FROM roots",
        "PRAGMA foreign_keys = OFF; DELETE FROM packs",
        "DELETE FROM objects WHERE pack IS NULL",
        "UPDATE roots SET removed = 1",
        "DELETE FROM root_objects",
        "UPDATE objects SET size = size + 1",
        "DELETE FROM realisation_outputs",
    ];
    for harm in harms {
        let (_directory, store) = new_store();
        let kept = realise(&store, "kept", &[b"small", &large(1)], true);
        let root = store.root().to_owned();
        drop(store);
        let before = dump_index(&root);
        let connection = rusqlite::Connection::open(root.join("index.sqlite")).unwrap();
        connection.execute_batch(harm).unwrap();
        drop(connection);
        let store = Store::open(&root).unwrap();
        let refused = store.collect(&now());
        assert!(
            matches!(refused, Err(StoreError::IndexDamaged { .. })),
            "{harm}: {refused:?}"
        );
        let store = reopened(store);
        assert_eq!(dump_index(&root), before, "{harm}");
        assert_eq!(store.collect(&now()).unwrap().deleted, []);
        assert_eq!(store.read(&kept[1]).unwrap(), large(1));
    }
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
fn indexes_of_older_versions_are_brought_up_to_date() {
    for version in [1, 2, 3] {
        let (_directory, store) = new_store();
        let kept = realise(&store, "kept", &[b"old", &large(1)], true);
        put(&store, b"loose");
        let mut batch = store.begin().unwrap();
        batch.remove_root(&"root/none".parse().unwrap()).unwrap();
        batch.commit().unwrap();
        let store = reopened(store);
        assert_eq!(
            store.collect(&CollectOptions::default()).unwrap().waiting,
            1
        );
        let root = store.root().to_owned();
        drop(store);
        let before = dump_index(&root);
        downgrade_index(&root, version);
        let store = Store::open(&root).unwrap();
        assert_eq!(dump_index(&root), before);
        assert!(!path_has_damage(&root));
        // Version 2 knows what is condemned; without it the grace period begins again.
        assert_eq!(store.stats().unwrap().condemned, u64::from(version > 1));
        assert_eq!(store.read(&kept[0]).unwrap(), b"old");
        assert!(store.realisation(&key("kept")).unwrap().is_some());
        assert_eq!(store.roots().unwrap().len(), 1);
        assert!(store.verify(&Default::default()).unwrap().is_intact());
        assert_rebuild_is_equal(&store);
        assert_eq!(store.collect(&now()).unwrap().deleted.len(), 1);
    }
}

fn path_has_damage(root: &Path) -> bool {
    fs::read_dir(root.join("corrupt")).unwrap().count() > 0
}
