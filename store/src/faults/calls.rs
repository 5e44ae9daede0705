//! How many calls the store makes.

use super::*;

/// What a batch asks of the disk does not grow with the number of its small objects.
#[test]
fn a_batch_costs_a_fixed_number_of_syncs() {
    let directory = tempfile::tempdir().unwrap();
    let count = |number: u32, large: u32| {
        let file_system = FaultyFileSystem::new(None);
        let store = Store::open_with(directory.path(), file_system.clone()).unwrap();
        let mut batch = store.begin().unwrap();
        for n in 0..number {
            batch.put(format!("{number} {n}").as_bytes()).unwrap();
        }
        for n in 0..large {
            batch
                .put(&vec![n as u8; 100_000 + number as usize])
                .unwrap();
        }
        batch.commit().unwrap();
        let calls = file_system.calls();
        let of = |what: &str| calls.iter().filter(|call| call.starts_with(what)).count();
        (of("create in"), of("seal"), of("rename to"), of("sync"))
    };
    // A pack: sealed, renamed; its folder, the index's log and that one's folder are synced.
    assert_eq!(count(1, 0), (1, 1, 1, 3));
    assert_eq!(count(2_000, 0), (1, 1, 1, 3));
    // A large object is one more file, its folder one more sync, and theirs one.
    assert_eq!(count(3, 1), (2, 2, 2, 5));
    // What is there already costs the syncs that make sure of it.
    assert_eq!(count(1, 0), (0, 0, 0, 2));
    assert_eq!(count(0, 0), (0, 0, 0, 0));
}

/// A collection that finds nothing to do changes nothing, and syncs nothing.
#[test]
fn a_collection_without_garbage_asks_nothing_of_the_disk() {
    let first = with_first();
    let file_system = FaultyFileSystem::new(None);
    let store = Store::open_with(first.path(), file_system.clone()).unwrap();
    assert_eq!(collect(&store).unwrap(), 0);
    assert_eq!(file_system.calls(), Vec::<String>::new());
}
