//! Writers and collectors in every order of their calls.
//!
//! Two writers and two collectors with a dozen calls each have more orders than can be run.
//! But an actor is decided by the answers that it has had, and a bucket by what is in it: two
//! orders that lead to the same contents and the same answers go on alike, and need to be
//! followed once. So what is explored are *states*: the contents of the bucket, and how far each
//! actor is. All that can be reached are visited, whatever order leads there, and nothing is
//! left out; no argument about calls that commute is needed.
//!
//! Nor does the code run once for every order. What an actor does after given answers is
//! learned by running it with just these, and kept in a tree; the exploration itself is
//! arithmetic on the bucket's rules. Calls of one actor that the program makes at the same time
//! come one after another here, in the order in which it begins them.
//!
//! Each write of a key has a number here. On S3 the stamps of parts and marks, and the times in
//! entries, come to the same.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use super::*;

/// One call of an actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Call {
    /// Everything: no actor lists less, but for an object's parts.
    List(Prefix),
    Read(Key),
    Write(Key, Text, Seen),
    Delete(Key, u64),
}

/// Keys, prefixes and bytes by their numbers in [`Names`].
type Key = u8;
type Prefix = u8;
type Text = u8;

/// What a writer has seen of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Seen {
    Nothing,
    Generation(u64),
}

/// What the bucket answers: the objects that it shows, or that the condition failed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Answer {
    Objects(Vec<(Key, Held)>),
    ConditionFailed,
}

/// What is under a key: bytes, which write of the key it is, and when (hours) it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Held {
    text: Text,
    generation: u64,
    hour: i64,
}

/// Every key, prefix and text that was used, once.
#[derive(Default)]
struct Names {
    keys: Vec<String>,
    prefixes: Vec<String>,
    texts: Vec<Bytes>,
}

fn number<T: PartialEq>(all: &mut Vec<T>, one: T) -> u8 {
    let position = all.iter().position(|known| *known == one);
    let position = position.unwrap_or_else(|| {
        all.push(one);
        all.len() - 1
    });
    u8::try_from(position).unwrap()
}

impl Names {
    fn key(&mut self, key: &str) -> Key {
        number(&mut self.keys, key.to_owned())
    }

    /// Entries say when they were made; nothing depends on that, so that two which differ in
    /// nothing else are one.
    fn text(&mut self, bytes: &Bytes) -> Text {
        let meant = meaning(bytes);
        let same = |known: &&Bytes| meant.is_some() && meaning(known) == meant;
        let known = self.texts.iter().find(same).unwrap_or(bytes).clone();
        number(&mut self.texts, known)
    }
}

/// Nor does anything depend on a mark's stamp, where writes have numbers.
fn meaning(bytes: &Bytes) -> Option<String> {
    if let Ok(mut mark) = serde_json::from_slice::<serde_json::Value>(bytes) {
        mark["stamp"].take();
        return Some(mark.to_string());
    }
    let mut statement = Entry::decode_unverified(bytes).ok()?.statement;
    statement.created = Timestamp::UNIX_EPOCH;
    Some(format!("{statement:?}"))
}

/// The bucket's rules, as documented.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Model {
    /// By key.
    held: Vec<Option<Held>>,
    /// How often each key was written, also if it is gone since.
    writes: Vec<u64>,
    hour: i64,
}

impl Model {
    fn held(&self, key: Key) -> Option<Held> {
        self.held.get(usize::from(key)).copied().flatten()
    }

    fn hold(&mut self, key: Key, held: Option<Held>) {
        let key = usize::from(key);
        if self.held.len() <= key {
            self.held.resize(key + 1, None);
            self.writes.resize(key + 1, 0);
        }
        self.held[key] = held;
    }

