//! One thing that a store does, as a process of its own, so that its CPU seconds and
//! system calls can be measured from outside: `benches/store` does.
//!
//! ```text
//! cost tree FOLDER COUNT SIZE     makes the files that the others read, a hundred in a folder
//! cost scan STORE FOLDER          prints how many files were read
//! cost put-files STORE FOLDER     one batch with every file of the folder
//! cost put STORE COUNT SIZE ROOT  one batch with so many objects; ROOT keeps them
//! cost remove-root STORE ROOT
//! cost collect STORE              with no grace; prints how many objects were deleted
//! cost mark STORE                 the same, as a dry run
//! cost verify STORE
//! cost look-up STORE COUNT TIMES  opens, and looks up some of the objects of `put`
//! cost digest MEBIBYTES           both digests in one pass, of bytes in memory
//! ```
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::panic)]

use std::fs;
use std::path::Path;
use std::time::Duration;

use forebay_store::{CollectOptions, Digesting, ObjectDigest, Store, VerifyOptions};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["tree", folder, count, size] => tree(Path::new(folder), number(count), number(size)),
        ["scan", store, folder] => {
            let tree = open(store).scan(Path::new(folder), &|_, _| false);
            println!("{}", tree.unwrap().read_again);
        }
        ["put-files", store, folder] => put_files(&open(store), Path::new(folder)),
        ["put", store, count, size, root] => {
            put(&open(store), number(count), number(size), root);
        }
        ["remove-root", store, root] => {
            let store = open(store);
            let mut batch = store.begin().unwrap();
            batch.remove_root(&root.parse().unwrap()).unwrap();
            batch.commit().unwrap();
        }
        ["collect", store] => println!("{}", collect(&open(store), false)),
        ["mark", store] => println!("{}", collect(&open(store), true)),
        ["verify", store] => {
            let report = open(store).verify(&VerifyOptions::default()).unwrap();
            println!("{}", report.objects);
        }
        ["look-up", store, count, times] => look_up(&open(store), number(count), number(times)),
        ["digest", mebibytes] => digest(number(mebibytes)),
        _ => panic!("see the head of store/examples/cost.rs"),
    }
}

fn number(text: &str) -> usize {
    text.parse().unwrap()
}

fn open(path: &str) -> Store {
    Store::open(Path::new(path)).unwrap()
}

/// The bytes of the object with that number.
fn body(number: usize, size: usize) -> Vec<u8> {
    let unit = format!("{number:016} ").into_bytes();
    unit.iter().copied().cycle().take(size).collect()
}

fn tree(folder: &Path, count: usize, size: usize) {
    for number in 0..count {
        let directory = folder.join((number / 100).to_string());
        if number % 100 == 0 {
            fs::create_dir_all(&directory).unwrap();
        }
        fs::write(directory.join(number.to_string()), body(number, size)).unwrap();
    }
}

fn put_files(store: &Store, folder: &Path) {
    let mut batch = store.begin().unwrap();
    for directory in fs::read_dir(folder).unwrap() {
        for file in fs::read_dir(directory.unwrap().path()).unwrap() {
            batch.put(&fs::read(file.unwrap().path()).unwrap()).unwrap();
        }
    }
    batch.commit().unwrap();
}

fn put(store: &Store, count: usize, size: usize, root: &str) {
    let mut batch = store.begin().unwrap();
    let digests: Vec<ObjectDigest> = (0..count)
        .map(|number| batch.put(&body(number, size)).unwrap().digest)
        .collect();
    batch.set_root(&root.parse().unwrap(), &digests).unwrap();
    batch.commit().unwrap();
}

fn collect(store: &Store, dry_run: bool) -> usize {
    let options = CollectOptions {
        dry_run,
        grace: Duration::ZERO,
        ..CollectOptions::default()
    };
    store.collect(&options).unwrap().deleted.len()
}

/// Objects of 16 bytes and a blank, as `put STORE COUNT 17` makes them.
fn look_up(store: &Store, count: usize, times: usize) {
    for time in 0..times {
        // Scattered over all of them.
        let number = time.wrapping_mul(2_654_435_761) % count;
        let digest = ObjectDigest::of(&body(number, 17));
        assert!(store.info(&digest).unwrap().is_some());
    }
}

fn digest(mebibytes: usize) {
    let bytes = body(7, 1 << 20);
    let mut digesting = Digesting::new();
    for _ in 0..mebibytes * 4 {
        // As a file is read: a buffer at a time.
        digesting.update(bytes.get(..1 << 18).unwrap_or_default());
    }
    println!("{}", digesting.finish().0);
}
