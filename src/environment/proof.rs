//! Whether a generation can be had: its images from the registry or from what this machine
//! has built, its DAG files from the bucket or from the store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use forebay_store::ObjectDigest;

use super::drift::by_key;
use super::record::{GenerationRecord, RecordedImage};
use super::{Environment, EnvironmentError};
use crate::bucket::Listing;
use crate::oci::Repository;
use crate::registry::{FetchedManifest, ImageToPush, ManifestName, Registry, RegistryError};

/// Opens another repository for reading: a base image's, or one of earlier generations. Makes no
/// request.
pub type OpenRepository =
    Arc<dyn Fn(&Repository) -> Result<Arc<dyn Registry>, RegistryError> + Send + Sync>;

/// What was found out about a generation.
#[derive(Default)]
pub(super) struct Proof {
    /// What is gone, in words.
    pub(super) missing: Vec<String>,
    /// Images that are there, but whose tag is gone or names another.
    pub(super) untagged: Vec<FetchedManifest>,
    /// Images that the registry has lost, and this machine can push again.
    pub(super) lost: Vec<ImageToPush>,
    /// DAG files that the bucket has lost, and that can be had nevertheless.
    pub(super) reclaimed: BTreeSet<ObjectDigest>,
}

impl Environment {
    /// One request per image, and none for DAGs that this machine has.
    pub(super) async fn prove(
        &self,
        record: &GenerationRecord,
        listing: &Listing,
    ) -> Result<Proof, EnvironmentError> {
        let mut proof = Proof::default();
        for image in &record.images {
            self.prove_image(image, &mut proof).await?;
        }
        let (missing, reclaimed) = self.lost_dags(record, listing).await?;
        proof.missing.extend(missing);
        proof.reclaimed = reclaimed;
        Ok(proof)
    }

    async fn prove_image(
        &self,
        image: &RecordedImage,
        proof: &mut Proof,
    ) -> Result<(), EnvironmentError> {
        if let Some(elsewhere) = self.elsewhere(image) {
            proof.missing.push(elsewhere.to_string());
            return Ok(());
        }
        let tag = ManifestName::Tag(image.tag()?);
        let tagged = self.registry.manifest_descriptor(&tag).await?;
        if tagged.is_some_and(|descriptor| descriptor.digest == image.digest) {
            return Ok(());
        }
        let name = ManifestName::Digest(image.digest);
        if let Some(manifest) = self.registry.manifest(&name).await? {
            proof.untagged.push(manifest);
        } else if let Some(again) = self.reopen(image).await? {
            proof.lost.push(again);
        } else {
            let RecordedImage {
                repository, digest, ..
            } = image;
            proof
                .missing
                .push(format!("the image {repository}@{digest}"));
        }
        Ok(())
    }

    /// An image from this machine's store, if all of it can be had: what the store has not,
    /// the base's layers, must be in the registry still or in the base's repository.
    async fn reopen(&self, image: &RecordedImage) -> Result<Option<ImageToPush>, EnvironmentError> {
        let Some(shelved) = self.local.shelved(image.digest).await? else {
            return Ok(None);
        };
        // Whatever keeps us from the base's repository only means that it does not help.
        let base = match (&self.open_repository, shelved.base()) {
            (Some(open), Some(repository)) => open(&repository).ok(),
            _ => None,
        };
        for layer in shelved.base_layers() {
            if self.registry.has_blob(&layer.digest).await? {
                continue;
            }
            let in_base = match &base {
                Some(base) => base.has_blob(&layer.digest).await.unwrap_or(false),
                None => false,
            };
            if !in_base {
                return Ok(None);
            }
        }
        self.local.to_push(shelved, base).await.map(Some)
    }

    /// The DAG files of a record that are neither live, nor here, nor kept in the bucket: those
    /// that are nowhere, in words, and those that a cache has.
    pub(super) async fn lost_dags(
        &self,
        record: &GenerationRecord,
        listing: &Listing,
    ) -> Result<(Vec<String>, BTreeSet<ObjectDigest>), EnvironmentError> {
        let live = by_key(listing);
        let mut wanted = BTreeMap::new();
        for (key, dag) in &record.dags {
            let object = live.get(key.as_str());
            if !object.is_some_and(|object| dag.checksums.matches(object))
                && self.local.get(dag.object).await?.is_none()
            {
                wanted.insert(self.key.object(&dag.object)?.to_string(), (key, dag.object));
            }
        }
        if !wanted.is_empty() {
            for object in self.bucket.list(&self.key.objects_prefix()).await?.objects {
                wanted.remove(&object.key);
            }
        }
        let mut reclaimed = BTreeSet::new();
        if !wanted.is_empty() {
            let objects = wanted.values().map(|(_, object)| *object).collect();
            reclaimed = self.local.seek_dags(record, objects).await?;
            wanted.retain(|_, (_, object)| !reclaimed.contains(object));
        }
        let missing = wanted.values().map(|(key, _)| format!("the file {key}"));
        Ok((missing.collect(), reclaimed))
    }
}