    fn answer(&mut self, call: Call, names: &Names) -> Answer {
        match call {
            Call::List(prefix) => {
                let prefix = names.prefixes[usize::from(prefix)].as_str();
                let mut held: Vec<(Key, Held)> = (0..)
                    .zip(&self.held)
                    .filter_map(|(key, held)| Some((key, (*held)?)))
                    .filter(|(key, _)| names.keys[usize::from(*key)].starts_with(prefix))
                    .collect();
                held.sort_by_key(|(key, _)| &names.keys[usize::from(*key)]);
                Answer::Objects(held)
            }
            Call::Read(key) => {
                let held = self.held(key).map(|held| (key, held));
                Answer::Objects(held.into_iter().collect())
            }
            Call::Write(key, text, condition) => {
                let seen = self.held(key).map(|held| held.generation);
                let holds = match condition {
                    Seen::Nothing => seen.is_none(),
                    Seen::Generation(generation) => seen == Some(generation),
                };
                if !holds {
                    return Answer::ConditionFailed;
                }
                self.hold(key, None);
                self.writes[usize::from(key)] += 1;
                let held = Held {
                    text,
                    generation: self.writes[usize::from(key)],
                    hour: self.hour,
                };
                self.hold(key, Some(held));
                Answer::Objects(vec![(key, held)])
            }
            Call::Delete(key, generation) => {
                match self.held(key) {
                    Some(held) if held.generation != generation => return Answer::ConditionFailed,
                    Some(_) => self.hold(key, None),
                    None => {}
                }
                Answer::Objects(Vec::new())
            }
        }
    }
}

/// An actor's bucket: gives the answers that it is told, and then says which call came next.
struct Scripted {
    location: BucketLocation,
    script: Arc<Mutex<Script>>,
    names: Arc<Mutex<Names>>,
    hour: i64,
}

struct Script {
    answers: std::vec::IntoIter<Answer>,
    next: Option<Call>,
}

fn time(hour: i64) -> Timestamp {
    let start: Timestamp = "2031-05-05T12:00:00Z".parse().unwrap();
    start + SignedDuration::from_hours(hour)
}

impl Scripted {
    /// None if this is as far as the script goes; the actor then gives up.
    fn turn(&self, call: Call) -> Result<Answer, BucketError> {
        let mut script = self.script.lock().unwrap();
        match script.answers.next() {
            Some(answer) => Ok(answer),
            None => {
                script.next.get_or_insert(call);
                Err(BucketError::Unreachable {
                    bucket: self.location.to_string(),
                    source: "the script is over".into(),
                })
            }
        }
    }

    fn objects(&self, call: Call, key: &str) -> Result<Vec<(StoredObject, Bytes)>, BucketError> {
        let Answer::Objects(objects) = self.turn(call)? else {
            return Err(BucketError::ConditionFailed {
                bucket: self.location.to_string(),
                key: key.to_owned(),
            });
        };
        let names = self.names.lock().unwrap();
        let each = objects.into_iter().map(|(key, held)| {
            let bytes = names.texts[usize::from(held.text)].clone();
            let checksums = Checksums::of(&bytes);
            let object = StoredObject {
                key: names.keys[usize::from(key)].clone(),
                size: checksums.size,
                generation: StorageGeneration(held.generation),
                crc32c: Some(checksums.crc32c),
                md5: Some(checksums.md5),
                updated: time(held.hour),
            };
            (object, bytes)
        });
        Ok(each.collect())
    }
}

#[async_trait]
impl Bucket for Scripted {
    fn location(&self) -> &BucketLocation {
        &self.location
    }

    async fn list(&self, prefix: &str) -> Result<Listing, BucketError> {
        let number = number(&mut self.names.lock().unwrap().prefixes, prefix.to_owned());
        let objects = self.objects(Call::List(number), prefix)?;
        Ok(Listing {
            objects: objects.into_iter().map(|(object, _)| object).collect(),
            server_time: time(self.hour),
        })
    }

    async fn read(&self, key: &ObjectKey) -> Result<Option<ReadObject>, BucketError> {
        let number = self.names.lock().unwrap().key(key.as_str());
        let objects = self.objects(Call::Read(number), key.as_str())?;
        let read = objects.into_iter().next();
        Ok(read.map(|(object, bytes)| ReadObject {
            object,
            bytes,
            server_time: time(self.hour),
        }))
    }

    async fn write(
        &self,
        key: &ObjectKey,
        bytes: Bytes,
        condition: WriteCondition,
    ) -> Result<StoredObject, BucketError> {
        let (number, text) = {
            let mut names = self.names.lock().unwrap();
            (names.key(key.as_str()), names.text(&bytes))
        };
        let seen = match condition {
            WriteCondition::Absent => Seen::Nothing,
            WriteCondition::Unchanged(seen) => Seen::Generation(seen.0),
        };
        let written = self.objects(Call::Write(number, text, seen), key.as_str())?;
        Ok(written.into_iter().next().unwrap().0)
    }

