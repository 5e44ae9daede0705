//! The caches of one run, as the store's source.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use forebay_store::{ObjectDigest, ObjectInfo, Realisation, RecipeKey, Source, Store, StoreError};
use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt as _};
use jiff::Timestamp;

use super::key::{Domain, SigningKey};
use super::known::Known;
use super::location::CacheLocation;
use super::mark::Mark;
use super::patience::Patience;
use super::remote::{CacheError, OpenBucket, Remote, describe};
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
    known: Mutex<Known>,
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
            let is_unsigned = trust == Trust::Unsigned;
            let trusted = trusted.clone();
            remotes.push(Remote::new(location, trusted, is_unsigned, patience, open));
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
            known: Mutex::default(),
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

    /// The cache that what is built is brought to.
    pub fn written(&self) -> Option<&CacheLocation> {
        let remote = self.remotes.get(self.target.as_ref()?.remote)?;
        Some(&remote.location)
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
        let known = self.known();
        let looked_up = store.shared().into_iter();
        let found = looked_up.filter(|key| known.has(key));
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
        self.known().losses()
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

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What an object is, if the target's entries name it and it was not lost.
    pub(super) fn info_in_target(&self, digest: &ObjectDigest) -> Option<ObjectInfo> {
        self.known().info_in(self.target.as_ref()?.remote, digest)
    }

    /// Whether an object could not be had although an entry names it.
    pub(super) fn is_lost(&self, digest: &ObjectDigest) -> bool {
        self.known().is_lost(digest)
    }

    pub(super) fn mark_before(&self) -> Option<StorageGeneration> {
        self.known().mark
    }

    /// What the target's entries said of a recipe, if none of its objects was lost.
    pub(super) fn stored(&self, key: &RecipeKey) -> Option<BTreeMap<String, ObjectDigest>> {
        self.known().stored(key).cloned()
    }

    /// When the target's own entry of this build was written, if it has one.
    pub(super) fn closure_written(&self) -> Option<Timestamp> {
        self.known().closure_written
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

    /// Asks one cache after the other for one recipe, until one knows it: a second one is of
    /// use only for what the first one lacks.
    async fn ask(&self, key: &RecipeKey) -> bool {
        for remote in 0..self.remotes.len() {
            if self.ask_one(remote, key).await {
                return true;
            }
        }
        false
    }

    /// Asks one cache for one recipe, in every domain at once. The order of the keys decides
    /// whose answer counts.
    async fn ask_one(&self, number: usize, key: &RecipeKey) -> bool {
        let Some(remote) = self.remotes.get(number) else {
            return false;
        };
        if !self.known().asks(number, *key) {
            return false;
        }
        let domains = remote.domains();
        let asked = domains.iter().map(|domain| remote.entry(domain, key));
        let answers = join_all(asked).await;
        let is_closure = self.closure().is_some_and(|closure| closure.exact == *key);
        let mut known = self.known();
        let mut found = false;
        for (domain, entry) in domains.iter().zip(answers) {
            let Some(entry) = entry else { continue };
            let target = self.target.as_ref();
            let is_target = target.is_some_and(|t| t.remote == number && t.domain == *domain);
            if is_target && is_closure {
                known.closure_written = Some(entry.statement.created);
            }
            known.take_in(number, is_target, entry);
            found = true;
        }
        found
    }

    /// Loads the entry of the build, or that of the latest one.
    pub(super) fn load(&self, store: &Store) {
        let Some(closure) = self.closure() else {
            return;
        };
        if !self.known().seeks(closure.exact) {
            return;
        }
        self.wait(async || {
            if let Some(target) = &self.target
                && let Some(remote) = self.remotes.get(target.remote)
            {
                let mark = Mark::find(remote).await.ok().flatten();
                self.known().mark = mark.map(|(_, object)| object.generation);
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

    /// Loads what the target has of this build or the latest one, if another cache has answered
    /// so far.
    pub(super) fn load_target(&self) {
        if let (Some(closure), Some(target)) = (self.closure(), &self.target) {
            let number = target.remote;
            self.wait(async || {
                let _ = self.ask_one(number, &closure.exact).await
                    || self.closure_written().is_some()
                    || self.ask_one(number, &closure.latest).await;
            });
        }
    }

    /// Puts the documents of a realisation that came inside an entry into the store, and the
    /// realisation itself, so that the next build needs no cache for it.
    fn keep(&self, store: &Store, key: &RecipeKey, known: &Realisation) -> Result<(), StoreError> {
        let mut batch = store.begin()?;
        for digest in known.outputs.values() {
            let bytes = self.known().inline(digest);
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
        let known = self.known();
        for bytes in known.inlines() {
            batch.put(bytes)?;
        }
        for (key, realisation) in known.realisations() {
            batch.realise(key, realisation)?;
        }
        drop(known);
        batch.commit()
    }

    /// Everything that entries have named so far.
    pub fn named(&self) -> Vec<ObjectInfo> {
        self.known().objects().collect()
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

    /// An object's bytes from a cache whose entries name it; else from any: bytes are what
    /// their digest says, wherever they lie.
    async fn fetch(&self, digest: &ObjectDigest, folder: &Path) -> Option<std::fs::File> {
        let info = self.known().info(digest)?;
        let is_named = |number: usize| self.known().is_named_by(number, digest);
        let (named, others): (Vec<usize>, Vec<usize>) =
            (0..self.remotes.len()).partition(|number| is_named(*number));
        let named = named.into_iter().map(|number| (number, true));
        for (number, is_named) in named.chain(others.into_iter().map(|number| (number, false))) {
            let Some(remote) = self.remotes.get(number) else {
                continue;
            };
            match remote.object(&info, folder).await {
                Ok(Some(file)) => return Some(file),
                Ok(None) if is_named => remote.complain(format!(
                    "the object {digest} is missing or damaged, and what needs it is built again"
                )),
                Ok(None) | Err(CacheError::Off) => {}
                Err(error) => remote.complain(describe(&error)),
            }
        }
        self.known().lose(*digest);
        None
    }
}

impl Source for Cache {
    fn realisation(&self, store: &Store, key: &RecipeKey) -> Option<Realisation> {
        self.load(store);
        let is_open = self.known().realisation(key).is_none();
        if is_open && self.known().seeks(*key) {
            self.wait(async || self.ask(key).await);
        }
        let Some(known) = self.known().realisation(key) else {
            self.missed.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        // A store that cannot be written will say so itself, to whoever writes next.
        let _ = self.keep(store, key, &known);
        Some(known)
    }

    fn info(&self, digest: &ObjectDigest) -> Option<ObjectInfo> {
        self.known().info(digest)
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
            let inline = self.known().inline(digest);
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
