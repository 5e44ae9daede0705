//! The caches of one run, as the store's source.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use forebay_store::{ObjectDigest, ObjectInfo, Realisation, RecipeKey, Source, Store, StoreError};
use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt as _};
use jiff::Timestamp;
use tokio::sync::OnceCell;

use super::collect::Mark;
use super::entry::Entry;
use super::key::{Domain, SigningKey};
use super::location::CacheLocation;
use super::remote::{CacheError, OpenBucket, Patience, Remote, describe};
use super::settings::{CacheOptions, Trust};
use crate::bucket::StorageGeneration;

/// Objects that are brought at the same time: each needs the memory of one part.
const AT_ONCE: usize = 4;

/// The recipes under which a whole build is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closure {
    /// Everything that decides what the build looks up, as far as that is cheap to know.
    pub exact: RecipeKey,
    /// The project's environment: the build that was written last.
    pub latest: RecipeKey,
}

/// The caches of one run: what they know, and what has come of it.
pub struct Cache {
    pub(super) remotes: Vec<Remote>,
    /// Which of them is written, and for whom.
    pub(super) target: Option<Target>,
    refused: Vec<CacheLocation>,
    closure: OnceLock<Closure>,
    runtime: OnceLock<Option<tokio::runtime::Runtime>>,
    state: Mutex<State>,
    /// One at a time brings objects, several of them at once.
    bringing: Mutex<()>,
    has_closure: AtomicBool,
    brought: AtomicU64,
    missed: AtomicUsize,
}

/// Where what was built is brought.
pub(super) struct Target {
    pub(super) remote: usize,
    pub(super) domain: Domain,
    pub(super) signer: Option<SigningKey>,
}

/// What entries have said so far.
#[derive(Default)]
struct State {
    realisations: HashMap<RecipeKey, Realisation>,
    /// Objects that entries name, and the caches whose entries those are.
    objects: HashMap<ObjectDigest, (ObjectInfo, BTreeSet<usize>)>,
    /// Small ones that came with the entries.
    inline: HashMap<ObjectDigest, bytes::Bytes>,
    /// Recipes that were asked for one by one.
    asked: BTreeSet<RecipeKey>,
    /// What could not be had although an entry names it.
    lost: BTreeSet<ObjectDigest>,
    /// When the build's own entry was written, and by which cache it was given.
    found: Option<(usize, Domain, Timestamp)>,
    /// Which mark of the collector the target had before anything was looked up.
    mark: Option<StorageGeneration>,
    /// What is in the target already, under its own key, by its outputs.
    stored: BTreeMap<RecipeKey, BTreeMap<String, ObjectDigest>>,
}

impl Cache {
    /// The caches that the user wants. Makes no request and opens nothing.
    pub fn new(options: CacheOptions, patience: Patience, store: &Path, open: &OpenBucket) -> Self {
        let mut remotes = Vec::new();
        let mut refused = Vec::new();
        let mut target = None;
        let mut trusted = options.trusted.clone();
        trusted.extend(options.signing_key.iter().map(|key| key.public().clone()));
        for location in &options.locations {
            let trust = options.trust(location, store);
            if trust == Trust::Nothing {
                refused.push(location.clone());
                continue;
            }
            if target.is_none() && options.writes(trust) {
                target = Some(remotes.len());
            }
            remotes.push(Remote {
                location: location.clone(),
                trusted: trusted.clone(),
                unsigned: trust == Trust::Unsigned,
                patience,
                open: OpenBucket::clone(open),
                bucket: OnceCell::new(),
                off: AtomicBool::new(false),
                requests: AtomicU64::new(0),
                complaints: Mutex::default(),
            });
        }
        let signer = options.signing_key;
        Self {
            target: target.map(|remote| Target {
                remote,
                domain: match &signer {
                    Some(key) => key.public().domain.clone(),
                    None => Domain::unsigned(),
                },
                signer,
            }),
            remotes,
            refused,
            closure: OnceLock::new(),
            runtime: OnceLock::new(),
            state: Mutex::default(),
            bringing: Mutex::default(),
            has_closure: AtomicBool::new(false),
            brought: AtomicU64::new(0),
            missed: AtomicUsize::new(0),
        }
    }

