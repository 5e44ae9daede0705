//! Verification, explanations, counts, and archives.

use std::fs;

use crate::common::{dump_index, files_under, large, new_store, put};
use forebay_store::{
    Artifact, ObjectDigest, Realisation, Recipe, RecipeKey, Store, StoreError, VerifyOptions,
    VerifyReport,
};

fn realise(store: &Store, name: &str) -> (RecipeKey, Vec<ObjectDigest>) {
    let key = Recipe::new("test", 1, &name).unwrap().key();
    let mut batch = store.begin().unwrap();
    let small = batch.put(name.as_bytes()).unwrap().digest;
    let large = batch.put(&large(name.len() as u8)).unwrap().digest;
    let outputs = [("small".to_owned(), small), ("large".to_owned(), large)].into();
    batch.realise(&key, &Realisation { outputs }).unwrap();
    batch.commit().unwrap();
    (key, vec![small, large])
}

fn flip(path: &std::path::Path, position: usize) {
    use std::os::unix::fs::PermissionsExt as _;
    let mut bytes = fs::read(path).unwrap();
    bytes[position] ^= 1;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(path, bytes).unwrap();
}

#[test]
fn verify_names_what_is_missing_corrupt_and_orphaned() {
    let (_directory, store) = new_store();
    for number in 0..5u8 {
        put(&store, &large(number));
        put(&store, &[number; 100]);
    }
    let clean = store.verify(&VerifyOptions::default()).unwrap();
    assert_eq!((clean.objects, clean.bytes), (10, 1_500_500));
    assert!(clean.is_intact() && clean.orphaned.is_empty());

    let file = |bytes: &[u8]| {
        let name = ObjectDigest::of(bytes).to_string();
        files_under(&store.root().join("objects"))
            .into_iter()
            .find(|path| path.ends_with(&name))
            .unwrap()
    };
    fs::remove_file(file(&large(0))).unwrap();
    flip(&file(&large(1)), 1000);
    let packs = files_under(&store.root().join("packs"));
    flip(&packs[0], 20);
    let orphan = file(&large(2)).with_file_name("0".repeat(64));
    fs::write(&orphan, "not here").unwrap();

    for threads in [1, 4] {
        let copy = tempfile::tempdir().unwrap();
        let status = std::process::Command::new("cp")
            .args(["-a", store.root().to_str().unwrap()])
            .arg(copy.path().join("store"))
            .status();
        assert!(status.unwrap().success());
        let store = Store::open(&copy.path().join("store")).unwrap();
        let options = VerifyOptions {
            threads: Some(threads),
            resume: false,
        };
        let report = store.verify(&options).unwrap();
        assert_eq!(report.missing, [ObjectDigest::of(&large(0))]);
        assert_eq!(report.corrupt.len(), 2);
        assert!(report.corrupt.contains(&ObjectDigest::of(&large(1))));
        assert_eq!(report.orphaned.len(), 1);
        assert_eq!(report.objects, 7);
        // All of it was moved aside or forgotten, and heals.
        for number in 0..5u8 {
            put(&store, &large(number));
            put(&store, &[number; 100]);
        }
        let again = store.verify(&options).unwrap();
        assert!(again.is_intact(), "{again:?}");
        assert_eq!(again.objects, 10);
    }
}

#[test]
fn verify_checks_the_sha256_too() {
    let (_directory, store) = new_store();
    let digests = [put(&store, b"small"), put(&store, &large(0))];
    let root = store.root().to_owned();
    drop(store);
    // Rows that are whole, with the checksums of what they say; but it is not true. Only a
    // program with a fault could have written them.
    let connection = rusqlite::Connection::open(root.join("index.sqlite")).unwrap();
    for digest in &digests {
        let (size, pack, offset): (i64, Option<i64>, Option<i64>) = connection
            .query_row(
                "SELECT size, pack, offset FROM objects WHERE digest = ?1",
                [digest.as_bytes()],
                |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
            )
            .unwrap();
        let mut row = digest.as_bytes().to_vec();
        row.extend([7; 32]);
        for number in [size, pack.unwrap_or(-1), offset.unwrap_or(-1)] {
            row.extend(number.to_le_bytes());
        }
        connection
            .execute(
                "UPDATE objects SET sha256 = ?2, checksum = ?3 WHERE digest = ?1",
                (digest.as_bytes(), [7; 32], crc32fast::hash(&row)),
            )
            .unwrap();
    }
    drop(connection);
    let store = Store::open(&root).unwrap();
    let report = store.verify(&VerifyOptions::default()).unwrap();
    assert_eq!(report.corrupt.len(), 2, "{report:?}");
    assert_eq!([put(&store, b"small"), put(&store, &large(0))], digests);
    assert!(store.verify(&VerifyOptions::default()).unwrap().is_intact());
}

