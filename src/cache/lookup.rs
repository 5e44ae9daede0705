//! Asking caches for recipes, one after the other, and the entry of a whole build first.

use std::sync::atomic::Ordering;

use forebay_store::{Realisation, RecipeKey, Store, StoreError};
use futures_util::future::join_all;

use super::client::Cache;
use super::mark::Mark;

impl Cache {
    /// Asks one cache after the other for one recipe, until one knows it: a second one is of
    /// use only for what the first one lacks.
    pub(super) async fn ask(&self, key: &RecipeKey) -> bool {
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
    pub(super) fn keep(
        &self,
        store: &Store,
        key: &RecipeKey,
        known: &Realisation,
    ) -> Result<(), StoreError> {
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
}
