//! A file system that fails, dies or loses its power at a numbered call; and
//! what the store promises whenever it does.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use tempfile::{NamedTempFile, PathPersistError, TempPath};

use crate::file_system::{FileSystem, RealFileSystem};
use crate::{ObjectDigest, Realisation, Recipe, RecipeKey, Store, StoreError};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;
const EINTR: i32 = 4;

/// What happens at the chosen call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Fault {
    /// That call fails, later ones do not.
    Once(i32),
    /// That call and every later one fail: the process is as good as dead.
    FromThenOn(i32),
    /// The process ends, without any clean-up.
    Abort,
}

/// Does what it is asked on the real file system, and remembers what a power cut would undo.
#[derive(Debug)]
pub(crate) struct FaultyFileSystem {
    fault: Option<(usize, Fault)>,
    graveyard: tempfile::TempDir,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    calls: Vec<String>,
    /// Inodes of files whose bytes are not durable.
    unsynced: BTreeSet<u64>,
    /// How long the index's log was when it was last synced.
    synced_log: u64,
    /// Changes of names that are not durable, by directory.
    names: HashMap<PathBuf, Vec<NameChange>>,
}

#[derive(Debug)]
enum NameChange {
    Added(PathBuf),
    Directory(PathBuf),
    Removed { path: PathBuf, kept: PathBuf },
}

impl FaultyFileSystem {
    /// One with a fault at the call with that number, counted from 0.
    pub(crate) fn new(fault: Option<(usize, Fault)>) -> Arc<Self> {
        // Beside the stores of the tests, because what is removed is linked into it.
        Arc::new(Self {
            fault,
            graveyard: tempfile::tempdir().unwrap(),
            state: Mutex::default(),
        })
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        self.state.lock().unwrap().calls.clone()
    }

    fn call(&self, name: &str, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        let number = state.calls.len();
        state.calls.push(format!("{name} {}", path.display()));
        match self.fault {
            Some((at, Fault::Once(code))) if number == at => {
                Err(io::Error::from_raw_os_error(code))
            }
            Some((at, Fault::FromThenOn(code))) if number >= at => {
                Err(io::Error::from_raw_os_error(code))
            }
            Some((at, Fault::Abort)) if number == at => std::process::abort(),
            _ => Ok(()),
        }
    }

    fn change(&self, change: NameChange) {
        let (NameChange::Added(path)
        | NameChange::Directory(path)
        | NameChange::Removed { path, .. }) = &change;
        let parent = path.parent().unwrap().to_owned();
        let mut state = self.state.lock().unwrap();
        state.names.entry(parent).or_default().push(change);
    }

    /// Undoes what was not synced under `root`: bytes always, names if `with_names`.
    /// A disk may have written either of its own accord, in any order.
    pub(crate) fn lose_power(&self, root: &Path, with_names: bool) {
        let state = std::mem::take(&mut *self.state.lock().unwrap());
        lose_bytes(root, &state.unsynced);
        if !with_names {
            return;
        }
        for change in state.names.into_values().flatten().rev_each() {
            match change {
                NameChange::Added(path) => {
                    let _ = fs::remove_file(path);
                }
                NameChange::Directory(path) => {
                    let _ = fs::remove_dir_all(path);
                }
                NameChange::Removed { path, kept } => {
                    let _ = fs::rename(kept, path);
                }
            }
        }
    }
}

/// Latest first.
trait RevEach: Iterator + Sized {
    fn rev_each(self) -> std::iter::Rev<std::vec::IntoIter<Self::Item>> {
        self.collect::<Vec<_>>().into_iter().rev()
    }
}

impl<I: Iterator> RevEach for I {}

fn lose_bytes(directory: &Path, unsynced: &BTreeSet<u64>) {
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            lose_bytes(&path, unsynced);
        } else if unsynced.contains(&entry.metadata().unwrap().ino()) {
            fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
            OpenOptions::new()
                .write(true)
                .truncate(true)
                .open(&path)
                .unwrap();
        }
    }
}

impl FileSystem for FaultyFileSystem {
    fn create_staged(&self, directory: &Path) -> io::Result<NamedTempFile> {
        self.call("create in", directory)?;
        RealFileSystem.create_staged(directory)
    }

    fn write(&self, staged: &mut NamedTempFile, bytes: &[u8]) -> io::Result<usize> {
        let outcome = self.call("write", staged.path());
        // A full disk takes a part; and every write may be a short one.
        let part = match outcome {
            Err(_) => 1,
            Ok(()) => bytes.len().div_ceil(2),
        };
        let inode = staged.as_file().metadata()?.ino();
        self.state.lock().unwrap().unsynced.insert(inode);
        if let Err(error) = &outcome
            && error.raw_os_error() == Some(EINTR)
        {
            // The system says so only if nothing was written.
            return Err(io::Error::from_raw_os_error(EINTR));
        }
        let written = RealFileSystem.write(staged, bytes.get(..part).unwrap_or(bytes))?;
        outcome.map(|()| written)
    }

