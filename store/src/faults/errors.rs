//! A call that fails: the disk is full, breaks, or a signal comes.

use super::file_system::{Fault, FaultyFileSystem};
use super::*;

#[test]
fn an_error_at_any_call_fails_the_batch_and_nothing_else() {
    let first = with_first();
    let calls = number_of_calls(first.path());
    for at in 0..calls {
        for code in [EIO, ENOSPC, EINTR] {
            let directory = tempfile::tempdir().unwrap();
            copy(first.path(), directory.path());
            let file_system = FaultyFileSystem::new(Some((at, Fault::Once(code))));
            let store = Store::open_with(directory.path(), file_system.clone()).unwrap();
            let result = commit(&store, "second");
            if code == EINTR {
                result.unwrap();
            } else {
                let error = result.unwrap_err();
                let StoreError::Io { source, .. } = &error else {
                    panic!("{at}: {error:?}");
                };
                assert_eq!(source.raw_os_error(), Some(code), "{at}: {error}");
                // The last two are the syncs of the index: others see the batch before them.
                let seen = store.realisation(&key("second")).unwrap().is_some();
                assert_eq!(seen, at >= calls - 2);
                assert_has(&store, "first");
                // The same handle goes on, once the disk has room again.
                commit(&store, "second").unwrap();
            }
            assert_has(&store, "second");
            drop(store);
            let store = Store::open(directory.path()).unwrap();
            assert_sound(&store);
            assert_has(&store, "first");
            assert_has(&store, "second");
        }
    }
}

#[test]
fn an_error_at_any_call_of_a_collection_loses_nothing() {
    let garbage = with_garbage();
    for at in 0..number_of_collecting_calls(garbage.path()) {
        for code in [EIO, ENOSPC, EINTR] {
            let directory = tempfile::tempdir().unwrap();
            copy(garbage.path(), directory.path());
            let file_system = FaultyFileSystem::new(Some((at, Fault::Once(code))));
            let store = Store::open_with(directory.path(), file_system.clone()).unwrap();
            let result = collect(&store);
            if code == EINTR {
                assert_eq!(result.unwrap(), 5);
            } else {
                let error = result.unwrap_err();
                let StoreError::Io { source, .. } = &error else {
                    panic!("{at}: {error:?}");
                };
                assert_eq!(source.raw_os_error(), Some(code), "{at}: {error}");
                // The same handle goes on, once the disk has room again.
                collect(&store).unwrap();
            }
            drop(store);
            assert_collectable(directory.path());
        }
    }
}
