//! Several processes at once, and processes that are killed.
//!
//! A test starts its own program again, as a child that runs [`child`] alone.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::common::{dump_index, files_under, new_store};
use forebay_store::{CollectOptions, ObjectDigest, Realisation, Recipe, Store};

const ROLE: &str = "FOREBAY_TEST_ROLE";
const ROOT: &str = "FOREBAY_TEST_ROOT";
const SEED: &str = "FOREBAY_TEST_SEED";

pub(crate) fn start(role: &str, root: &Path, seed: u32) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["processes::child", "--exact", "--nocapture", "--quiet"])
        .env(ROLE, role)
        .env(ROOT, root)
        .env(SEED, seed.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Does nothing unless another test has started it as a child.
#[test]
fn child() {
    let Ok(role) = env::var(ROLE) else {
        return;
    };
    let root = PathBuf::from(env::var_os(ROOT).unwrap());
    let seed = env::var(SEED).unwrap().parse().unwrap();
    match role.as_str() {
        "write some" => (0..20).for_each(|round| write(&root, seed, round)),
        "write until killed" => (0..u32::MAX).for_each(|round| write(&root, seed, round)),
        "put one by one" => {
            let store = Store::open(&root).unwrap();
            for round in 0..PUTS {
                // Some are shared, so that processes meet in the same object.
                let body = match round % 4 {
                    0 => format!("shared {round}"),
                    _ => format!("{seed} {round}"),
                };
                let mut batch = store.begin().unwrap();
                let digest = batch.put(body.as_bytes()).unwrap().digest;
                if round % 10 == 0 {
                    let name = format!("kept/{seed}/{round}").parse().unwrap();
                    batch.set_root(&name, &[digest]).unwrap();
                }
                batch.commit().unwrap();
                // What a live process has put is there, whoever collects.
                if round % 50 == 0 {
                    assert_eq!(store.read(&digest).unwrap(), body.as_bytes());
                }
            }
            for round in 0..PUTS {
                let body = match round % 4 {
                    0 => format!("shared {round}"),
                    _ => format!("{seed} {round}"),
                };
                let digest = ObjectDigest::of(body.as_bytes());
                assert_eq!(store.read(&digest).unwrap(), body.as_bytes());
            }
        }
        "obey" => crate::machine::obey(&root),
        "collect" => {
            while !root.with_file_name("stop").exists() {
                let store = Store::open(&root).unwrap();
                store.collect(&at_once()).unwrap();
            }
        }
        "scan" => {
            for _ in 0..20 {
                let tree = Store::open(&root)
                    .unwrap()
                    .scan(&root.with_file_name("project"), &|_, _| false)
                    .unwrap();
                say(&format!("tree {}", tree.digest()));
            }
        }
        other => panic!("unknown role {other}"),
    }
}

/// How many batches each of the sixteen processes commits.
const PUTS: u32 = 1000;

fn at_once() -> CollectOptions {
    CollectOptions {
        grace: Duration::ZERO,
        ..CollectOptions::default()
    }
}

#[test]
fn sixteen_processes_put_while_one_collects() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("store");
    drop(Store::open(&root).unwrap());
    let collector = start("collect", &root, 99);
    let writers: Vec<_> = (0..16)
        .map(|seed| start("put one by one", &root, seed))
        .collect();
    for writer in writers {
        let output = writer.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}");
    }
    fs::write(directory.path().join("stop"), "").unwrap();
    let output = collector.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}");

    let store = Store::open(&root).unwrap();
    store.collect(&at_once()).unwrap();
    let roots = store.roots().unwrap();
    assert_eq!(roots.len(), 16 * PUTS as usize / 10);
    for object in roots.iter().flat_map(|root| &root.objects) {
        store.read(object).unwrap();
    }
    let before = without_places(dump_index(&root));
    assert!(store.rebuild_index().unwrap().damaged.is_empty());
    assert_eq!(without_places(dump_index(&root)), before);
}

/// The bytes of one batch: some shared by all processes, some of this one alone, one of them large.
fn bodies(seed: u32, round: u32) -> Vec<Vec<u8>> {
    vec![
        format!("shared {round}").into_bytes(),
        format!("own {seed} {round}").into_bytes(),
        format!("{seed} {round} ").repeat(8000).into_bytes(),
        format!("shared {} ", round % 4).repeat(8000).into_bytes(),
    ]
}

/// Commits one batch through a handle of its own, then acknowledges it on the standard output.
fn write(root: &Path, seed: u32, round: u32) {
    let store = Store::open(root).unwrap();
    let mut batch = store.begin().unwrap();
    let digests: Vec<_> = bodies(seed, round)
        .iter()
        .map(|body| batch.put(body).unwrap().digest)
        .collect();
    let key = Recipe::new("shared", 1, &round).unwrap().key();
    let outputs = [("out".to_owned(), digests[1])].into();
    batch.realise(&key, &Realisation { outputs }).unwrap();
    batch
        .set_root(&format!("round/{seed}/{round}").parse().unwrap(), &digests)
        .unwrap();
    if round > 0 {
        let previous = format!("round/{seed}/{}", round - 1).parse().unwrap();
        batch.remove_root(&previous).unwrap();
    }
    batch.commit().unwrap();
    say(&format!("committed {round}"));
}

