//! What the store costs: `cargo bench -p forebay-store`.
//!
//! Sizes are those of the goals; `FOREBAY_BENCH_SCALE=100` divides them.
//! `benches/store-figures` measures whole processes, beside other tools.

#![allow(clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use divan::Bencher;
use divan::counter::BytesCount;
use forebay_store::{CollectOptions, Digesting, ObjectDigest, Store, VerifyOptions};
use tempfile::TempDir;

fn main() {
    divan::main();
}

fn scaled(number: usize) -> usize {
    let scale = std::env::var("FOREBAY_BENCH_SCALE")
        .ok()
        .and_then(|scale| scale.parse().ok())
        .unwrap_or(1);
    number / scale
}

fn must<T, E: std::fmt::Debug>(result: Result<T, E>) -> T {
    match result {
        Ok(value) => value,
        // A benchmark of something that fails says nothing.
        Err(error) => panic!("{error:?}"),
    }
}

/// 100,000 files of 3,400 bytes, a hundred in a folder.
static TREE: LazyLock<TempDir> = LazyLock::new(|| {
    let directory = must(TempDir::new());
    for number in 0..scaled(100_000) {
        let folder = directory.path().join((number / 100).to_string());
        if number % 100 == 0 {
            must(fs::create_dir(&folder));
        }
        let body = format!("{number:034}").repeat(100);
        must(fs::write(folder.join(number.to_string()), body));
    }
    directory
});

/// A million small objects, all of them needed.
static MILLION: LazyLock<TempDir> = LazyLock::new(|| filled(scaled(1_000_000), 16));

/// 100,000 objects of 3,400 bytes.
static VERIFIED: LazyLock<TempDir> = LazyLock::new(|| filled(scaled(100_000), 3_400));

fn filled(count: usize, size: usize) -> TempDir {
    let directory = must(TempDir::new());
    let store = must(Store::open(directory.path()));
    let mut batch = must(store.begin());
    let mut digests = Vec::with_capacity(count);
    for number in 0..count {
        let body = format!("{number:0size$}");
        digests.push(must(batch.put(body.as_bytes())).digest);
    }
    must(batch.set_root(&must("root/all".parse()), &digests));
    must(batch.commit());
    directory
}

fn scan(store: &Path, tree: &Path) -> usize {
    let store = must(Store::open(store));
    must(store.scan(tree, &|_, _| false)).read_again
}

/// BLAKE3 and SHA-256 in one pass, in the parts that files are read in.
#[divan::bench(sample_count = 20, sample_size = 1)]
fn hash_64_mib(bencher: Bencher<'_, '_>) {
    let bytes = vec![0x5a_u8; 64 << 20];
    bencher.counter(BytesCount::of_slice(&bytes)).bench(|| {
        let mut digesting = Digesting::new();
        for part in bytes.chunks(256 << 10) {
            digesting.update(part);
        }
        digesting.finish()
    });
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn scan_100_000_files_without_a_change(bencher: Bencher<'_, '_>) {
    let store = must(TempDir::new());
    scan(store.path(), TREE.path());
    bencher.bench(|| assert_eq!(scan(store.path(), TREE.path()), 0));
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn scan_100_000_files_for_the_first_time(bencher: Bencher<'_, '_>) {
    LazyLock::force(&TREE);
    bencher
        .with_inputs(|| must(TempDir::new()))
        .bench_refs(|store| scan(store.path(), TREE.path()));
}

#[divan::bench(sample_count = 3, sample_size = 1)]
fn put_100_000_small_objects(bencher: Bencher<'_, '_>) {
    let bodies: Vec<String> = (0..scaled(100_000)).map(|n| format!("{n:0300}")).collect();
    bencher
        .with_inputs(|| must(TempDir::new()))
        .bench_refs(|directory| {
            let store = must(Store::open(directory.path()));
            let mut batch = must(store.begin());
            for body in &bodies {
                must(batch.put(body.as_bytes()));
            }
            must(batch.commit());
        });
}

#[divan::bench(sample_count = 3, sample_size = 1)]
fn verify_340_mb(bencher: Bencher<'_, '_>) {
    let store = must(Store::open(VERIFIED.path()));
    bencher.bench(|| must(store.verify(&VerifyOptions::default())).objects);
}

#[divan::bench(sample_count = 3, sample_size = 1)]
fn collect_100_000_objects(bencher: Bencher<'_, '_>) {
    bencher
        .with_inputs(|| {
            let directory = filled(scaled(100_000), 300);
            let store = must(Store::open(directory.path()));
            let mut batch = must(store.begin());
            must(batch.remove_root(&must("root/all".parse())));
            must(batch.commit());
            directory
        })
        .bench_refs(|directory| {
            let store = must(Store::open(directory.path()));
            let options = CollectOptions {
                grace: std::time::Duration::ZERO,
                ..CollectOptions::default()
            };
            assert_eq!(must(store.collect(&options)).deleted.len(), scaled(100_000));
        });
}

#[divan::bench(sample_count = 3, sample_size = 1)]
fn mark_and_plan_a_million_objects(bencher: Bencher<'_, '_>) {
    let store = must(Store::open(MILLION.path()));
    let options = CollectOptions {
        dry_run: true,
        ..CollectOptions::default()
    };
    bencher.bench(|| must(store.collect(&options)).kept);
}

fn open_and_look_up(directory: &Path, digest: &ObjectDigest) {
    let store = must(Store::open(directory));
    assert!(must(store.info(digest)).is_some());
}

#[divan::bench(sample_count = 20)]
fn open_a_million_objects_and_look_one_up(bencher: Bencher<'_, '_>) {
    let directory: PathBuf = MILLION.path().to_owned();
    let digest = ObjectDigest::of(format!("{:016}", 7).as_bytes());
    bencher.bench(|| open_and_look_up(&directory, &digest));
}

#[divan::bench(sample_count = 20)]
fn open_a_hundred_objects_and_look_one_up(bencher: Bencher<'_, '_>) {
    let directory = filled(100, 16);
    let digest = ObjectDigest::of(format!("{:016}", 7).as_bytes());
    bencher.bench(|| open_and_look_up(directory.path(), &digest));
}
