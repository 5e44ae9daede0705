//! Random sequences of everything that changes a store, done by several processes of which
//! some are killed, against a model of what must be there.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout};
use std::time::Duration;

use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use crate::common::dump_index;
use crate::processes::{say, start};
use forebay_store::{
    CollectOptions, CollectReport, ObjectDigest, Realisation, Recipe, RecipeKey, RootName, Store,
    VerifyOptions,
};

/// Processes, each with a handle and so with a lease of its own.
const HANDLES: usize = 3;

#[derive(Debug, Clone, Serialize, Deserialize)]
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
    /// The process is killed somewhere in that step; another begins.
    Kill {
        during: Box<Step>,
        after_microseconds: u32,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let killed = (whole_step(), 0..20_000u32).prop_map(|(during, after_microseconds)| Step::Kill {
        during: Box::new(during),
        after_microseconds,
    });
    prop_oneof![6 => whole_step(), 1 => killed]
}

fn whole_step() -> impl Strategy<Value = Step> {
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

#[derive(Debug, Default, Clone)]
struct Model {
    roots: BTreeMap<u8, BTreeSet<u8>>,
    leases: [BTreeSet<u8>; HANDLES],
    /// What a realisation may give: more than one thing if its writer was killed.
    realised: BTreeMap<u8, Vec<BTreeSet<u8>>>,
    /// Everything that was ever committed.
    committed: BTreeSet<u8>,
    /// What a root would be, or none, if a batch that was killed between its files and its
    /// rows came back with an index that is made anew.
    may_come_back: BTreeMap<u8, Vec<Option<BTreeSet<u8>>>>,
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
        assert_eq!(roots(store), self.roots);
    }

    /// What a step that was done changes.
    fn apply(&mut self, step: &Step) {
        match step {
            Step::Commit {
                handle,
                bodies,
                root,
                recipe,
            } => {
                let set: BTreeSet<u8> = bodies.iter().copied().collect();
                self.leases[*handle].extend(&set);
                self.committed.extend(&set);
                if let Some(name) = root {
                    self.roots.insert(*name, set.clone());
                    self.may_come_back.remove(name);
                }
                if let Some(key) = recipe {
                    self.realised.insert(*key, vec![set]);
                }
            }
            Step::RemoveRoot { root, .. } => {
                self.roots.remove(root);
                self.may_come_back.remove(root);
            }
            Step::Restart { handle } => self.leases[*handle].clear(),
            _ => {}
        }
    }

    /// What a step may have changed whose process was killed: all of it, or nothing.
    fn apply_killed(&mut self, step: &Step, store: &Store) {
        let mut done = self.clone();
        done.apply(step);
        for (key, sets) in &mut done.realised {
            sets.extend(self.realised.get(key).into_iter().flatten().cloned());
        }
        self.leases[step.handle()].clear();
        self.realised = done.realised;
        self.committed = done.committed;
        let changed = |name: &u8| done.roots.get(name) != self.roots.get(name);
        let changed: Vec<u8> = (0..3).filter(changed).collect();
        if roots(store) == done.roots {
            self.roots = done.roots;
            changed.iter().for_each(|name| {
                self.may_come_back.remove(name);
            });
        } else {
            for name in changed {
                let come_back = self.may_come_back.entry(name).or_default();
                come_back.push(done.roots.get(&name).cloned());
            }
        }
    }

    /// What an index that was made anew may have brought back.
    fn apply_rebuilt(&mut self, store: &Store) {
        let now = roots(store);
        for (name, values) in &self.may_come_back {
            if let Some(value) = values.iter().find(|value| now.get(name) == value.as_ref()) {
                match value {
                    Some(set) => self.roots.insert(*name, set.clone()),
                    None => self.roots.remove(name),
                };
            }
        }
    }
}

/// What the store's roots keep.
fn roots(store: &Store) -> BTreeMap<u8, BTreeSet<u8>> {
    let number = |digest: &ObjectDigest| (0..12).find(|number| self::digest(*number) == *digest);
    let found = store.roots().unwrap().into_iter().map(|found| {
        let name = (0..3).find(|name| root(*name) == found.name).unwrap();
        let objects = found.objects.iter().map(|digest| number(digest).unwrap());
        (name, objects.collect())
    });
    found.collect()
}

impl Step {
    fn handle(&self) -> usize {
        match self {
            Self::Commit { handle, .. }
            | Self::RemoveRoot { handle, .. }
            | Self::Abandon { handle, .. }
            | Self::Get { handle, .. }
            | Self::Restart { handle }
            | Self::Collect { handle, .. }
            | Self::Verify { handle }
            | Self::Rebuild { handle } => *handle,
            Self::Kill { during, .. } => during.handle(),
        }
    }

