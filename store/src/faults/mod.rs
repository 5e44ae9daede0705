//! What the store promises while calls to the file system fail, processes die, or the
//! power goes: each is tried at every single call.
#![allow(clippy::unwrap_used, clippy::panic)]

mod calls;
mod errors;
mod file_system;
mod kill;
mod power;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;

use crate::{ObjectDigest, Realisation, Recipe, RecipeKey, Store, StoreError};
use file_system::FaultyFileSystem;

const EIO: i32 = 5;
const ENOSPC: i32 = 28;
const EINTR: i32 = 4;

fn bodies(tag: &str) -> Vec<Vec<u8>> {
    vec![
        format!("small {tag}").into_bytes(),
        Vec::new(),
        format!("other small {tag}").into_bytes(),
        format!("large {tag} ").repeat(9_000).into_bytes(),
        format!("larger {tag} ").repeat(30_000).into_bytes(),
    ]
}

fn key(tag: &str) -> RecipeKey {
    Recipe::new("test", 1, &tag).unwrap().key()
}

/// One batch with everything that a batch can have.
fn commit(store: &Store, tag: &str) -> Result<(), StoreError> {
    let mut batch = store.begin()?;
    let mut outputs = Realisation::default();
    for (number, body) in bodies(tag).iter().enumerate() {
        let info = if number == 4 {
            batch.put_reader(&mut body.as_slice())?
        } else {
            batch.put(body)?
        };
        outputs.outputs.insert(number.to_string(), info.digest);
    }
    batch.realise(&key(tag), &outputs)?;
    let objects: Vec<_> = outputs.outputs.into_values().collect();
    batch.set_root(&format!("root/{tag}").parse().unwrap(), &objects)?;
    batch.commit()
}

fn assert_has(store: &Store, tag: &str) {
    for body in bodies(tag) {
        assert_eq!(store.read(&ObjectDigest::of(&body)).unwrap(), body);
    }
    assert!(store.realisation(&key(tag)).unwrap().is_some());
    let root = format!("root/{tag}").parse().unwrap();
    assert!(
        store
            .roots()
            .unwrap()
            .iter()
            .any(|found| found.name == root)
    );
}

/// Every row has intact bytes, and nobody's half-written files are left.
fn assert_sound(store: &Store) {
    let staged = fs::read_dir(store.root().join("staging"))
        .unwrap()
        .flatten();
    let others = staged.filter(|entry| {
        let path = entry.path().with_extension("lock");
        File::open(path).is_ok_and(|lock| lock.try_lock().is_ok())
    });
    assert_eq!(others.count(), 0);
    for located in store.inner().index.all_objects().unwrap() {
        store.read(&located.info.digest).unwrap();
    }
}

/// A store in which the batch "first" is committed.
fn with_first() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    commit(&Store::open(directory.path()).unwrap(), "first").unwrap();
    directory
}

/// A copy, so that each of many runs begins alike.
fn copy(from: &Path, to: &Path) {
    file_system::copy_synced(from, to, &BTreeSet::new());
}

fn number_of_calls(first: &Path) -> usize {
    let directory = tempfile::tempdir().unwrap();
    copy(first, directory.path());
    let file_system = FaultyFileSystem::new(None);
    let store = Store::open_with(directory.path(), file_system.clone()).unwrap();
    commit(&store, "second").unwrap();
    let calls = file_system.calls();
    assert!(calls.len() > 15, "{calls:#?}");
    calls.len()
}

/// A store with one live batch, and two dead ones of which one shares nothing.
fn with_garbage() -> tempfile::TempDir {
    let directory = with_first();
    let store = Store::open(directory.path()).unwrap();
    commit(&store, "dead").unwrap();
    let mut batch = store.begin().unwrap();
    batch.remove_root(&"root/dead".parse().unwrap()).unwrap();
    // Something alive in a pack that is mostly dead.
    batch.put(&[7; 60_000]).unwrap();
    let alive = batch.put(b"alive among the dead").unwrap().digest;
    batch
        .set_root(&"root/alive".parse().unwrap(), &[alive])
        .unwrap();
    batch.commit().unwrap();
    directory
}

fn collect(store: &Store) -> Result<usize, StoreError> {
    let options = crate::CollectOptions {
        grace: std::time::Duration::ZERO,
        ..crate::CollectOptions::default()
    };
    Ok(store.collect(&options)?.deleted.len())
}

fn number_of_collecting_calls(garbage: &Path) -> usize {
    let directory = tempfile::tempdir().unwrap();
    copy(garbage, directory.path());
    let file_system = FaultyFileSystem::new(None);
    let store = Store::open_with(directory.path(), file_system.clone()).unwrap();
    assert_eq!(collect(&store).unwrap(), 5);
    let calls = file_system.calls();
    assert!(calls.len() > 8, "{calls:#?}");
    calls.len()
}

/// After whatever has happened to a collection, all that is needed is there, and the next
/// one leaves nothing else.
fn assert_collectable(root: &Path) {
    // With a handle of its own: what it looks at, it holds.
    assert_sound(&Store::open(root).unwrap());
    let store = &Store::open(root).unwrap();
    collect(store).unwrap();
    assert_has(store, "first");
    let alive = ObjectDigest::of(b"alive among the dead");
    assert_eq!(store.read(&alive).unwrap(), b"alive among the dead");
    assert_eq!(store.inner().index.all_objects().unwrap().len(), 6);
    assert!(store.rebuild_index().unwrap().damaged.is_empty());
    assert_eq!(store.inner().index.all_objects().unwrap().len(), 6);
    assert_has(store, "first");
}