/// Tells the parent, in a line of its own among those of the test harness.
pub(crate) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n{line}").unwrap();
    out.flush().unwrap();
}

/// Every row's bytes are right: `read` verifies them.
fn assert_all_rows_intact(store: &Store) -> usize {
    let rows = dump_index(store.root());
    let objects: Vec<ObjectDigest> = rows
        .iter()
        .filter_map(|row| row.strip_prefix("object "))
        .map(|row| row[..64].to_lowercase().parse().unwrap())
        .collect();
    for digest in &objects {
        store.read(digest).unwrap();
    }
    objects.len()
}

/// What does not depend on which of two processes was first with an object.
fn without_places(rows: Vec<String>) -> Vec<String> {
    rows.into_iter()
        .filter(|row| !row.starts_with("pack "))
        .map(|row| match row.strip_prefix("object ") {
            Some(object) => object.split(' ').take(3).collect::<Vec<_>>().join(" "),
            None => row,
        })
        .collect()
}

#[test]
fn processes_create_write_and_scan_the_same_store_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("store");
    fs::create_dir(directory.path().join("project")).unwrap();
    for n in 0..50 {
        fs::write(directory.path().join(format!("project/{n}")), [n]).unwrap();
    }
    let children: Vec<_> = (0..8)
        .map(|seed| start(if seed < 6 { "write some" } else { "scan" }, &root, seed))
        .collect();
    let mut trees = BTreeSet::new();
    for child in children {
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{text}");
        trees.extend(
            text.lines()
                .filter_map(|line| line.strip_prefix("tree "))
                .map(str::to_owned),
        );
    }
    assert_eq!(trees.len(), 1);

    let store = Store::open(&root).unwrap();
    for seed in 0..6 {
        for round in 0..20 {
            for body in bodies(seed, round) {
                assert_eq!(store.read(&ObjectDigest::of(&body)).unwrap(), body);
            }
        }
    }
    // 20 small and 4 large shared ones, 20 of each kind for each process.
    assert_eq!(assert_all_rows_intact(&store), 24 + 6 * 40);
    assert_eq!(store.roots().unwrap().len(), 6);
    let before = without_places(dump_index(&root));
    let report = store.rebuild_index().unwrap();
    assert!(report.damaged.is_empty());
    assert_eq!(without_places(dump_index(&root)), before);
    drop(store);
    assert!(files_under(&root.join("staging")).is_empty());
}

#[test]
fn threads_share_one_handle_and_open_their_own() {
    let (_directory, store) = new_store();
    thread::scope(|scope| {
        for seed in 0..8_u32 {
            let store = &store;
            scope.spawn(move || {
                for round in 0..10_u32 {
                    let own;
                    let store = if seed % 2 == 0 {
                        store
                    } else {
                        own = Store::open(store.root()).unwrap();
                        &own
                    };
                    let mut batch = store.begin().unwrap();
                    let body = format!("{} {round}", seed / 2);
                    let info = batch.put(body.as_bytes()).unwrap();
                    batch.commit().unwrap();
                    assert_eq!(store.read(&info.digest).unwrap(), body.as_bytes());
                }
            });
        }
    });
    assert_eq!(assert_all_rows_intact(&store), 40);
}

#[test]
fn killed_writers_lose_nothing_that_they_acknowledged() {
    let (_directory, store) = new_store();
    let root = store.root().to_owned();
    drop(store);
    for seed in 0..12_u32 {
        let mut child = start("write until killed", &root, seed);
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut acknowledged = Vec::new();
        for line in lines {
            if let Some(round) = line.unwrap().strip_prefix("committed ") {
                acknowledged.push(round.parse::<u32>().unwrap());
            }
            // Somewhere in the next commit, at a different place each time.
            if acknowledged.len() > seed as usize % 5 {
                let spin = seed * 40_000;
                std::hint::black_box((0..spin).fold(0_u32, |sum, n| sum ^ n.wrapping_mul(sum)));
                child.kill().unwrap();
                break;
            }
        }
        child.wait().unwrap();

        let store = Store::open(&root).unwrap();
        assert!(files_under(&root.join("staging")).is_empty());
        for round in acknowledged {
            for body in bodies(seed, round) {
                assert_eq!(store.read(&ObjectDigest::of(&body)).unwrap(), body);
            }
            let key = Recipe::new("shared", 1, &round).unwrap().key();
            assert!(store.realisation(&key).unwrap().is_some());
        }
        assert_all_rows_intact(&store);
    }
    // A batch that was killed between its files and its rows may come back, whole.
    let store = Store::open(&root).unwrap();
    let before: BTreeSet<_> = objects_of(&root);
    assert!(store.rebuild_index().unwrap().damaged.is_empty());
    assert!(objects_of(&root).is_superset(&before));
    assert_all_rows_intact(&store);
}

fn objects_of(root: &Path) -> BTreeSet<String> {
    without_places(dump_index(root))
        .into_iter()
        .filter(|row| !row.starts_with(|c: char| c.is_lowercase()))
        .collect()
}