    /// Does it with that handle. Says whether something was found, and what was deleted.
    fn perform(&self, store: &mut Store) -> (bool, Vec<ObjectDigest>) {
        let mut found = true;
        let mut deleted = Vec::new();
        match self {
            Self::Commit {
                bodies,
                root: name,
                recipe: key,
                ..
            } => {
                let mut batch = store.begin().unwrap();
                let digests: Vec<_> = bodies
                    .iter()
                    .map(|number| batch.put(&body(*number)).unwrap().digest)
                    .collect();
                if let Some(name) = name {
                    batch.set_root(&root(*name), &digests).unwrap();
                }
                if let Some(key) = key {
                    let set = bodies.iter().copied().collect();
                    batch.realise(&recipe(*key), &realisation(&set)).unwrap();
                }
                batch.commit().unwrap();
            }
            Self::RemoveRoot { root: name, .. } => {
                let mut batch = store.begin().unwrap();
                batch.remove_root(&root(*name)).unwrap();
                batch.commit().unwrap();
            }
            Self::Abandon { body: number, .. } => {
                let mut batch = store.begin().unwrap();
                batch.put(&body(*number)).unwrap();
            }
            Self::Get { body: number, .. } => {
                found = store.info(&digest(*number)).unwrap().is_some();
                if found {
                    assert_eq!(store.read(&digest(*number)).unwrap(), body(*number));
                }
            }
            Self::Restart { .. } => {
                let again = Store::open(store.root()).unwrap();
                *store = again;
            }
            Self::Collect { at_once, .. } => {
                let mut options = CollectOptions::default();
                if *at_once {
                    options.grace = Duration::ZERO;
                }
                let dry = CollectOptions {
                    dry_run: true,
                    ..options.clone()
                };
                let expected: CollectReport = store.collect(&dry).unwrap();
                let report = store.collect(&options).unwrap();
                assert_eq!(report, expected);
                deleted.extend(report.deleted.iter().map(|object| object.digest));
            }
            Self::Verify { .. } => {
                let report = store.verify(&VerifyOptions::default()).unwrap();
                assert!(report.is_intact(), "{report:?}");
            }
            Self::Rebuild { .. } => {
                store.rebuild_index().unwrap();
            }
            Self::Kill { .. } => unreachable!("it is the parent's"),
        }
        (found, deleted)
    }
}

fn realisation(set: &BTreeSet<u8>) -> Realisation {
    let outputs = set.iter().map(|n| (n.to_string(), digest(*n))).collect();
    Realisation { outputs }
}

/// What a child does: a step for each line that it reads.
pub(crate) fn obey(root: &Path) {
    let mut store = Store::open(root).unwrap();
    say("ready");
    for line in std::io::stdin().lines() {
        let step: Step = serde_json::from_str(&line.unwrap()).unwrap();
        let answer = step.perform(&mut store);
        say(&format!(
            "answer {}",
            serde_json::to_string(&answer).unwrap()
        ));
    }
}

/// A child that obeys.
struct Worker {
    child: Child,
    input: Option<ChildStdin>,
    output: Lines<BufReader<ChildStdout>>,
}

impl Worker {
    /// Returns when it has opened the store: while it clears away what a killed one left, that
    /// one's lease still counts.
    fn start(root: &Path) -> Self {
        let mut child = start("obey", root, 0);
        let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(output.any(|line| line.unwrap() == "ready"));
        Self {
            input: child.stdin.take(),
            output,
            child,
        }
    }

    fn send(&mut self, step: &Step) {
        let input = self.input.as_mut().unwrap();
        writeln!(input, "{}", serde_json::to_string(step).unwrap()).unwrap();
    }

    fn ask(&mut self, step: &Step) -> (bool, Vec<ObjectDigest>) {
        self.send(step);
        for line in &mut self.output {
            if let Some(answer) = line.unwrap().strip_prefix("answer ") {
                return serde_json::from_str(answer).unwrap();
            }
        }
        panic!("the process could not do {step:?}");
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.wait();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_is_needed_is_ever_lost(steps in proptest::collection::vec(step(), 1..30)) {
        let directory = tempfile::tempdir().unwrap();
        let path: PathBuf = directory.path().to_owned();
        // It only looks, and so holds nothing.
        let witness = Store::open(&path).unwrap();
        let mut workers: Vec<Worker> = (0..HANDLES).map(|_| Worker::start(&path)).collect();
        let mut model = Model::default();
        let mut killed = false;
        for step in &steps {
            let worker = &mut workers[step.handle()];
            if let Step::Kill { during, after_microseconds } = step {
                killed = true;
                worker.send(during);
                // At any moment: which one it was, no assertion depends on.
                std::thread::sleep(Duration::from_micros((*after_microseconds).into()));
                worker.kill();
                *worker = Worker::start(&path);
                model.apply_killed(during, &witness);
            } else {
                let is_exact = matches!(step, Step::Rebuild { .. }) && !killed;
                let before = is_exact.then(|| without_places(&path));
                let (found, deleted) = worker.ask(step);
                for object in deleted {
                    let mut needed = model.needed().into_iter();
                    prop_assert!(needed.all(|number| digest(number) != object));
                }
                if let Step::Get { handle, body } = step {
                    prop_assert!(found || !model.needed().contains(body));
                    if found {
                        model.leases[*handle].insert(*body);
                    }
                }
                if let Some(before) = before {
                    prop_assert_eq!(without_places(&path), before);
                }
                if matches!(step, Step::Rebuild { .. }) {
                    model.apply_rebuilt(&witness);
                }
                model.apply(step);
            }
            model.assert_is(&witness);
        }
        // What a realisation gives is what was realised last.
        for (key, sets) in &model.realised {
            if let Some(found) = witness.realisation(&recipe(*key)).unwrap() {
                prop_assert!(sets.iter().any(|set| realisation(set) == found));
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
