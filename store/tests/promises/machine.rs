//! Random sequences of everything that changes a store, against a model of what must be there.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use crate::common::dump_index;
use forebay_store::{
    CollectOptions, ObjectDigest, Realisation, Recipe, RecipeKey, RootName, Store, VerifyOptions,
};

/// Two processes, as far as the store can tell: each has a handle with a lease of its own.
const HANDLES: usize = 2;

#[derive(Debug, Clone)]
enum Step {
    /// Commits these objects; roots or realises them under a name.
    Commit {
        handle: usize,
        bodies: Vec<u8>,
        root: Option<u8>,
        recipe: Option<u8>,
    },
    RemoveRoot {
        handle: usize,
        root: u8,
    },
    /// A batch that is given up half-way.
    Abandon {
        handle: usize,
        body: u8,
    },
    /// Looks an object up, and so takes a lease of it.
    Get {
        handle: usize,
        body: u8,
    },
    /// The process ends, and another begins.
    Restart {
        handle: usize,
    },
    Collect {
        handle: usize,
        at_once: bool,
    },
    Verify {
        handle: usize,
    },
    Rebuild {
        handle: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let handle = 0..HANDLES;
    let body = 0..12u8;
    prop_oneof![
        6 => (
            handle.clone(),
            proptest::collection::vec(body.clone(), 1..6),
            proptest::option::of(0..3u8),
            proptest::option::of(0..3u8),
        )
            .prop_map(|(handle, bodies, root, recipe)| Step::Commit { handle, bodies, root, recipe }),
        2 => (handle.clone(), 0..3u8).prop_map(|(handle, root)| Step::RemoveRoot { handle, root }),
        1 => (handle.clone(), body.clone()).prop_map(|(handle, body)| Step::Abandon { handle, body }),
        2 => (handle.clone(), body).prop_map(|(handle, body)| Step::Get { handle, body }),
        3 => handle.clone().prop_map(|handle| Step::Restart { handle }),
        4 => (handle.clone(), any::<bool>())
            .prop_map(|(handle, at_once)| Step::Collect { handle, at_once }),
        1 => handle.clone().prop_map(|handle| Step::Verify { handle }),
        1 => handle.prop_map(|handle| Step::Rebuild { handle }),
    ]
}

/// Every third body is too large for a pack.
fn body(number: u8) -> Vec<u8> {
    vec![
        number;
        if number.is_multiple_of(3) {
            70_000
        } else {
            100
        }
    ]
}

fn digest(number: u8) -> ObjectDigest {
    ObjectDigest::of(&body(number))
}

fn root(number: u8) -> RootName {
    format!("root/{number}").parse().unwrap()
}

fn recipe(number: u8) -> RecipeKey {
    Recipe::new("machine", 1, &number).unwrap().key()
}

#[derive(Debug, Default)]
struct Model {
    roots: BTreeMap<u8, BTreeSet<u8>>,
    leases: [BTreeSet<u8>; HANDLES],
    realised: BTreeMap<u8, BTreeSet<u8>>,
    /// Everything that was ever committed.
    committed: BTreeSet<u8>,
}

impl Model {
    fn needed(&self) -> BTreeSet<u8> {
        let rooted = self.roots.values().flatten();
        let leased = self.leases.iter().flatten();
        rooted.chain(leased).copied().collect()
    }