    async fn delete(
        &self,
        key: &ObjectKey,
        generation: StorageGeneration,
    ) -> Result<(), BucketError> {
        let number = self.names.lock().unwrap().key(key.as_str());
        let call = Call::Delete(number, generation.0);
        self.objects(call, key.as_str()).map(drop)
    }
}

/// What an actor does, after which answers: a tree that grows as it is walked.
struct Actor {
    host: Host,
    /// The build that it brings; a collector has none.
    build: Option<&'static str>,
    nodes: Vec<Node>,
}

struct Node {
    /// The answers so far.
    answers: Vec<Answer>,
    /// None if it is at its end.
    next: Option<Call>,
    after: HashMap<Answer, usize>,
}

impl Actor {
    fn writer(build: &'static str) -> Self {
        Self {
            host: Host::new(),
            build: Some(build),
            nodes: Vec::new(),
        }
    }

    fn collector() -> Self {
        Self {
            host: Host::empty(),
            build: None,
            nodes: Vec::new(),
        }
    }

    /// Runs the program with these answers; gives what it asks next.
    fn learn(&mut self, answers: Vec<Answer>, names: &Arc<Mutex<Names>>, hour: i64) -> usize {
        let script = Arc::new(Mutex::new(Script {
            answers: answers.clone().into_iter(),
            next: None,
        }));
        let (shared, known) = (Arc::clone(&script), Arc::clone(names));
        let open: OpenBucket = Arc::new(move |location: &CacheLocation| {
            Ok(Arc::new(Scripted {
                location: location.bucket.clone(),
                script: Arc::clone(&shared),
                names: Arc::clone(&known),
                hour,
            }) as Arc<dyn Bucket>)
        });
        let cache = self.host.cache(&open, Patience::default());
        let ended = match self.build {
            Some(build) => {
                cache.expect(Closure {
                    exact: key(build),
                    latest: key("latest"),
                });
                cache.push(&self.host.store, "test").map(drop)
            }
            None => cache.collect(&COLLECT).map(drop),
        };
        let next = script.lock().unwrap().next.take();
        // Nothing but the end of the script makes it fail.
        assert!(ended.is_ok() || next.is_some(), "{ended:?}");
        self.nodes.push(Node {
            answers,
            next,
            after: HashMap::new(),
        });
        self.nodes.len() - 1
    }

    fn step(&mut self, at: usize, answer: Answer, names: &Arc<Mutex<Names>>, hour: i64) -> usize {
        if let Some(next) = self.nodes[at].after.get(&answer) {
            return *next;
        }
        let mut answers = self.nodes[at].answers.clone();
        answers.push(answer.clone());
        let next = self.learn(answers, names, hour);
        self.nodes[at].after.insert(answer, next);
        next
    }
}

