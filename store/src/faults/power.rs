//! A power cut at a call: what was not synced may be lost.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;

use super::file_system::{Fault, FaultyFileSystem, Lost};
use super::*;
use crate::file_system::FileSystem as _;

#[test]
fn a_power_cut_at_any_call_loses_nothing_acknowledged_and_leaves_no_row_without_bytes() {
    let first = with_first();
    // The last number is none: everything was done, and acknowledged.
    for at in 0..=number_of_calls(first.path()) {
        let directory = tempfile::tempdir().unwrap();
        copy(first.path(), directory.path());
        let file_system = FaultyFileSystem::new(Some((at, Fault::FromThenOn(EIO))));
        let store = Store::open_with(directory.path(), file_system.clone()).unwrap();
        let acknowledged = commit(&store, "second").is_ok();
        for lost in Lost::each() {
            let disk = file_system.cut_power(directory.path(), lost);
            assert_recovers(disk.path(), acknowledged);
        }
    }
}

fn assert_recovers(root: &Path, has_second: bool) {
    let store = Store::open(root).unwrap();
    assert_sound(&store);
    assert_has(&store, "first");
    if has_second {
        assert_has(&store, "second");
    }
    commit(&store, "second").unwrap();
    assert_has(&store, "second");
    // Files that got their names, but no rows, are found or refused by their bytes.
    store.rebuild_index().unwrap();
    drop(store);
    let store = Store::open(root).unwrap();
    assert_sound(&store);
    assert_has(&store, "first");
    assert_has(&store, "second");
}

#[test]
fn a_collection_that_fails_or_loses_its_power_at_any_call_loses_nothing() {
    let garbage = with_garbage();
    let calls = number_of_collecting_calls(garbage.path());
    for at in 0..=calls {
        let directory = tempfile::tempdir().unwrap();
        copy(garbage.path(), directory.path());
        let file_system = FaultyFileSystem::new(Some((at, Fault::FromThenOn(EIO))));
        let store = Store::open_with(directory.path(), file_system.clone()).unwrap();
        let done = collect(&store).is_ok();
        assert_eq!(done, at == calls);
        for lost in Lost::each() {
            let disk = file_system.cut_power(directory.path(), lost);
            assert_collectable(disk.path());
        }
        drop(store);
        assert_collectable(directory.path());
    }
}

/// SQLite commits its transaction whole or not at all; so a cut before that, with
/// every file in place, is the old index beside the new files.
#[test]
fn files_whose_rows_were_never_committed_do_no_harm() {
    let first = with_first();
    let root = first.path();
    let before = tempfile::tempdir().unwrap();
    copy(root, before.path());
    commit(&Store::open(root).unwrap(), "second").unwrap();
    for name in ["index.sqlite", "index.sqlite-wal", "index.sqlite-shm"] {
        let _ = fs::remove_file(root.join(name));
        let _ = fs::copy(before.path().join(name), root.join(name));
    }
    let store = Store::open(root).unwrap();
    assert_sound(&store);
    assert!(store.realisation(&key("second")).unwrap().is_none());
    commit(&store, "second").unwrap();
    assert_has(&store, "first");
    assert_has(&store, "second");
}

/// The log of the index is what a power cut leaves of it: a part, or all but some of its pages.
#[test]
fn an_index_whose_log_was_cut_anywhere_is_the_old_or_the_new() {
    // A log that others have begun, and a new one.
    for before in [Some("before"), None] {
        let first = with_first();
        let log = first.path().join("index.sqlite-wal");
        let file_system = FaultyFileSystem::new(None);
        let store = Store::open_with(first.path(), file_system.clone()).unwrap();
        if let Some(before) = before {
            commit(&store, before).unwrap();
        }
        let start = fs::metadata(&log).unwrap().len();
        commit(&store, "second").unwrap();
        let end = fs::metadata(&log).unwrap().len();
        assert!(end > start);
        // What was acknowledged had been synced.
        assert_eq!(file_system.synced_log(), end);

        let step = (end - start).div_ceil(16);
        for number in 0..16 {
            let at = (start + number * step).min(end - 1);
            for is_page in [false, true] {
                let has_second = recover_cut(first.path(), at, is_page.then_some(end), before);
                assert!(!has_second, "{at}");
            }
        }
        assert!(recover_cut(first.path(), end, None, before));
    }
}

/// A log of the index without what follows `at`; or without the page there, up to its `end`.
/// Whether it still has the batch "second".
fn recover_cut(root: &Path, at: u64, end: Option<u64>, before: Option<&str>) -> bool {
    let directory = tempfile::tempdir().unwrap();
    copy(root, directory.path());
    fs::remove_file(directory.path().join("index.sqlite-shm")).unwrap();
    let log = OpenOptions::new()
        .write(true)
        .open(directory.path().join("index.sqlite-wal"))
        .unwrap();
    match end {
        Some(end) => {
            log.write_all_at(&[0; 4096], at).unwrap();
            log.set_len(end).unwrap();
        }
        None => log.set_len(at).unwrap(),
    }
    let store = Store::open(directory.path()).unwrap();
    assert_sound(&store);
    assert_has(&store, "first");
    if let Some(before) = before {
        assert_has(&store, before);
    }
    let has_second = store.realisation(&key("second")).unwrap().is_some();
    if has_second {
        assert_has(&store, "second");
    }
    commit(&store, "second").unwrap();
    assert_has(&store, "second");
    has_second
}

#[test]
fn what_a_power_cut_undoes_is_what_was_not_synced() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let file_system = FaultyFileSystem::new(None);
    let after = |names| {
        let disk = file_system.cut_power(root, Lost { names, log: false });
        fs::read(disk.path().join("a")).ok()
    };
    let mut staged = file_system.create_staged(root).unwrap();
    while file_system.write(&mut staged, b"x").unwrap() == 0 {}
    let staged = staged.into_temp_path();
    file_system.rename_new(staged, &root.join("a")).unwrap();
    assert_eq!((after(false), after(true)), (Some(Vec::new()), None));
    file_system.sync_directory(root).unwrap();
    assert_eq!(after(true), Some(Vec::new()));

    let mut staged = file_system.create_staged(root).unwrap();
    while file_system.write(&mut staged, b"x").unwrap() == 0 {}
    file_system.seal(&staged).unwrap();
    file_system.remove_file(&root.join("a")).unwrap();
    let staged = staged.into_temp_path();
    file_system.rename_new(staged, &root.join("a")).unwrap();
    assert_eq!(after(false), Some(b"x".to_vec()));
    file_system.sync_directory(root).unwrap();
    assert_eq!(after(true), Some(b"x".to_vec()));
    file_system.remove_file(&root.join("a")).unwrap();
    assert_eq!((after(false), after(true)), (None, Some(b"x".to_vec())));
    file_system.sync_directory(root).unwrap();
    assert_eq!(after(true), None);
}
