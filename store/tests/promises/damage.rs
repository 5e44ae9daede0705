//! Damaged and lost bytes are never given out, and heal; a lost index is made anew.

use std::fs;
use std::io::{Cursor, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::common::{dump_index, files_under, large, new_store, put};
use forebay_store::{
    CollectOptions, ObjectDigest, ObjectInfo, Realisation, Recipe, Root, RootName, Store,
    StoreError,
};

/// Flips one bit of a read-only file.
fn flip(path: &Path, position: usize) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    let mut bytes = fs::read(path).unwrap();
    bytes[position] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn object_file(store: &Store) -> PathBuf {
    files_under(&store.root().join("objects")).remove(0)
}

fn pack_file(store: &Store) -> PathBuf {
    files_under(&store.root().join("packs")).remove(0)
}

/// The object must be reported as damaged once, then be unknown, then heal.
fn assert_quarantined_then_healed(store: &Store, digest: ObjectDigest, bytes: &[u8]) {
    match store.read(&digest) {
        Err(StoreError::Damaged {
            digest: named,
            moved_to,
            ..
        }) => {
            assert_eq!(named, digest);
            assert_ne!(ObjectDigest::of(&fs::read(moved_to).unwrap()), digest);
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(
        store.read(&digest),
        Err(StoreError::NotFound { .. })
    ));
    assert_eq!(store.info(&digest).unwrap(), None);
    assert_eq!(put(store, bytes), digest);
    assert_eq!(store.read(&digest).unwrap(), bytes);
}

#[test]
fn a_damaged_large_object_is_moved_aside_and_heals() {
    let (_directory, store) = new_store();
    let digest = put(&store, &large(0));
    flip(&object_file(&store), 200_000);
    assert_quarantined_then_healed(&store, digest, &large(0));
}

#[test]
fn a_file_that_is_too_long_or_too_short_is_damaged() {
    let (_directory, store) = new_store();
    for change in [299_999, 300_001, 0] {
        let digest = put(&store, &large(0));
        let path = object_file(&store);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_len(change).unwrap();
        assert_eq!(store.info(&digest).unwrap(), None);
        assert_quarantined_then_healed(&store, digest, &large(0));
    }
}

#[test]
fn a_damaged_small_object_is_copied_aside_and_its_neighbours_stay() {
    let (_directory, store) = new_store();
    let mut batch = store.begin().unwrap();
    let first = batch.put(b"first").unwrap().digest;
    let second = batch.put(b"second").unwrap().digest;
    batch.commit().unwrap();
    flip(&pack_file(&store), 16);
    assert_quarantined_then_healed(&store, first, b"first");
    assert_eq!(store.read(&second).unwrap(), b"second");
    // The damaged copy is still in the first pack; the healed one counts.
    let before = dump_index(store.root());
    let report = store.rebuild_index().unwrap();
    assert_eq!(report.damaged.len(), 1);
    assert_eq!(dump_index(store.root()), before);
    assert_eq!(store.read(&first).unwrap(), b"first");
}

#[test]
fn a_reader_fails_before_its_last_byte_if_the_bytes_are_damaged() {
    let (_directory, store) = new_store();
    let digest = put(&store, &large(0));
    flip(&object_file(&store), 0);
    let mut reader = store.reader(&digest).unwrap();
    let mut bytes = vec![0; 300_000];
    reader.read_exact(&mut bytes[..299_999]).unwrap();
    let error = reader.read_exact(&mut bytes[299_999..]).unwrap_err();
    assert!(error.to_string().contains(&digest.to_string()), "{error}");
    assert!(reader.read(&mut bytes).is_err());
}

#[test]
fn a_reader_that_was_opened_before_the_object_healed_does_no_harm() {
    for bytes in [large(0), b"small".to_vec()] {
        let (_directory, store) = new_store();
        let digest = put(&store, &bytes);
        let path = [object_file, pack_file][usize::from(bytes.len() < 10)](&store);
        flip(&path, 18);
        let mut stale = store.reader(&digest).unwrap();
        put(&store, &bytes);
        for _ in 0..2 {
            assert!(stale.read_to_end(&mut Vec::new()).is_err());
        }
        assert_eq!(store.read(&digest).unwrap(), bytes);
    }
}

#[test]
fn a_put_is_not_fooled_by_a_row_whose_bytes_are_gone_or_damaged() {
    type Harm = fn(&Path);
    let harms: [Harm; 2] = [|path| fs::remove_file(path).unwrap(), |path| flip(path, 17)];
    for harm in harms {
        let (_directory, store) = new_store();
        let mut batch = store.begin().unwrap();
        let small = batch.put(b"small").unwrap();
        let big = batch.put(&large(0)).unwrap();
        batch.commit().unwrap();
        harm(&pack_file(&store));
        harm(&object_file(&store));
        let mut batch = store.begin().unwrap();
        batch.put(b"small").unwrap();
        batch.put_reader(&mut Cursor::new(large(0))).unwrap();
        batch.commit().unwrap();
        assert_eq!(store.read(&small.digest).unwrap(), b"small");
        assert_eq!(store.read(&big.digest).unwrap(), large(0));
    }
}

#[test]
fn a_lost_file_is_said_to_be_lost_and_its_realisation_is_none() {
    let (_directory, store) = new_store();
    let key = Recipe::new("layer", 1, &()).unwrap().key();
    let mut batch = store.begin().unwrap();
    let info = batch.put(&large(0)).unwrap();
    let outputs = [("layer".to_owned(), info.digest)].into();
    batch.realise(&key, &Realisation { outputs }).unwrap();
    batch.commit().unwrap();
    let path = object_file(&store);
    fs::remove_file(&path).unwrap();
    assert_eq!(store.info_by_sha256(&info.sha256).unwrap(), None);
    assert_eq!(store.realisation(&key).unwrap(), None);
    assert!(matches!(
        store.read(&info.digest),
        Err(StoreError::Lost { path: named, .. }) if named == path
    ));
    put(&store, &large(0));
    assert!(store.realisation(&key).unwrap().is_some());
}

/// Objects of both kinds, realisations that were replaced, roots that were removed.
fn fill(store: &Store) {
    let recipe = |name: &str| Recipe::new("kind", 1, &name).unwrap().key();
    let root = |name: &str| name.parse::<RootName>().unwrap();
    for round in 0..3_u8 {
        let mut batch = store.begin().unwrap();
        let mut digests = Vec::new();
        for n in 0..20_u8 {
            digests.push(batch.put(&[round, n]).unwrap().digest);
        }
        digests.push(batch.put(&large(round)).unwrap().digest);
        for name in ["same", &format!("round {round}")] {
            let outputs = [("out".to_owned(), digests[usize::from(round)])].into();
            batch
                .realise(&recipe(name), &Realisation { outputs })
                .unwrap();
        }
        batch.set_root(&root("same"), &digests).unwrap();
        batch
            .set_root(&root(&format!("round/{round}")), &digests[..2])
            .unwrap();
        batch.commit().unwrap();
    }
    let mut batch = store.begin().unwrap();
    batch.remove_root(&root("round/1")).unwrap();
    batch.set_root(&root("empty"), &[]).unwrap();
    batch
        .realise(&recipe("no outputs"), &Realisation::default())
        .unwrap();
    batch.commit().unwrap();
    let mut batch = store.begin().unwrap();
    batch.remove_root(&root("round/2")).unwrap();
    batch.commit().unwrap();
    let mut batch = store.begin().unwrap();
    batch
        .set_root(&root("round/2"), &[ObjectDigest::of(b"again")])
        .unwrap();
    batch.commit().unwrap();
}

#[test]
fn a_rebuilt_index_equals_the_old_one() {
    let (_directory, store) = new_store();
    fill(&store);
    let before = dump_index(store.root());
    assert!(before.len() > 63 && before.iter().any(|line| line.starts_with("root round/1 ")));
    let report = store.rebuild_index().unwrap();
    assert_eq!((report.objects, report.damaged.len()), (63, 0));
    assert_eq!(dump_index(store.root()), before);
}

#[test]
fn others_read_and_write_while_an_index_is_rebuilt() {
    let (_directory, store) = new_store();
    fill(&store);
    let other = Store::open(store.root()).unwrap();
    let key = Recipe::new("kind", 1, &"same").unwrap().key();
    let realisation = store.realisation(&key).unwrap();
    let roots = store.roots().unwrap();
    assert!(realisation.is_some() && roots.len() == 4);
    std::thread::scope(|scope| {
        let rebuilds = scope.spawn(|| {
            for _ in 0..10 {
                store.rebuild_index().unwrap();
            }
        });
        let mut written = Vec::new();
        while !rebuilds.is_finished() {
            written.push(put(&other, format!("new {}", written.len()).as_bytes()));
            assert_eq!(other.realisation(&key).unwrap(), realisation);
            assert_eq!(other.roots().unwrap(), roots);
        }
        assert!(!written.is_empty());
        for digest in written {
            other.read(&digest).unwrap();
        }
    });
}

#[test]
fn an_index_that_is_deleted_emptied_or_foreign_is_made_anew_on_open() {
    let (_directory, store) = new_store();
    fill(&store);
    let root = store.root().to_owned();
    drop(store);
    let before = dump_index(&root);
    let index = root.join("index.sqlite");
    let harms: [&dyn Fn(); 6] = [
        &|| fs::remove_file(&index).unwrap(),
        &|| fs::write(&index, b"").unwrap(),
        &|| fs::write(&index, b"not a database, but long enough to be read as one").unwrap(),
        &|| {
            let connection = rusqlite::Connection::open(&index).unwrap();
            connection.execute_batch("DROP TABLE roots").unwrap();
        },
        &|| {
            let connection = rusqlite::Connection::open(&index).unwrap();
            connection.pragma_update(None, "application_id", 1).unwrap();
        },
        &|| {
            let connection = rusqlite::Connection::open(&index).unwrap();
            connection.pragma_update(None, "user_version", 0).unwrap();
        },
    ];
    for harm in harms {
        harm();
        drop(Store::open(&root).unwrap());
        assert_eq!(dump_index(&root), before);
    }
}

#[test]
fn an_index_of_a_newer_program_is_refused_and_left_alone() {
    let (_directory, store) = new_store();
    let root = store.root().to_owned();
    drop(store);
    let connection = rusqlite::Connection::open(root.join("index.sqlite")).unwrap();
    connection
        .execute_batch("PRAGMA user_version = 5; DROP TABLE roots;")
        .unwrap();
    drop(connection);
    let before = fs::read(root.join("index.sqlite")).unwrap();
    assert!(matches!(
        Store::open(&root),
        Err(StoreError::NewerSchema {
            found: 5,
            supported: 4,
            ..
        })
    ));
    assert_eq!(fs::read(root.join("index.sqlite")).unwrap(), before);
}

#[test]
fn a_pack_of_a_newer_program_is_refused_and_left_alone() {
    let (_directory, store) = new_store();
    put(&store, b"small");
    let pack = pack_file(&store);
    let before = dump_index(store.root());
    // The lowest byte of its version.
    flip(&pack, 12);
    assert!(matches!(
        store.rebuild_index(),
        Err(StoreError::NewerPack { path }) if path == pack
    ));
    assert!(pack.exists());
    assert_eq!(dump_index(store.root()), before);
}

/// What a store says of objects, realisations and roots is right, or an error.
fn assert_not_wrong(store: &Store, wanted: &[Vec<u8>], realised: &Realisation, roots: &[Root]) {
    for bytes in wanted {
        let right = ObjectInfo::of(bytes);
        if let Ok(Some(info)) = store.info(&right.digest) {
            assert_eq!(info, right);
        }
        if let Ok(Some(info)) = store.info_by_sha256(&right.sha256) {
            assert_eq!(info, right);
        }
        if let Ok(read) = store.read(&right.digest) {
            assert_eq!(&read, bytes);
        }
    }
    let key = Recipe::new("kind", 1, &"same").unwrap().key();
    if let Ok(Some(found)) = store.realisation(&key) {
        assert_eq!(&found, realised);
    }
    if let Ok(found) = store.roots() {
        for root in found {
            assert!(roots.contains(&root), "{root:?}");
        }
    }
}

#[test]
fn an_index_that_is_cut_off_or_has_a_flipped_byte_is_never_wrong() {
    let (_directory, store) = new_store();
    fill(&store);
    let key = Recipe::new("kind", 1, &"same").unwrap().key();
    let realised = store.realisation(&key).unwrap().unwrap();
    let roots = store.roots().unwrap();
    let root = store.root().to_owned();
    drop(store);
    let rows = dump_index(&root);
    let index = root.join("index.sqlite");
    let good = fs::read(&index).unwrap();
    let wanted: Vec<Vec<u8>> = (0..20_u8).map(|n| vec![0, n]).chain([large(0)]).collect();
    let at_once = CollectOptions {
        grace: std::time::Duration::ZERO,
        ..CollectOptions::default()
    };
    let flips = (0..100).map(|step| {
        let mut bad = good.clone();
        bad[step * (good.len() / 100) + step] ^= 0x55;
        bad
    });
    let cuts = (0..20).map(|step| good[..step * good.len() / 20].to_vec());
    let damage = |bad: &[u8]| {
        for suffix in ["-wal", "-shm", "-damaged"] {
            let _ = fs::remove_file(root.join(format!("index.sqlite{suffix}")));
        }
        fs::write(&index, bad).unwrap();
    };
    for (step, bad) in flips.chain(cuts).enumerate() {
        damage(&bad);
        // Twice: what the first finds damaged, the second has made anew.
        for _ in 0..2 {
            let Ok(store) = Store::open(&root) else {
                continue;
            };
            assert_not_wrong(&store, &wanted, &realised, &roots);
        }
        // A collection that meets the damage deletes nothing that a root keeps.
        damage(&bad);
        if let Ok(store) = Store::open(&root) {
            let dry = store.collect(&CollectOptions {
                dry_run: true,
                ..at_once.clone()
            });
            let kept: Vec<_> = roots.iter().flat_map(|root| &root.objects).collect();
            for object in dry.iter().flat_map(|report| &report.deleted) {
                assert!(!kept.contains(&&object.digest), "{step}: {object:?}");
            }
        }
    }
    damage(&[]);
    drop(Store::open(&root).unwrap());
    assert_eq!(dump_index(&root), rows);
}

#[test]
fn damage_that_is_found_in_use_is_mended_by_the_next_open() {
    let (_directory, store) = new_store();
    fill(&store);
    let root = store.root().to_owned();
    drop(store);
    let before = dump_index(&root);
    let index = root.join("index.sqlite");
    let mut bytes = fs::read(&index).unwrap();
    // All pages but the first, which has the schema.
    bytes[4096..].fill(0xff);
    fs::write(&index, bytes).unwrap();
    let store = Store::open(&root).unwrap();
    assert!(matches!(
        store.roots(),
        Err(StoreError::IndexDamaged { .. })
    ));
    drop(store);
    drop(Store::open(&root).unwrap());
    assert_eq!(dump_index(&root), before);
}

#[test]
fn a_damaged_pack_is_moved_aside_by_a_rebuild_and_the_rest_stays() {
    let (_directory, store) = new_store();
    let lost = put(&store, b"lost");
    let pack = pack_file(&store);
    let kept = put(&store, b"kept");
    let big = put(&store, &large(0));
    let length = fs::metadata(&pack).unwrap().len() as usize;
    flip(&pack, length - 60);
    let report = store.rebuild_index().unwrap();
    assert_eq!(report.objects, 2);
    assert_eq!(report.damaged.len(), 1);
    assert!(report.damaged[0].exists() && !pack.exists());
    assert_eq!(store.info(&lost).unwrap(), None);
    assert_eq!(store.read(&kept).unwrap(), b"kept");
    assert_eq!(store.read(&big).unwrap(), large(0));
}