/// Visits every state that writers of these builds and so many collectors can bring a bucket
/// to; gives how many there are.
fn explore(
    start: &Model,
    names: &Arc<Mutex<Names>>,
    builds: &[&'static str],
    collectors: usize,
) -> usize {
    let hour = start.hour;
    // Collectors are all alike: they share a tree, and which of them is where does not matter.
    let mut actors: Vec<Actor> = builds.iter().map(|build| Actor::writer(build)).collect();
    actors.push(Actor::collector());
    let cast: Vec<usize> = (0..builds.len() + collectors)
        .map(|number| number.min(builds.len()))
        .collect();
    let first: Vec<usize> = actors
        .iter_mut()
        .map(|actor| actor.learn(Vec::new(), names, hour))
        .collect();
    let first: Vec<usize> = cast.iter().map(|actor| first[*actor]).collect();
    let mut seen = HashSet::new();
    let mut open = vec![(start.clone(), first)];
    while let Some((model, places)) = open.pop() {
        let mut is_end = true;
        for (number, &actor) in cast.iter().enumerate() {
            let Some(call) = actors[actor].nodes[places[number]].next else {
                continue;
            };
            is_end = false;
            let (mut model, mut places) = (model.clone(), places.clone());
            let answer = model.answer(call, &names.lock().unwrap());
            places[number] = actors[actor].step(places[number], answer, names, hour);
            places[builds.len()..].sort_unstable();
            if seen.insert(digest(&model, &places)) {
                open.push((model, places));
            }
        }
        if is_end {
            let ends = cast.iter().zip(&places);
            let ends: Vec<&Node> = ends
                .map(|(actor, place)| &actors[*actor].nodes[*place])
                .collect();
            assert_whole(&model, &names.lock().unwrap(), builds, &ends);
        }
    }
    seen.len()
}

/// A state in 128 bits, which no two of some million states share.
fn digest(model: &Model, places: &[usize]) -> [u8; 16] {
    let mut bytes = Vec::with_capacity(64);
    for place in places {
        bytes.extend_from_slice(&u16::try_from(*place).unwrap().to_le_bytes());
    }
    for (held, writes) in model.held.iter().zip(&model.writes) {
        let (text, generation) = held.map_or((u8::MAX, 0), |held| (held.text, held.generation));
        bytes.extend_from_slice(&[text, generation as u8, *writes as u8]);
        // All that was written before the exploration began is of other hours.
        bytes.push(u8::from(held.is_some_and(|held| held.hour == model.hour)));
    }
    let mut digest = [0; 16];
    digest.copy_from_slice(&blake3::hash(&bytes).as_bytes()[..16]);
    digest
}

/// Every entry that is there names only what is there, and what was brought was not lost.
fn assert_whole(model: &Model, names: &Names, builds: &[&str], ends: &[&Node]) {
    let location: CacheLocation = "gs://team".parse().unwrap();
    let find = |name: &str| {
        let key = names.keys.iter().position(|key| key == name)?;
        let held = model.held(u8::try_from(key).unwrap())?;
        Some(&names.texts[usize::from(held.text)])
    };
    let story = || {
        let seen = ends.iter().map(|end| format!("{:?}", end.answers));
        format!("{:#?}\n{}", names.keys, seen.collect::<Vec<_>>().join("\n"))
    };
    for key in &names.keys {
        let Some(bytes) = find(key).filter(|_| key.starts_with(&location.entries())) else {
            continue;
        };
        let entry = Entry::decode_unverified(bytes).unwrap();
        let objects = entry.statement.objects.iter();
        for object in objects.filter(|object| !object.inline) {
            let part = location.part(&object.digest, 0).unwrap();
            let is_whole = find(part.as_str()).is_some_and(|bytes| bytes.as_ref() == ARCHIVE);
            assert!(
                is_whole,
                "{key} names what is gone; what the actors saw:\n{}",
                story()
            );
        }
    }
    for build in builds {
        let entry = location.entry(&Domain::unsigned(), &key(build)).unwrap();
        assert!(
            find(entry.as_str()).is_some(),
            "{build} is gone:\n{}",
            story()
        );
    }
}

/// A cache of which an old build was condemned. Its entries are gone; its object is about to go.
fn condemned() -> (Model, Arc<Mutex<Names>>) {
    let names = Arc::new(Mutex::new(Names::default()));
    let mut model = Model {
        held: Vec::new(),
        writes: Vec::new(),
        hour: 0,
    };
    for (mut actor, pause) in [(Actor::writer("old"), 24 * 30), (Actor::collector(), 2)] {
        let mut place = actor.learn(Vec::new(), &names, model.hour);
        while let Some(call) = actor.nodes[place].next {
            let answer = model.answer(call, &names.lock().unwrap());
            place = actor.step(place, answer, &names, model.hour);
        }
        model.hour += pause;
    }
    let entries = "gs://team".parse::<CacheLocation>().unwrap().entries();
    for (key, name) in (0..).zip(&names.lock().unwrap().keys) {
        if name.starts_with(&entries) {
            model.hold(key, None);
        }
    }
    let left = model.held.iter().flatten().count();
    assert_eq!(left, 2, "the object and the mark");
    (model, names)
}

/// Visits them all; that there are at least so many shows that the actors do meet.
fn explore_from_condemned(builds: &[&'static str], collectors: usize, least: usize) {
    let (start, names) = condemned();
    let states = explore(&start, &names, builds, collectors);
    assert!(
        states >= least,
        "{builds:?}, {collectors} collectors: {states} states"
    );
}

#[test]
fn no_order_of_three_leaves_an_entry_without_its_objects() {
    explore_from_condemned(&["one"], 1, 100);
    explore_from_condemned(&["one", "two"], 0, 300);
    explore_from_condemned(&["one"], 2, 3000);
    explore_from_condemned(&["one", "two"], 1, 20_000);
}

#[test]
fn no_order_of_two_writers_and_two_collectors_leaves_an_entry_without_its_objects() {
    explore_from_condemned(&["one", "two"], 2, 1_000_000);
}
