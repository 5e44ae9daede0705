//! Random batches against a map, random edits against a naive hash.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, FileTimes, Permissions};
use std::io::{Cursor, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use proptest::sample::Index;

use forebay_store::{ObjectDigest, Realisation, Recipe, RootName, Sha256Digest, Store};
use forebay_store::{Tree, TreeEntryKind};

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

#[derive(Debug, Clone)]
enum Step {
    Put { size: usize, fill: u8, stream: bool },
    Realise { recipe: u8, of: Index },
    SetRoot { name: u8, of: Index },
    RemoveRoot { name: u8 },
}

fn step() -> impl Strategy<Value = Step> {
    const LARGE: usize = 64 * 1024;
    let size = prop_oneof![0..200usize, LARGE - 2..LARGE + 2, Just(700_000)];
    prop_oneof![
        5 => (size, 0..3u8, any::<bool>())
            .prop_map(|(size, fill, stream)| Step::Put { size, fill, stream }),
        1 => (0..3u8, any::<Index>()).prop_map(|(recipe, of)| Step::Realise { recipe, of }),
        1 => (0..3u8, any::<Index>()).prop_map(|(name, of)| Step::SetRoot { name, of }),
        1 => (0..3u8).prop_map(|name| Step::RemoveRoot { name }),
    ]
}

/// What a store must say.
#[derive(Default, Clone)]
struct Model {
    objects: HashMap<ObjectDigest, Vec<u8>>,
    realisations: HashMap<u8, ObjectDigest>,
    roots: BTreeMap<RootName, ObjectDigest>,
}

impl Model {
    fn assert_is(&self, store: &Store) {
        for (digest, bytes) in &self.objects {
            assert_eq!(&store.read(digest).unwrap(), bytes);
            let info = store.info_by_sha256(&Sha256Digest::of(bytes)).unwrap();
            assert_eq!(info.unwrap().digest, *digest);
            let mut read = Vec::new();
            store
                .reader(digest)
                .unwrap()
                .read_to_end(&mut read)
                .unwrap();
            assert_eq!(&read, bytes);
        }
        for (recipe, digest) in &self.realisations {
            let key = Recipe::new("kind", 1, recipe).unwrap().key();
            let outputs = [("out".to_owned(), *digest)].into();
            assert_eq!(
                store.realisation(&key).unwrap(),
                Some(Realisation { outputs })
            );
        }
        let roots: BTreeMap<_, _> = store
            .roots()
            .unwrap()
            .into_iter()
            .map(|root| (root.name, root.objects[0]))
            .collect();
        assert_eq!(roots, self.roots);
    }
}

proptest! {
    #![proptest_config(config(24))]

    #[test]
    fn a_store_is_a_map_of_what_was_committed(
        batches in proptest::collection::vec(
            (proptest::collection::vec(step(), 0..8), any::<bool>(), 0..4u8),
            1..6,
        )
    ) {
        let directory = tempfile::tempdir().unwrap();
        let mut store = Store::open(directory.path()).unwrap();
        let mut model = Model::default();
        for (steps, commits, then) in batches {
            let mut next = model.clone();
            let mut batch = store.begin().unwrap();
            for step in steps {
                let digests: Vec<_> = next.objects.keys().copied().collect();
                match step {
                    Step::Put { size, fill, stream } => {
                        let bytes = vec![fill; size];
                        let info = if stream {
                            batch.put_reader(&mut Cursor::new(&bytes)).unwrap()
                        } else {
                            batch.put(&bytes).unwrap()
                        };
                        prop_assert_eq!(info.digest, ObjectDigest::of(&bytes));
                        prop_assert_eq!(info.sha256, Sha256Digest::of(&bytes));
                        prop_assert_eq!(info.size, size as u64);
                        next.objects.insert(info.digest, bytes);
                    }
                    Step::Realise { recipe, of } if !digests.is_empty() => {
                        let digest = *of.get(&digests);
                        let key = Recipe::new("kind", 1, &recipe).unwrap().key();
                        let outputs = [("out".to_owned(), digest)].into();
                        batch.realise(&key, &Realisation { outputs }).unwrap();
                        next.realisations.insert(recipe, digest);
                    }
                    Step::SetRoot { name, of } if !digests.is_empty() => {
                        let digest = *of.get(&digests);
                        let name: RootName = format!("root/{name}").parse().unwrap();
                        batch.set_root(&name, &[digest]).unwrap();
                        next.roots.insert(name, digest);
                    }
                    Step::RemoveRoot { name } => {
                        let name: RootName = format!("root/{name}").parse().unwrap();
                        batch.remove_root(&name).unwrap();
                        next.roots.remove(&name);
                    }
                    Step::Realise { .. } | Step::SetRoot { .. } => {}
                }
            }
            if commits {
                batch.commit().unwrap();
                model = next;
            } else {
                drop(batch);
            }
            match then {
                0 => {
                    drop(store);
                    store = Store::open(directory.path()).unwrap();
                }
                1 => {
                    store.rebuild_index().unwrap();
                }
                2 => {
                    drop(store);
                    fs::remove_file(directory.path().join("index.sqlite")).unwrap();
                    store = Store::open(directory.path()).unwrap();
                }
                _ => {}
            }
            model.assert_is(&store);
        }
    }
}

#[derive(Debug, Clone)]
enum Edit {
    /// Written in place or by rename; with the old times restored or not.
    Write {
        file: u8,
        size: usize,
        fill: u8,
        replace: bool,
        restore: bool,
    },
    Delete {
        file: u8,
    },
    Rename {
        from: u8,
        to: u8,
    },
    HardLink {
        from: u8,
        to: u8,
    },
    Chmod {
        file: u8,
        executable: bool,
    },
    SetTime {
        file: u8,
        ahead: bool,
    },
}

fn edit() -> impl Strategy<Value = Edit> {
    const FILES: std::ops::Range<u8> = 0..6;
    prop_oneof![
        6 => (FILES, 0..3usize, 0..3u8, any::<bool>(), any::<bool>()).prop_map(
            |(file, size, fill, replace, restore)| Edit::Write { file, size, fill, replace, restore }
        ),
        1 => FILES.prop_map(|file| Edit::Delete { file }),
        1 => (FILES, FILES).prop_map(|(from, to)| Edit::Rename { from, to }),
        1 => (FILES, FILES).prop_map(|(from, to)| Edit::HardLink { from, to }),
        1 => (FILES, any::<bool>()).prop_map(|(file, executable)| Edit::Chmod { file, executable }),
        1 => (FILES, any::<bool>()).prop_map(|(file, ahead)| Edit::SetTime { file, ahead }),
    ]
}

/// Two files in each of three directories.
fn name(file: u8) -> String {
    format!("d{}/f{}", file / 2, file % 2)
}

impl Edit {
    fn apply(&self, project: &Path) {
        let path = |file: &u8| project.join(name(*file));
        // An edit of a file that is not there changes nothing.
        let _ =
            match self {
                Self::Write {
                    file,
                    size,
                    fill,
                    replace,
                    restore,
                } => {
                    let target = path(file);
                    let times = fs::metadata(&target)
                        .ok()
                        .filter(|_| *restore)
                        .map(|old| FileTimes::new().set_modified(old.modified().unwrap()));
                    let written = if *replace {
                        project.join("d0/new")
                    } else {
                        target.clone()
                    };
                    fs::write(&written, vec![*fill; *size]).unwrap();
                    if let Some(times) = times {
                        File::options()
                            .write(true)
                            .open(&written)
                            .unwrap()
                            .set_times(times)
                            .unwrap();
                    }
                    if *replace {
                        fs::rename(written, target)
                    } else {
                        Ok(())
                    }
                }
                Self::Delete { file } => fs::remove_file(path(file)),
                Self::Rename { from, to } => fs::rename(path(from), path(to)),
                Self::HardLink { from, to } => fs::hard_link(path(from), path(to)),
                Self::Chmod { file, executable } => {
                    let mode = if *executable { 0o755 } else { 0o644 };
                    fs::set_permissions(path(file), Permissions::from_mode(mode))
                }
                Self::SetTime { file, ahead } => File::options()
                    .write(true)
                    .open(path(file))
                    .and_then(|file| {
                        let hour = Duration::from_secs(3600);
                        let now = SystemTime::now();
                        let time = if *ahead { now + hour } else { now - hour };
                        file.set_times(FileTimes::new().set_modified(time))
                    }),
            };
    }
}

/// A scan of files alone, without any cache.
fn assert_is_what_is_there(tree: &Tree, project: &Path, skipped: Option<u8>) {
    let mut expected = Vec::new();
    for file in 0..6 {
        let path = project.join(name(file));
        if skipped == Some(file / 2) || !path.exists() {
            continue;
        }
        let bytes = fs::read(&path).unwrap();
        let kind = TreeEntryKind::File {
            digest: ObjectDigest::of(&bytes),
            size: bytes.len() as u64,
            executable: fs::metadata(&path).unwrap().permissions().mode() & 0o100 != 0,
        };
        expected.push((name(file), kind));
    }
    let found: Vec<_> = tree
        .entries
        .iter()
        .map(|entry| (entry.path.clone(), entry.kind.clone()))
        .collect();
    assert_eq!(found, expected);
}

proptest! {
    // Together 10,000 edits, of which most are of a file's bytes.
    #![proptest_config(config(100))]

    #[test]
    fn a_scan_is_never_wrong(edits in proptest::collection::vec((edit(), 0..3u8), 100)) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store")).unwrap();
        let project = directory.path().join("project");
        for number in 0..3 {
            fs::create_dir_all(project.join(format!("d{number}"))).unwrap();
        }
        for (edit, then) in &edits {
            edit.apply(&project);
            match then {
                0 => {
                    let tree = store.scan(&project, &|_, _| false).unwrap();
                    assert_is_what_is_there(&tree, &project, None);
                }
                1 => {
                    let tree = store.scan(&project, &|path, _| path == "d1").unwrap();
                    assert_is_what_is_there(&tree, &project, Some(1));
                }
                _ => {}
            }
        }
        let tree = store.scan(&project, &|_, _| false).unwrap();
        assert_is_what_is_there(&tree, &project, None);
    }
}