#[test]
fn a_verification_that_was_interrupted_goes_on_where_it_was() {
    let (_directory, store) = new_store();
    let first = put(&store, b"in a pack");
    let mut digests: Vec<_> = (0..4).map(|seed| put(&store, &large(seed))).collect();
    digests.sort();
    let done = VerifyReport {
        objects: 2,
        corrupt: vec![first],
        ..VerifyReport::default()
    };
    // As the run leaves it: everything up to the second file has been read.
    let progress = serde_json::json!({ "last": { "file": digests[1] }, "report": done });
    let path = store.root().join("verify-progress");
    fs::write(&path, progress.to_string()).unwrap();
    let resume = VerifyOptions {
        resume: true,
        ..VerifyOptions::default()
    };
    let report = store.verify(&resume).unwrap();
    assert_eq!((report.objects, report.bytes), (4, 600_000));
    assert_eq!(report.corrupt, [first]);
    assert!(!path.exists());
    // A torn note is as none.
    fs::write(&path, "{\"last\"").unwrap();
    assert_eq!(store.verify(&resume).unwrap().objects, 5);
}

#[test]
fn why_names_roots_realisations_leases_and_condemnation() {
    let (_directory, store) = new_store();
    let (key, outputs) = realise(&store, "artifact");
    let why = store.why(&outputs[0]).unwrap().unwrap();
    assert!(why.leased && why.roots.is_empty() && why.is_needed());
    assert_eq!(why.realisations.len(), 1);
    assert_eq!(why.realisations[0].key, key);
    assert_eq!(why.realisations[0].output, "small");
    assert!(why.realisations[0].kept_by.is_empty());

    let root = store.root().to_owned();
    drop(store);
    let store = Store::open(&root).unwrap();
    store.collect(&Default::default()).unwrap();
    let why = store.why(&outputs[0]).unwrap().unwrap();
    assert!(!why.is_needed() && why.condemned_since.is_some());

    let mut batch = store.begin().unwrap();
    let name = "generation/shop/dev/1".parse().unwrap();
    batch.set_root(&name, &outputs).unwrap();
    batch.commit().unwrap();
    let why = store.why(&outputs[0]).unwrap().unwrap();
    assert_eq!(why.roots, std::slice::from_ref(&name));
    assert_eq!(why.realisations[0].kept_by, [name]);
    assert_eq!(why.condemned_since, None);
    assert!(store.why(&ObjectDigest::of(b"unknown")).unwrap().is_none());
}

#[test]
fn counts_and_lists_agree() {
    let (_directory, store) = new_store();
    realise(&store, "one");
    realise(&store, "another");
    let stats = store.stats().unwrap();
    assert_eq!((stats.objects, stats.files, stats.packs), (4, 2, 2));
    assert_eq!((stats.realisations, stats.leased), (2, 4));
    let mut listed = Vec::new();
    store.list(&mut |object| listed.push(object)).unwrap();
    assert_eq!(listed.len(), 4);
    assert_eq!(
        listed.iter().map(|object| object.info.size).sum::<u64>(),
        stats.bytes
    );
    assert!(listed.is_sorted_by_key(|object| object.info.digest));
    assert_eq!(listed.iter().filter(|object| !object.packed).count(), 2);
}

#[test]
fn an_archive_brings_an_artifact_with_all_it_needs_to_another_store() {
    let (directory, store) = new_store();
    let (key, outputs) = realise(&store, "artifact");
    let (other_key, _) = realise(&store, "something else");
    let path = directory.path().join("artifact.forebay");
    let by_key = store.export(&Artifact::Realisation(key), &path).unwrap();
    assert_eq!(by_key.realisations, [key]);
    assert_eq!(by_key.objects.len(), 2);
    let bytes = fs::read(&path).unwrap();
    let by_object = store.export(&Artifact::Object(outputs[1]), &path).unwrap();
    assert_eq!(by_object, by_key);
    assert_eq!(fs::read(&path).unwrap(), bytes);

    let (_other, target) = new_store();
    let root = "import/artifact".parse().unwrap();
    assert_eq!(target.import(&path, Some(&root)).unwrap(), by_key);
    assert!(target.realisation(&key).unwrap().is_some());
    assert!(target.realisation(&other_key).unwrap().is_none());
    assert_eq!(target.read(&outputs[0]).unwrap(), b"artifact");
    assert_eq!(target.roots().unwrap()[0].objects.len(), 2);
    // A second time changes nothing.
    let before = dump_index(target.root());
    target.import(&path, Some(&root)).unwrap();
    assert_eq!(dump_index(target.root()), before);

    for position in [3, 40, 100_000, bytes.len() - 200, bytes.len() - 1] {
        flip(&path, position);
        let (_other, target) = new_store();
        let error = target.import(&path, None).unwrap_err();
        assert!(
            matches!(
                error,
                StoreError::Pack { .. } | StoreError::NewerPack { .. }
            ),
            "{error:?}"
        );
        assert_eq!(dump_index(target.root()).len(), 1);
        flip(&path, position);
    }
    let unknown = Artifact::Root("no/such".parse().unwrap());
    assert!(matches!(
        store.export(&unknown, &path),
        Err(StoreError::NoArtifact { .. })
    ));
}
