//! What this machine's store knows of environments. It saves requests and
//! keeps bytes that a bucket may lose; nothing is true because it says so.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use forebay_store::{ObjectDigest, Realisation, Recipe, RecipeKey, RootName, Store, StoreError};

use super::{EnvironmentError, EnvironmentKey, GenerationRecord, RecordReference, RecordedImage};
use crate::bucket::BucketLocation;
use crate::image::Shelved;
use crate::oci::{Repository, Sha256Digest};
use crate::python::{recall, remember};
use crate::registry::{ImageToPush, Registry};

const RECORD: &str = "record";

/// The store, off the async threads.
#[derive(Clone)]
pub(super) struct Local {
    store: Arc<Store>,
}

impl Local {
    pub(super) fn new(store: Arc<Store>) -> Self {
        Self { store }
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, EnvironmentError> {
        let store = Arc::clone(&self.store);
        let result = tokio::task::spawn_blocking(move || work(&store)).await;
        Ok(result.map_err(EnvironmentError::Task)??)
    }

    /// The bytes of an object; `None` if they are not here or are damaged:
    /// whoever asks has another place to look.
    pub(super) async fn get(
        &self,
        digest: ObjectDigest,
    ) -> Result<Option<Bytes>, EnvironmentError> {
        self.run(move |store| match store.read(&digest) {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(
                StoreError::NotFound { .. } | StoreError::Lost { .. } | StoreError::Damaged { .. },
            ) => Ok(None),
            Err(error) => Err(error),
        })
        .await
    }

    /// An image that was built here, if all of its own parts are still here.
    pub(super) async fn shelved(
        &self,
        digest: Sha256Digest,
    ) -> Result<Option<Shelved>, EnvironmentError> {
        self.run(move |store| Shelved::find(store, &digest)).await
    }

    /// The image with the sources of its blobs.
    pub(super) async fn to_push(
        &self,
        shelved: Shelved,
        base: Option<Arc<dyn Registry>>,
    ) -> Result<ImageToPush, EnvironmentError> {
        // Small reads, and the base's layers are to be read on this runtime.
        Ok(shelved.to_push(&self.store, base)?)
    }

    /// What a collection must leave of images that were built here.
    pub(super) async fn image_objects(
        &self,
        images: Vec<Sha256Digest>,
    ) -> Result<Vec<ObjectDigest>, EnvironmentError> {
        self.run(move |store| {
            let mut objects = Vec::new();
            for image in &images {
                objects.extend(Shelved::objects(store, image)?);
            }
            Ok(objects)
        })
        .await
    }

    /// Keeps bytes, durably.
    pub(super) async fn put(&self, objects: Vec<Bytes>) -> Result<(), EnvironmentError> {
        if objects.is_empty() {
            return Ok(());
        }
        self.run(move |store| {
            let mut batch = store.begin()?;
            for bytes in &objects {
                batch.put(bytes)?;
            }
            batch.commit()
        })
        .await
    }

    /// Notes which DAG files a generation has, as far as they are here or can be had: whoever
    /// shares this store's caches finds them by that. `base` is what was live before, whose
    /// files a deploy uses again without having them.
    pub(super) async fn note_dags(
        &self,
        record: &GenerationRecord,
        base: Option<&GenerationRecord>,
    ) -> Result<(), EnvironmentError> {
        let objects = dag_objects(record);
        let earlier = base.map(dag_files_key).transpose()?;
        let key = dag_files_key(record)?;
        self.run(move |store| {
            let mut outputs = BTreeMap::new();
            let mut seeks = earlier;
            for digest in objects {
                if store.info(&digest)?.is_none()
                    && let Some(earlier) = seeks.take()
                {
                    store.realisation(&earlier)?;
                }
                if store.info(&digest)?.is_some() {
                    outputs.insert(digest.to_string(), digest);
                }
            }
            if !outputs.is_empty() {
                let mut batch = store.begin()?;
                batch.realise(&key, &Realisation { outputs })?;
                batch.commit()?;
                store.share(&key);
            }
            Ok(())
        })
        .await
    }

    /// Which of these DAG files of a record can be had from here, or from where others have
    /// noted them.
    pub(super) async fn seek_dags(
        &self,
        record: &GenerationRecord,
        wanted: Vec<ObjectDigest>,
    ) -> Result<BTreeSet<ObjectDigest>, EnvironmentError> {
        let key = dag_files_key(record)?;
        self.run(move |store| {
            store.realisation(&key)?;
            let mut found = BTreeSet::new();
            for digest in wanted {
                if store.info(&digest)?.is_some() {
                    found.insert(digest);
                }
            }
            Ok(found)
        })
        .await
    }

    /// The record that was live when this machine last looked.
    pub(super) async fn last_seen(
        &self,
        environment: &EnvironmentKey,
        bucket: &BucketLocation,
    ) -> Result<Option<ObjectDigest>, EnvironmentError> {
        let environment = environment.clone();
        let bucket = bucket.clone();
        self.run(move |store| {
            let seen = store.local_realisation(&last_seen_key(&environment, &bucket)?)?;
            Ok(seen.and_then(|seen| seen.outputs.get(RECORD).copied()))
        })
        .await
    }

    /// The repositories that are known to have had an image, whatever environment it was
    /// deployed to. The latest comes first.
    pub(super) async fn repositories_of(
        &self,
        image: Sha256Digest,
    ) -> Result<Vec<Repository>, EnvironmentError> {
        let known = self.run(move |store| known_repositories(store, &image));
        let known = known.await?.into_iter();
        Ok(known.filter_map(|name| name.parse().ok()).collect())
    }

    /// Remembers a live generation, and protects what it needs from collection.
    pub(super) async fn remember(
        &self,
        environment: &EnvironmentKey,
        bucket: &BucketLocation,
        reference: &RecordReference,
        objects: Vec<ObjectDigest>,
        images: &[RecordedImage],
    ) -> Result<(), EnvironmentError> {
        let environment = environment.clone();
        let bucket = bucket.clone();
        let images = images.to_vec();
        let RecordReference { generation, record } = *reference;
        self.run(move |store| {
            if store.local_info(&record)?.is_none() {
                return Ok(());
            }
            // Only what is here can be protected; the bucket has the rest.
            let mut kept = Vec::new();
            for object in objects {
                if store.local_info(&object)?.is_some() {
                    kept.push(object);
                }
            }
            let mut batch = store.begin()?;
            kept.push(record);
            for image in &images {
                let mut known = known_repositories(store, &image.digest)?;
                if known.first() != Some(&image.repository) {
                    known.retain(|name| *name != image.repository);
                    known.insert(0, image.repository.clone());
                    known.truncate(MOST_REPOSITORIES);
                }
                let recipe = repositories_recipe(&image.digest)?;
                kept.extend(remember(&mut batch, &recipe, &known)?);
            }
            if let Ok(root) = format!("generation/{environment}/{generation}").parse::<RootName>() {
                batch.set_root(&root, &kept)?;
            }
            let seen = Realisation {
                outputs: [(RECORD.to_owned(), record)].into(),
            };
            batch.realise(&last_seen_key(&environment, &bucket)?, &seen)?;
            batch.commit()
        })
        .await
    }
}

/// How many repositories are remembered for an image.
const MOST_REPOSITORIES: usize = 16;

fn known_repositories(store: &Store, image: &Sha256Digest) -> Result<Vec<String>, StoreError> {
    Ok(recall(store, &repositories_recipe(image)?)?.unwrap_or_default())
}

/// The recipe under which the repositories of an image are remembered.
fn repositories_recipe(image: &Sha256Digest) -> Result<Recipe, StoreError> {
    Recipe::new("image-repositories", 1, &image.to_string())
}

fn dag_objects(record: &GenerationRecord) -> BTreeSet<ObjectDigest> {
    record.dags.values().map(|dag| dag.object).collect()
}

/// The key under which the DAG files of a record are noted: the set of their digests.
fn dag_files_key(record: &GenerationRecord) -> Result<RecipeKey, StoreError> {
    Ok(Recipe::new("dag-files", 1, &dag_objects(record))?.key())
}

/// The key under which the last live record of an environment is remembered.
fn last_seen_key(
    environment: &EnvironmentKey,
    bucket: &BucketLocation,
) -> Result<RecipeKey, StoreError> {
    let inputs = [environment.to_string(), bucket.to_string()];
    Ok(Recipe::new("environment-last-seen", 1, &inputs)?.key())
}