    /// Nothing needed is lost, and nothing is there that was never committed.
    fn assert_is(&self, store: &Store) {
        let rows = dump_index(store.root());
        let has = |number: u8| {
            let start = format!("object {}", digest(number).to_string().to_uppercase());
            rows.iter().any(|row| row.starts_with(&start))
        };
        for number in self.needed() {
            assert!(has(number), "{number} is lost");
        }
        for number in (0..12).filter(|number| !self.committed.contains(number)) {
            assert!(!has(number), "{number} is there");
        }
        let names: BTreeSet<_> = store.roots().unwrap().into_iter().map(|r| r.name).collect();
        assert_eq!(
            names,
            self.roots.keys().map(|number| root(*number)).collect()
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_is_needed_is_ever_lost(steps in proptest::collection::vec(step(), 1..30)) {
        let directory = tempfile::tempdir().unwrap();
        let open = || Store::open(directory.path()).unwrap();
        let mut handles = [open(), open()];
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Commit { handle, bodies, root: name, recipe: key } => {
                    let mut batch = handles[handle].begin().unwrap();
                    let digests: Vec<_> = bodies
                        .iter()
                        .map(|number| batch.put(&body(*number)).unwrap().digest)
                        .collect();
                    let set: BTreeSet<u8> = bodies.iter().copied().collect();
                    if let Some(name) = name {
                        batch.set_root(&root(name), &digests).unwrap();
                        model.roots.insert(name, set.clone());
                    }
                    if let Some(key) = key {
                        let outputs = set.iter().map(|n| (n.to_string(), digest(*n))).collect();
                        batch.realise(&recipe(key), &Realisation { outputs }).unwrap();
                        model.realised.insert(key, set.clone());
                    }
                    batch.commit().unwrap();
                    model.leases[handle].extend(&set);
                    model.committed.extend(&set);
                }
                Step::RemoveRoot { handle, root: name } => {
                    let mut batch = handles[handle].begin().unwrap();
                    batch.remove_root(&root(name)).unwrap();
                    batch.commit().unwrap();
                    model.roots.remove(&name);
                }
                Step::Abandon { handle, body: number } => {
                    let mut batch = handles[handle].begin().unwrap();
                    batch.put(&body(number)).unwrap();
                }
                Step::Get { handle, body: number } => {
                    if handles[handle].info(&digest(number)).unwrap().is_some() {
                        model.leases[handle].insert(number);
                        prop_assert_eq!(handles[handle].read(&digest(number)).unwrap(), body(number));
                    } else {
                        prop_assert!(!model.needed().contains(&number));
                    }
                }
                Step::Restart { handle } => {
                    handles[handle] = open();
                    model.leases[handle].clear();
                }
                Step::Collect { handle, at_once } => {
                    let mut options = CollectOptions::default();
                    if at_once {
                        options.grace = Duration::ZERO;
                    }
                    let dry = CollectOptions { dry_run: true, ..options.clone() };
                    let expected = handles[handle].collect(&dry).unwrap();
                    let report = handles[handle].collect(&options).unwrap();
                    prop_assert_eq!(&report, &expected);
                    for object in &report.deleted {
                        let needed = model.needed();
                        prop_assert!(needed.iter().all(|number| digest(*number) != object.digest));
                    }
                }
                Step::Verify { handle } => {
                    let report = handles[handle].verify(&VerifyOptions::default()).unwrap();
                    prop_assert!(report.is_intact(), "{:?}", report);
                }
                Step::Rebuild { handle } => {
                    let before = without_places(directory.path());
                    handles[handle].rebuild_index().unwrap();
                    prop_assert_eq!(without_places(directory.path()), before);
                }
            }
            model.assert_is(&handles[0]);
        }
        // What a realisation gives is what was realised last.
        for (key, set) in &model.realised {
            if let Some(found) = handles[1].realisation(&recipe(*key)).unwrap() {
                let outputs = set.iter().map(|n| (n.to_string(), digest(*n))).collect();
                prop_assert_eq!(found, Realisation { outputs });
            }
        }
    }
}

/// Which of two equal entries a row points to may change.
fn without_places(root: &std::path::Path) -> Vec<String> {
    dump_index(root)
        .into_iter()
        .filter(|row| !row.starts_with("clock "))
        .map(|row| match row.starts_with("object ") {
            true => row.split(' ').take(4).collect::<Vec<_>>().join(" "),
            false => row,
        })
        .collect()
}