    /// Says which build is about to be looked up. The first answer counts.
    pub fn expect(&self, closure: Closure) {
        let _ = self.closure.set(closure);
    }

    /// Whether what is built is brought to a cache.
    pub fn writes(&self) -> bool {
        self.target.is_some()
    }

    /// Caches of which nothing is believed, since no key is trusted.
    pub fn refused(&self) -> &[CacheLocation] {
        &self.refused
    }

    /// Requests so far.
    pub fn requests(&self) -> u64 {
        let remotes = self.remotes.iter();
        remotes
            .map(|remote| remote.requests.load(Ordering::Relaxed))
            .sum()
    }

    /// How many results `store` looked up that came from a cache, and how many it asked for in
    /// vain.
    pub fn answers(&self, store: &Store) -> (usize, usize) {
        let state = self.state();
        let looked_up = store.shared().into_iter();
        let found = looked_up.filter(|key| state.realisations.contains_key(key));
        (found.count(), self.missed.load(Ordering::Relaxed))
    }

    /// Objects that were brought, not counting the documents inside entries.
    pub fn brought(&self) -> u64 {
        self.brought.load(Ordering::Relaxed)
    }

    /// Whether the build's own entry was found.
    pub fn has_closure(&self) -> bool {
        self.has_closure.load(Ordering::Relaxed)
    }

    /// How many objects could not be had although an entry names them. Whoever failed for
    /// want of one may try again if the number has grown: it is no longer promised.
    pub fn losses(&self) -> usize {
        self.state().lost.len()
    }

    /// What was wrong with the caches, as one warning; none if nothing was. Said once.
    pub fn warning(&self) -> Option<String> {
        let mut lines = Vec::new();
        for remote in &self.remotes {
            let mut complaints = remote
                .complaints
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if !complaints.is_empty() {
                let all = complaints.drain(..).collect::<Vec<_>>().join("; ");
                lines.push(format!("the cache {}: {all}", remote.location));
            }
        }
        (!lines.is_empty()).then(|| lines.join("\n"))
    }

