//! Images in a directory: the OCI image layout (image specification, "Image Layout").
//!
//! `oci-layout`, `index.json` (a tag is the annotation
//! `org.opencontainers.image.ref.name`) and `blobs/sha256/<hex>`. The directory
//! is made by the first write. Order of writes: a blob is synced before it is
//! visible, and `index.json` names a manifest only after its blobs are there.

mod blobs;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzzing;
mod index;

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::verified::VerifiedReader;
use super::{BlobOutcome, FetchedManifest, ManifestName, Referrer, Registry, RegistryError};
use crate::oci::{BlobSource, Descriptor, MediaType, Repository, Sha256Digest, Tag};

use blobs::BlobDirectory;

/// The largest manifest that is read (registries refuse those above 4 MiB).
const MAX_MANIFEST: u64 = 8 << 20;

/// A repository in a directory.
pub(super) struct Layout {
    repository: Repository,
    path: PathBuf,
    blobs: BlobDirectory,
}

impl Layout {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            repository: Repository::Layout { path: path.clone() },
            blobs: BlobDirectory::new(&path),
            path,
        }
    }

    fn read_manifest(&self, name: &ManifestName) -> Result<Option<FetchedManifest>, RegistryError> {
        let listed = index::find(&self.path, name)?;
        let (digest, media_type) = match (listed, name) {
            (Some(descriptor), _) => (descriptor.digest, Some(descriptor.media_type)),
            // Manifests within an index are blobs that `index.json` does not name.
            (None, ManifestName::Digest(digest)) => (*digest, None),
            (None, ManifestName::Tag(_)) => return Ok(None),
        };
        let Some(size) = self.blobs.size(&digest)? else {
            return Ok(None);
        };
        if size > MAX_MANIFEST {
            return Err(RegistryError::Malformed {
                what: format!("the manifest {digest} in {}", self.repository),
                problem: format!("it has {size} bytes"),
            });
        }
        let mut descriptor = Descriptor {
            media_type: media_type.clone().unwrap_or_else(|| MediaType::new("")),
            digest,
            size,
            annotations: Default::default(),
        };
        let mut bytes = Vec::new();
        self.blobs
            .open(&descriptor)?
            .read_to_end(&mut bytes)
            .map_err(|source| self.blobs.read_error(&digest, source))?;
        match media_type.or_else(|| own_media_type(&bytes)) {
            Some(media_type) => descriptor.media_type = media_type,
            None => return Ok(None),
        }
        Ok(Some(FetchedManifest {
            descriptor,
            bytes: bytes.into(),
        }))
    }

    fn write_manifest(
        &self,
        name: &ManifestName,
        media_type: &MediaType,
        bytes: &Bytes,
    ) -> Result<(), RegistryError> {
        let descriptor = Descriptor::of(media_type.clone(), bytes);
        if let ManifestName::Digest(digest) = name
            && *digest != descriptor.digest
        {
            return Err(RegistryError::Damaged {
                what: "the manifest to write".to_owned(),
                expected: digest.to_string(),
                actual: descriptor.digest.to_string(),
            });
        }
        let mut missing = Vec::new();
        for digest in named_digests(bytes)? {
            if self.blobs.size(&digest)?.is_none() {
                missing.push(digest);
            }
        }
        if !missing.is_empty() {
            return Err(RegistryError::BlobsMissing {
                repository: self.repository.to_string(),
                digests: missing,
            });
        }
        self.blobs.write(&descriptor, &mut bytes.as_ref())?;
        index::insert(&self.path, name, &descriptor)
    }
}

/// What a manifest says of itself, or what its members make it.
fn own_media_type(bytes: &[u8]) -> Option<MediaType> {
    let manifest: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    if let Some(media_type) = manifest.get("mediaType").and_then(|value| value.as_str()) {
        return Some(MediaType::new(media_type));
    }
    if manifest.get("manifests").is_some() {
        Some(MediaType::new(MediaType::OCI_INDEX))
    } else if manifest.get("layers").is_some() && manifest.get("config").is_some() {
        Some(MediaType::new(MediaType::OCI_MANIFEST))
    } else {
        None
    }
}

