//! The caches of one run: which they are, what they know, and how it went.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use forebay_store::{ObjectDigest, ObjectInfo, RecipeKey, Store};
use jiff::Timestamp;

use super::key::{Domain, SigningKey};
use super::known::Known;
use super::location::CacheLocation;
use super::patience::Patience;
use super::remote::{OpenBucket, Remote};
use super::settings::{CacheOptions, Trust};
use crate::bucket::StorageGeneration;

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
    pub(super) bringing: Mutex<()>,
    pub(super) has_closure: AtomicBool,
    pub(super) brought: AtomicU64,
    pub(super) missed: AtomicUsize,
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

    pub(super) fn known(&self) -> MutexGuard<'_, Known> {
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

    /// Everything that entries have named so far.
    pub fn named(&self) -> Vec<ObjectInfo> {
        self.known().objects().collect()
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
