//! A registry in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use forebay::oci::{
    BlobSource, Descriptor, ImageManifest, MediaType, Repository, Sha256Digest, Tag,
};
use forebay::registry::{
    BlobOutcome, FetchedManifest, ManifestName, Referrer, Registry, RegistryError,
};

use super::faults::{Calls, Effect, Injected};

#[derive(Default)]
struct State {
    manifests: BTreeMap<Sha256Digest, FetchedManifest>,
    tags: BTreeMap<String, Sha256Digest>,
    blobs: BTreeSet<Sha256Digest>,
}

pub(crate) struct FakeRegistry {
    repository: Repository,
    state: Mutex<State>,
    calls: Arc<Calls>,
}

impl FakeRegistry {
    pub(crate) fn new(calls: Arc<Calls>) -> Self {
        Self::of("registry.test/hello", calls)
    }

    pub(crate) fn of(repository: &str, calls: Arc<Calls>) -> Self {
        Self {
            repository: repository.parse().unwrap(),
            state: Mutex::default(),
            calls,
        }
    }

    /// What a tag names.
    pub(crate) fn tagged(&self, tag: &str) -> Option<Sha256Digest> {
        self.state.lock().unwrap().tags.get(tag).copied()
    }

    /// What a clean-up policy does.
    pub(crate) fn collect(&self, digest: &Sha256Digest) {
        let mut state = self.state.lock().unwrap();
        state.manifests.remove(digest);
        state.tags.retain(|_, tagged| tagged != digest);
    }

    /// What a person does.
    pub(crate) fn untag(&self, tag: &str) {
        self.state.lock().unwrap().tags.remove(tag);
    }

    pub(crate) fn has(&self, digest: &Sha256Digest) -> bool {
        self.state.lock().unwrap().manifests.contains_key(digest)
    }

    async fn call<T>(
        &self,
        effect: Effect,
        what: String,
        apply: impl FnOnce(&mut State) -> Result<T, RegistryError> + Send,
    ) -> Result<T, RegistryError> {
        let injected = |_: Injected| RegistryError::Unreachable {
            registry: "registry.test".to_owned(),
            source: "injected".into(),
        };
        let number = self.calls.before(effect, what).await.map_err(injected)?;
        let result = apply(&mut self.state.lock().unwrap());
        self.calls.after(number).await.map_err(injected)?;
        result
    }
}

impl State {
    fn find(&self, name: &ManifestName) -> Option<&FetchedManifest> {
        let digest = match name {
            ManifestName::Digest(digest) => digest,
            ManifestName::Tag(tag) => self.tags.get(tag.as_str())?,
        };
        self.manifests.get(digest)
    }
}

#[async_trait]
impl Registry for FakeRegistry {
    fn repository(&self) -> &Repository {
        &self.repository
    }

    async fn manifest_descriptor(
        &self,
        name: &ManifestName,
    ) -> Result<Option<Descriptor>, RegistryError> {
        self.call(Effect::Reads, format!("HEAD manifest {name}"), |state| {
            Ok(state.find(name).map(|manifest| manifest.descriptor.clone()))
        })
        .await
    }

    async fn manifest(
        &self,
        name: &ManifestName,
    ) -> Result<Option<FetchedManifest>, RegistryError> {
        self.call(Effect::Reads, format!("GET manifest {name}"), |state| {
            Ok(state.find(name).cloned())
        })
        .await
    }

    async fn has_blob(&self, digest: &Sha256Digest) -> Result<bool, RegistryError> {
        self.call(Effect::Reads, format!("HEAD blob {digest}"), |state| {
            Ok(state.blobs.contains(digest))
        })
        .await
    }

    async fn blob(&self, _: &Descriptor) -> Result<Box<dyn Read + Send>, RegistryError> {
        unreachable!("an environment reads no blobs")
    }

    async fn put_blob(
        &self,
        blob: &Arc<dyn BlobSource>,
        _: &[Repository],
    ) -> Result<BlobOutcome, RegistryError> {
        let digest = blob.descriptor().digest;
        self.call(Effect::Writes, format!("PUT blob {digest}"), |state| {
            state.blobs.insert(digest);
            Ok(BlobOutcome::Uploaded)
        })
        .await
    }

    async fn put_manifest(
        &self,
        name: &ManifestName,
        media_type: &MediaType,
        bytes: Bytes,
    ) -> Result<(), RegistryError> {
        let manifest: ImageManifest = serde_json::from_slice(&bytes).unwrap();
        let descriptor = Descriptor::of(media_type.clone(), &bytes);
        self.call(Effect::Writes, format!("PUT manifest {name}"), |state| {
            let needed = manifest.layers.iter().chain([&manifest.config]);
            let missing: Vec<_> = needed
                .map(|blob| blob.digest)
                .filter(|digest| !state.blobs.contains(digest))
                .collect();
            if !missing.is_empty() {
                return Err(RegistryError::BlobsMissing {
                    repository: "registry.test/hello".to_owned(),
                    digests: missing,
                });
            }
            let digest = descriptor.digest;
            state
                .manifests
                .insert(digest, FetchedManifest { descriptor, bytes });
            if let ManifestName::Tag(tag) = name {
                state.tags.insert(tag.to_string(), digest);
            }
            Ok(())
        })
        .await
    }

    async fn delete_tag(&self, tag: &Tag) -> Result<bool, RegistryError> {
        self.call(Effect::Writes, format!("DELETE tag {tag}"), |state| {
            state.tags.remove(tag.as_str());
            Ok(true)
        })
        .await
    }

    async fn tags(&self) -> Result<Vec<Tag>, RegistryError> {
        self.call(Effect::Reads, "GET tags".to_owned(), |state| {
            Ok(state.tags.keys().map(|tag| tag.parse().unwrap()).collect())
        })
        .await
    }

    async fn referrers(&self, _: &Sha256Digest) -> Result<Vec<Referrer>, RegistryError> {
        unreachable!("an environment asks for no referrers")
    }
}
