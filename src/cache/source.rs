//! The caches as the store's source: objects come when they are read.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use forebay_store::{ObjectDigest, ObjectInfo, Realisation, RecipeKey, Source, Store, StoreError};
use futures_util::stream::{self, StreamExt as _};

use super::client::Cache;
use super::remote::{CacheError, describe};

/// Objects that are brought at the same time: each needs the memory of one part.
const AT_ONCE: usize = 4;

impl Cache {
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