/// What makes a manifest a referrer.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct WithSubject {
    subject: Option<Descriptor>,
    artifact_type: Option<String>,
}

/// Every digest that a manifest or an index names and needs.
fn named_digests(bytes: &[u8]) -> Result<Vec<Sha256Digest>, RegistryError> {
    #[derive(serde::Deserialize)]
    struct Named {
        digest: Sha256Digest,
    }
    #[derive(serde::Deserialize)]
    struct Manifest {
        config: Option<Named>,
        #[serde(default)]
        layers: Vec<Named>,
        #[serde(default)]
        manifests: Vec<Named>,
    }
    let manifest: Manifest =
        serde_json::from_slice(bytes).map_err(|error| RegistryError::Malformed {
            what: "the manifest to write".to_owned(),
            problem: error.to_string(),
        })?;
    Ok((manifest.config.into_iter())
        .chain(manifest.layers)
        .chain(manifest.manifests)
        .map(|named| named.digest)
        .collect())
}

#[async_trait]
impl Registry for Layout {
    fn repository(&self) -> &Repository {
        &self.repository
    }

    async fn manifest_descriptor(
        &self,
        name: &ManifestName,
    ) -> Result<Option<Descriptor>, RegistryError> {
        Ok(self
            .read_manifest(name)?
            .map(|manifest| manifest.descriptor))
    }

    async fn manifest(
        &self,
        name: &ManifestName,
    ) -> Result<Option<FetchedManifest>, RegistryError> {
        self.read_manifest(name)
    }

    async fn has_blob(&self, digest: &Sha256Digest) -> Result<bool, RegistryError> {
        Ok(self.blobs.size(digest)?.is_some())
    }

    async fn blob(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send>, RegistryError> {
        let reader: VerifiedReader<_> = self.blobs.open(descriptor)?;
        Ok(Box::new(reader))
    }

    async fn put_blob(
        &self,
        blob: &Arc<dyn BlobSource>,
        _mount_candidates: &[Repository],
    ) -> Result<BlobOutcome, RegistryError> {
        let descriptor = blob.descriptor().clone();
        if self.blobs.size(&descriptor.digest)? == Some(descriptor.size) {
            return Ok(BlobOutcome::Present);
        }
        let (blob, blobs) = (Arc::clone(blob), self.blobs.clone());
        run_blocking(move || {
            let mut reader = blob.open().map_err(|source| RegistryError::Io {
                action: format!("cannot read the blob {}", descriptor.digest),
                source,
            })?;
            blobs.write(&descriptor, &mut reader)
        })
        .await?;
        Ok(BlobOutcome::Uploaded)
    }

    async fn put_manifest(
        &self,
        name: &ManifestName,
        media_type: &MediaType,
        bytes: Bytes,
    ) -> Result<(), RegistryError> {
        let layout = Self::new(self.path.clone());
        let (name, media_type) = (name.clone(), media_type.clone());
        run_blocking(move || layout.write_manifest(&name, &media_type, &bytes)).await
    }

    async fn delete_tag(&self, tag: &Tag) -> Result<bool, RegistryError> {
        index::remove(&self.path, tag)?;
        Ok(true)
    }

    async fn tags(&self) -> Result<Vec<Tag>, RegistryError> {
        index::tags(&self.path)
    }

    async fn referrers(&self, digest: &Sha256Digest) -> Result<Vec<Referrer>, RegistryError> {
        let mut referrers = Vec::new();
        for descriptor in index::manifests(&self.path)? {
            let name = ManifestName::Digest(descriptor.digest);
            if let Some(manifest) = self.read_manifest(&name)?
                && let Ok(subject) = serde_json::from_slice::<WithSubject>(&manifest.bytes)
                && subject
                    .subject
                    .is_some_and(|subject| subject.digest == *digest)
            {
                referrers.push(Referrer {
                    descriptor: manifest.descriptor,
                    artifact_type: subject.artifact_type,
                });
            }
        }
        Ok(referrers)
    }
}

async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RegistryError> + Send + 'static,
) -> Result<T, RegistryError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| {
            Err(RegistryError::Io {
                action: "a write to an image layout was interrupted".to_owned(),
                source: std::io::Error::other(error),
            })
        })
}