    pub(super) fn closure(&self) -> Option<Closure> {
        self.closure.get().copied()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What an object is, if the target's entries name it and it was not lost.
    pub(super) fn info_in_target(&self, digest: &ObjectDigest) -> Option<ObjectInfo> {
        let state = self.state();
        let target = self.target.as_ref()?.remote;
        let (info, remotes) = state.objects.get(digest)?;
        let is_there = remotes.contains(&target) && !state.lost.contains(digest);
        is_there.then_some(*info)
    }

    pub(super) fn mark_before(&self) -> Option<StorageGeneration> {
        self.state().mark
    }

    /// What the target's entries said of a recipe, if none of its objects was lost.
    pub(super) fn stored(&self, key: &RecipeKey) -> Option<BTreeMap<String, ObjectDigest>> {
        let state = self.state();
        let outputs = state.stored.get(key)?;
        let is_whole = outputs.values().all(|digest| !state.lost.contains(digest));
        is_whole.then(|| outputs.clone())
    }

    /// When the build's own entry was written, if it is the target's own.
    pub(super) fn closure_age(&self) -> Option<Timestamp> {
        let state = self.state();
        let (remote, domain, created) = state.found.as_ref()?;
        let target = self.target.as_ref()?;
        (*remote == target.remote && *domain == target.domain).then_some(*created)
    }

    /// Runs requests and waits for them, whoever asks: also from inside another runtime. None
    /// if the system gives no thread.
    pub(super) fn wait<T: Send>(&self, work: impl AsyncFnOnce() -> T + Send) -> Option<T> {
        let runtime = self.runtime.get_or_init(|| {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            builder.enable_all().build().ok()
        });
        let runtime = runtime.as_ref()?;
        std::thread::scope(|scope| scope.spawn(|| runtime.block_on(work())).join().ok())
    }

    /// Asks every cache in every domain for one recipe, all at once, and takes in the answers
    /// in the order of the list. True if there was one.
    async fn ask(&self, key: &RecipeKey) -> bool {
        let scopes: Vec<(usize, Domain)> = self
            .remotes
            .iter()
            .enumerate()
            .flat_map(|(index, remote)| {
                let domains = remote.domains().into_iter();
                domains.map(move |domain| (index, domain))
            })
            .collect();
        let asked = scopes.iter().map(|(index, domain)| async move {
            match self.remotes.get(*index) {
                Some(remote) => remote.entry(domain, key).await,
                None => None,
            }
        });
        let answers = join_all(asked).await;
        let mut found = false;
        for ((remote, domain), entry) in scopes.into_iter().zip(answers) {
            if let Some(entry) = entry {
                self.take_in(remote, domain, entry);
                found = true;
            }
        }
        found
    }

    fn take_in(&self, remote: usize, domain: Domain, entry: Entry) {
        let mut state = self.state();
        let is_target = self
            .target
            .as_ref()
            .is_some_and(|target| target.remote == remote && target.domain == domain);
        for object in &entry.statement.objects {
            let info = object.info();
            let known = state.objects.entry(info.digest);
            known
                .or_insert_with(|| (info, BTreeSet::new()))
                .1
                .insert(remote);
        }
        for (digest, bytes) in entry.inline() {
            state.inline.insert(digest, bytes.clone());
        }
        let is_closure = self
            .closure()
            .is_some_and(|closure| closure.exact == entry.statement.key);
        if is_closure && state.found.is_none() {
            state.found = Some((remote, domain, entry.statement.created));
        }
        for (key, outputs) in entry.statement.realisations {
            if is_target {
                state.stored.insert(key, outputs.clone());
            }
            // A whole build's own word counts before that of another.
            state
                .realisations
                .entry(key)
                .or_insert(Realisation { outputs });
        }
    }

    /// Loads the entry of the build, or that of the latest one.
    pub(super) fn load(&self, store: &Store) {
        let Some(closure) = self.closure() else {
            return;
        };
        if !self.state().asked.insert(closure.exact) {
            return;
        }
        self.wait(async || {
            if let Some(target) = &self.target
                && let Some(remote) = self.remotes.get(target.remote)
            {
                let mark = Mark::find(remote).await.ok().flatten();
                self.state().mark = mark.map(|(_, object)| object.generation);
            }
            if self.ask(&closure.exact).await {
                self.has_closure.store(true, Ordering::Relaxed);
            } else {
                self.ask(&closure.latest).await;
            }
        });
        if self.has_closure() {
            // All at once: the rest of the build looks most of it up. A store that cannot be
            // written will say so itself.
            let _ = self.keep_closure(store);
        }
    }

    /// What is known of a recipe, if all of it can still be had.
    fn known(&self, key: &RecipeKey) -> Option<Realisation> {
        let state = self.state();
        let known = state.realisations.get(key)?;
        let is_whole = known
            .outputs
            .values()
            .all(|digest| !state.lost.contains(digest));
        is_whole.then(|| known.clone())
    }

    /// Puts the documents of a realisation that came inside an entry into the store, and the
    /// realisation itself, so that the next build needs no cache for it.
    fn keep(&self, store: &Store, key: &RecipeKey, known: &Realisation) -> Result<(), StoreError> {
        let mut batch = store.begin()?;
        for digest in known.outputs.values() {
            let bytes = self.state().inline.get(digest).cloned();
            if let Some(bytes) = bytes {
                batch.put(&bytes)?;
            }
        }
        batch.realise(key, known)?;
        batch.commit()
    }

    /// Puts everything of the build's own entry into the store that is at hand.
    pub(super) fn keep_closure(&self, store: &Store) -> Result<(), StoreError> {
        let mut batch = store.begin()?;
        let state = self.state();
        for bytes in state.inline.values() {
            batch.put(bytes)?;
        }
        for (key, known) in &state.realisations {
            batch.realise(key, known)?;
        }
        drop(state);
        batch.commit()
    }

    /// Everything that entries have named so far.
    pub fn named(&self) -> Vec<ObjectInfo> {
        let state = self.state();
        state.objects.values().map(|(info, _)| *info).collect()
    }

    /// Whether a cache has this build. What its entry holds is in the store then.
    pub fn look(&self, store: &Store) -> bool {
        self.load(store);
        self.has_closure()
    }

    /// Looks the build up, and brings everything that its entry names. False if there is none.
    ///
    /// # Errors
    /// The store's.
    pub fn pull(&self, store: &Store) -> Result<bool, StoreError> {
        if !self.look(store) {
            return Ok(false);
        }
        let named: Vec<_> = self.named().into_iter().map(|info| info.digest).collect();
        store.bring(&named)?;
        Ok(true)
    }

    async fn fetch(&self, digest: &ObjectDigest, folder: &Path) -> Option<std::fs::File> {
        let known = self.state().objects.get(digest).cloned();
        let (info, remotes) = known?;
        for remote in remotes
            .into_iter()
            .filter_map(|index| self.remotes.get(index))
        {
            match remote.object(&info, folder).await {
                Ok(Some(file)) => return Some(file),
                Ok(None) => remote.complain(format!(
                    "the object {digest} is missing or damaged, and what needs it is built again"
                )),
                Err(CacheError::Off) => {}
                Err(error) => remote.complain(describe(&error)),
            }
        }
        self.state().lost.insert(*digest);
        None
    }
}

impl Source for Cache {
    fn realisation(&self, store: &Store, key: &RecipeKey) -> Option<Realisation> {
        self.load(store);
        if self.known(key).is_none() && self.state().asked.insert(*key) {
            self.wait(async || self.ask(key).await);
        }
        let Some(known) = self.known(key) else {
            self.missed.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        // A store that cannot be written will say so itself, to whoever writes next.
        let _ = self.keep(store, key, &known);
        Some(known)
    }

    fn info(&self, digest: &ObjectDigest) -> Option<ObjectInfo> {
        let state = self.state();
        if state.lost.contains(digest) {
            return None;
        }
        state.objects.get(digest).map(|(info, _)| *info)
    }

    fn bring(&self, store: &Store, digests: &[ObjectDigest]) -> Result<(), StoreError> {
        let _one_at_a_time = self.bringing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut batch = store.begin()?;
        let mut wanted = BTreeSet::new();
        for digest in digests {
            // Another thread may have brought it while this one waited.
            if self.info(digest).is_none() || store.local_info(digest)?.is_some() {
                continue;
            }
            let inline = self.state().inline.get(digest).cloned();
            match inline {
                Some(bytes) => {
                    batch.put(&bytes)?;
                }
                None => {
                    wanted.insert(*digest);
                }
            }
        }
        let folder = store.root().join("scratch");
        if !wanted.is_empty() && std::fs::create_dir_all(&folder).is_ok() {
            let fetched = self.wait(async || {
                stream::iter(&wanted)
                    .map(|digest| self.fetch(digest, &folder))
                    .buffer_unordered(AT_ONCE)
                    .filter_map(async |file| file)
                    .collect::<Vec<_>>()
                    .await
            });
            for mut file in fetched.into_iter().flatten() {
                batch.put_reader(&mut file)?;
                self.brought.fetch_add(1, Ordering::Relaxed);
            }
        }
        batch.commit()
    }
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_list().entries(&self.remotes).finish()
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        // A runtime may not be dropped inside another one in the usual way.
        if let Some(Some(runtime)) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