    fn seal(&self, staged: &NamedTempFile) -> io::Result<()> {
        self.call("seal", staged.path())?;
        RealFileSystem.seal(staged)?;
        let inode = staged.as_file().metadata()?.ino();
        self.state.lock().unwrap().unsynced.remove(&inode);
        Ok(())
    }

    fn rename_new(&self, staged: TempPath, target: &Path) -> Result<(), PathPersistError> {
        if let Err(error) = self.call("rename to", target) {
            return Err(PathPersistError {
                error,
                path: staged,
            });
        }
        RealFileSystem.rename_new(staged, target)?;
        self.change(NameChange::Added(target.to_owned()));
        Ok(())
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        self.call("sync", directory)?;
        RealFileSystem.sync_directory(directory)?;
        self.state.lock().unwrap().names.remove(directory);
        Ok(())
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        self.call("sync", path)?;
        RealFileSystem.sync_file(path)?;
        let length = fs::metadata(path)?.len();
        self.state.lock().unwrap().synced_log = length;
        Ok(())
    }

    fn create_directory(&self, directory: &Path) -> io::Result<()> {
        self.call("create", directory)?;
        RealFileSystem.create_directory(directory)?;
        self.change(NameChange::Directory(directory.to_owned()));
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.call("remove", path)?;
        let number = self.state.lock().unwrap().calls.len();
        let kept = self.graveyard.path().join(number.to_string());
        fs::hard_link(path, &kept)?;
        RealFileSystem.remove_file(path)?;
        self.change(NameChange::Removed {
            path: path.to_owned(),
            kept,
        });
        Ok(())
    }
}

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
pub(crate) fn commit(store: &Store, tag: &str) -> Result<(), StoreError> {
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

pub(crate) fn assert_has(store: &Store, tag: &str) {
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
pub(crate) fn assert_sound(store: &Store) {
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
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
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

#[test]
fn a_power_cut_at_any_call_loses_nothing_acknowledged_and_leaves_no_row_without_bytes() {
    let first = with_first();
    // The last number is none: everything was done, and acknowledged.
    for at in 0..=number_of_calls(first.path()) {
        for with_names in [false, true] {
            let directory = tempfile::tempdir().unwrap();
            let root = directory.path();
            copy(first.path(), root);
            let file_system = FaultyFileSystem::new(Some((at, Fault::FromThenOn(EIO))));
            let store = Store::open_with(root, file_system.clone()).unwrap();
            let acknowledged = commit(&store, "second").is_ok();
            drop(store);
            file_system.lose_power(root, with_names);

            let store = Store::open(root).unwrap();
            assert_sound(&store);
            assert_has(&store, "first");
            if acknowledged {
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
    }
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

#[test]
fn a_collection_that_fails_or_loses_its_power_at_any_call_loses_nothing() {
    let garbage = with_garbage();
    let calls = number_of_collecting_calls(garbage.path());
    for at in 0..=calls {
        for with_names in [false, true] {
            let directory = tempfile::tempdir().unwrap();
            let root = directory.path();
            copy(garbage.path(), root);
            let file_system = FaultyFileSystem::new(Some((at, Fault::FromThenOn(EIO))));
            let store = Store::open_with(root, file_system.clone()).unwrap();
            let done = collect(&store).is_ok();
            assert_eq!(done, at == calls);
            drop(store);
            file_system.lose_power(root, with_names);

            assert_collectable(root);
        }
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
                // The last call is the sync of the index: others see the batch before it.
                let seen = store.realisation(&key("second")).unwrap().is_some();
                assert_eq!(seen, at == calls - 1);
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

/// The log of the index is what a power cut leaves of it: a part, or all but some of its pages.
#[test]
fn an_index_whose_log_was_cut_anywhere_is_the_old_or_the_new() {
    let first = with_first();
    let log = |root: &Path| root.join("index.sqlite-wal");
    let file_system = FaultyFileSystem::new(None);
    let store = Store::open_with(first.path(), file_system.clone()).unwrap();
    commit(&store, "before").unwrap();
    let before = fs::metadata(log(first.path())).unwrap().len();
    commit(&store, "second").unwrap();
    let after = fs::metadata(log(first.path())).unwrap().len();
    assert!(after > before);
    // What was acknowledged had been synced.
    assert_eq!(file_system.state.lock().unwrap().synced_log, after);

    let cut = |at: u64, page: bool| {
        let directory = tempfile::tempdir().unwrap();
        copy(first.path(), directory.path());
        fs::remove_file(directory.path().join("index.sqlite-shm")).unwrap();
        let file = OpenOptions::new()
            .write(true)
            .open(log(directory.path()))
            .unwrap();
        if page {
            let zeros = [0; 4096];
            std::os::unix::fs::FileExt::write_all_at(&file, &zeros, at).unwrap();
            file.set_len(after).unwrap();
        } else {
            file.set_len(at).unwrap();
        }
        let store = Store::open(directory.path()).unwrap();
        assert_sound(&store);
        assert_has(&store, "first");
        assert_has(&store, "before");
        let has_second = store.realisation(&key("second")).unwrap().is_some();
        if has_second {
            assert_has(&store, "second");
        }
        assert_eq!(has_second, !page && at == after);
        commit(&store, "second").unwrap();
        assert_has(&store, "second");
    };
    let step = (after - before).div_ceil(16);
    for number in 0..16 {
        let at = (before + number * step).min(after - 1);
        cut(at, false);
        cut(at, true);
    }
    cut(after, false);
}

const ROOT: &str = "FOREBAY_TEST_ABORT_ROOT";
const AT: &str = "FOREBAY_TEST_ABORT_AT";
const COLLECTS: &str = "FOREBAY_TEST_ABORT_COLLECTS";

/// Does nothing unless the test below has started it.
#[test]
fn child_that_dies() {
    let Some(root) = std::env::var_os(ROOT) else {
        return;
    };
    let at = std::env::var(AT).unwrap().parse().unwrap();
    let file_system = FaultyFileSystem::new(Some((at, Fault::Abort)));
    let store = Store::open_with(Path::new(&root), file_system).unwrap();
    if std::env::var_os(COLLECTS).is_some() {
        let _ = collect(&store);
    } else {
        let _ = commit(&store, "second");
    }
}

/// Runs the child above until it dies at the call with that number.
fn die_at(at: usize, root: &Path, collects: bool) {
    let mut child = Command::new(std::env::current_exe().unwrap());
    if collects {
        child.env(COLLECTS, "");
    }
    let status = child
        .args(["faults::child_that_dies", "--exact", "--quiet"])
        .env(ROOT, root)
        .env(AT, at.to_string())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(status.code().is_none(), "call {at}: {status}");
}

#[test]
fn a_collector_that_dies_at_any_call_loses_nothing() {
    let garbage = with_garbage();
    for at in 0..number_of_collecting_calls(garbage.path()) {
        let directory = tempfile::tempdir().unwrap();
        copy(garbage.path(), directory.path());
        die_at(at, directory.path(), true);
        assert_collectable(directory.path());
    }
}

#[test]
fn a_process_that_dies_at_any_call_leaves_nothing_behind() {
    let first = with_first();
    for at in 0..number_of_calls(first.path()) {
        let directory = tempfile::tempdir().unwrap();
        copy(first.path(), directory.path());
        die_at(at, directory.path(), false);
        let store = Store::open(directory.path()).unwrap();
        assert_sound(&store);
        assert_has(&store, "first");
        commit(&store, "second").unwrap();
        assert_has(&store, "second");
    }
}

#[test]
fn what_a_power_cut_undoes_is_what_was_not_synced() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let file_system = FaultyFileSystem::new(None);
    let mut staged = file_system.create_staged(root).unwrap();
    while file_system.write(&mut staged, b"x").unwrap() == 0 {}
    let staged = staged.into_temp_path();
    file_system.rename_new(staged, &root.join("a")).unwrap();
    file_system.lose_power(root, false);
    assert_eq!(
        File::open(root.join("a"))
            .unwrap()
            .metadata()
            .unwrap()
            .len(),
        0
    );
    file_system.remove_file(&root.join("a")).unwrap();
    file_system.lose_power(root, true);
    assert!(root.join("a").exists());
    file_system.remove_file(&root.join("a")).unwrap();
    file_system.sync_directory(root).unwrap();
    file_system.lose_power(root, true);
    assert!(!root.join("a").exists());
}

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
    // A pack: sealed, renamed; its folder and the index's log are synced.
    assert_eq!(count(1, 0), (1, 1, 1, 2));
    assert_eq!(count(2_000, 0), (1, 1, 1, 2));
    // A large object is one more file, its folder one more sync, and theirs one.
    assert_eq!(count(3, 1), (2, 2, 2, 4));
    // What is there already costs the sync that makes sure of it.
    assert_eq!(count(1, 0), (0, 0, 0, 1));
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
