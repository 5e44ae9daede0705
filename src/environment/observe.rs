//! What an environment is at: one round trip deep when nothing has changed.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryFutureExt as _;
use futures_util::future::try_join3;
use jiff::Timestamp;

use super::head::{Head, LiveGeneration};
use super::record::{GenerationRecord, RecordReference, RecordedDag};
use super::{Environment, EnvironmentError};
use crate::bucket::{Listing, StorageGeneration};
use crate::oci::{ImageManifest, Sha256Digest};
use crate::registry::{FetchedManifest, ManifestName};
use forebay_store::ObjectDigest;

/// HEAD as it was read.
#[derive(Debug, Clone)]
pub(super) struct SeenHead {
    pub(super) head: Head,
    /// Absent only where HEAD was [foreseen](Live::foreseen).
    pub(super) generation: Option<StorageGeneration>,
    pub(super) updated: Timestamp,
    pub(super) server_time: Timestamp,
}

/// What an environment is at.
#[derive(Debug, Clone)]
pub struct Live {
    pub(super) seen: Option<SeenHead>,
    pub(super) listing: Listing,
    /// The live record, if this machine had it.
    pub(super) record: Option<Arc<GenerationRecord>>,
    /// Whether an image is in the registry, where that was asked.
    pub(super) image: Option<(Sha256Digest, bool)>,
    /// The manifest of another image that the registry has, and that this machine expected to be
    /// live: what is pushed onto it.
    pub(super) earlier: Option<FetchedManifest>,
    /// Files of BigFlow's that were adopted although nothing can bring them back.
    pub(super) lost: BTreeSet<String>,
    /// Whether this is only what would be.
    pub(super) foreseen: bool,
}

impl Live {
    /// HEAD, if the environment has one.
    pub fn head(&self) -> Option<&Head> {
        self.seen.as_ref().map(|seen| &seen.head)
    }

    /// The committed generation, if there is one.
    pub fn generation(&self) -> Option<&LiveGeneration> {
        self.head()?.live.as_ref()
    }

    /// The live generation's record, if it is known already: see [`Environment::with_record`].
    pub fn record(&self) -> Option<&GenerationRecord> {
        self.record.as_deref()
    }

    /// The objects in the environment's folder of DAG files.
    pub fn listing(&self) -> &Listing {
        &self.listing
    }

    /// Whether this is only what would be: see [`Environment::foresee_adoption`].
    pub fn is_foreseen(&self) -> bool {
        self.foreseen
    }

    /// Whether an image is known to be in the registry, or not to be.
    pub(super) fn image_is_present(&self, digest: &Sha256Digest) -> Option<bool> {
        let (asked, present) = self.image.as_ref()?;
        (asked == digest).then_some(*present)
    }

    /// The manifest of an image, if it was fetched.
    pub(super) fn fetched(&self, image: &Sha256Digest) -> Option<&FetchedManifest> {
        let mut earlier = self.earlier.iter();
        earlier.find(|earlier| earlier.descriptor.digest == *image)
    }
}

impl Environment {
    /// Reads HEAD and lists `dags/`, at the same time.
    ///
    /// `image` is what is to be deployed, if that is known already: if it may be what
    /// is live, the registry is asked for it. That happens at the same time, too. Where this
    /// machine has last seen another image live, its manifest is asked for instead, because the
    /// new image is pushed onto it.
    ///
    /// # Errors
    /// See [`EnvironmentError`].
    pub async fn observe(&self, image: Option<&Sha256Digest>) -> Result<Live, EnvironmentError> {
        let remembered = self.remembered().await?;
        let expected = remembered.as_ref().map(|(_, record)| record.image);
        let guess = image.filter(|image| expected.is_none_or(|expected| expected == **image));
        let other = image.and(expected).filter(|_| guess.is_none());
        let (seen, listing, (answer, earlier)) = try_join3(
            self.read_head(),
            self.bucket
                .list(self.options.dags_prefix.as_str())
                .map_err(EnvironmentError::from),
            async {
                Ok(match (guess, other) {
                    (Some(image), _) => (Some(self.has_image(image).await?), None),
                    (None, Some(other)) => {
                        let name = ManifestName::Digest(other);
                        (None, self.registry.manifest(&name).await?)
                    }
                    (None, None) => (None, None),
                })
            },
        )
        .await?;
        let live = seen.as_ref().and_then(|seen| seen.head.live.as_ref());
        let present = match (answer, image) {
            (None, Some(image)) if live.is_some_and(|live| live.image == *image) => {
                Some(self.has_image(image).await?)
            }
            (answer, _) => answer,
        };
        let record = remembered
            .filter(|(digest, _)| live.is_some_and(|live| live.reference.record == *digest))
            .map(|(_, record)| record);
        Ok(Live {
            image: image.copied().zip(present),
            earlier,
            seen,
            listing,
            record,
            lost: BTreeSet::new(),
            foreseen: false,
        })
    }

    /// The digest of the image that a tag or a digest names.
    ///
    /// # Errors
    /// [`EnvironmentError::ImageMissing`] if the registry does not have it.
    pub async fn find_image(&self, name: &ManifestName) -> Result<Sha256Digest, EnvironmentError> {
        match self.registry.manifest_descriptor(name).await? {
            Some(descriptor) => Ok(descriptor.digest),
            None => Err(EnvironmentError::ImageMissing {
                image: match name {
                    ManifestName::Digest(_) => format!("{}@{name}", self.registry.repository()),
                    ManifestName::Tag(_) => format!("{}:{name}", self.registry.repository()),
                },
            }),
        }
    }

    /// The digest of the image that a tag or a digest names, if its configuration is the one
    /// by whose digest container engines call it.
    ///
    /// # Errors
    /// See [`EnvironmentError`].
    pub async fn find_image_with_id(
        &self,
        name: &ManifestName,
        id: &Sha256Digest,
    ) -> Result<Option<Sha256Digest>, EnvironmentError> {
        let Some(manifest) = self.registry.manifest(name).await? else {
            return Ok(None);
        };
        let parsed: Option<ImageManifest> = serde_json::from_slice(&manifest.bytes).ok();
        let is_it = parsed.is_some_and(|parsed| parsed.config.digest == *id);
        Ok(is_it.then_some(manifest.descriptor.digest))
    }

    /// Reads the live record, if this machine did not have it.
    ///
    /// # Errors
    /// See [`EnvironmentError`].
    pub async fn with_record(&self, mut live: Live) -> Result<Live, EnvironmentError> {
        live.record = self.live_record(&live).await?;
        Ok(live)
    }

    pub(super) async fn read_head(&self) -> Result<Option<SeenHead>, EnvironmentError> {
        let key = self.key.head()?;
        let Some(read) = self.bucket.read(&key).await? else {
            return Ok(None);
        };
        Ok(Some(SeenHead {
            head: Head::parse(&read.bytes, &self.key, key.as_str())?,
            generation: Some(read.object.generation),
            updated: read.object.updated,
            server_time: read.server_time,
        }))
    }

    pub(super) async fn has_image(&self, digest: &Sha256Digest) -> Result<bool, EnvironmentError> {
        let name = ManifestName::Digest(*digest);
        Ok(self.registry.manifest_descriptor(&name).await?.is_some())
    }

    /// The record that this machine has last seen live. Asks nobody.
    ///
    /// # Errors
    /// The store's.
    pub async fn last_seen(&self) -> Result<Option<Arc<GenerationRecord>>, EnvironmentError> {
        let remembered = self.remembered().await?;
        Ok(remembered.map(|(_, record)| record))
    }

    /// The record that this machine last saw live. What is damaged or of another time counts as absent.
    async fn remembered(
        &self,
    ) -> Result<Option<(ObjectDigest, Arc<GenerationRecord>)>, EnvironmentError> {
        let location = self.bucket.location();
        let Some(digest) = self.local.last_seen(&self.key, location).await? else {
            return Ok(None);
        };
        let bytes = self.local.get(digest).await?;
        let record = bytes.and_then(|bytes| {
            GenerationRecord::parse(&bytes, &self.key, "the remembered record").ok()
        });
        Ok(record.map(|record| (digest, Arc::new(record))))
    }

    /// The live record: from this machine if it has it, else from the bucket.
    pub(super) async fn live_record(
        &self,
        live: &Live,
    ) -> Result<Option<Arc<GenerationRecord>>, EnvironmentError> {
        match (&live.record, live.generation()) {
            (Some(record), _) => Ok(Some(Arc::clone(record))),
            (None, None) => Ok(None),
            (None, Some(generation)) => {
                let record = self.load(&generation.reference).await?;
                self.remember(&generation.reference, &record).await?;
                Ok(Some(record))
            }
        }
    }

    /// A record by its reference, verified against its digest.
    pub(super) async fn load(
        &self,
        reference: &RecordReference,
    ) -> Result<Arc<GenerationRecord>, EnvironmentError> {
        let key = self.key.generation(reference.generation)?;
        let (bytes, fetched) = match self.local.get(reference.record).await? {
            Some(bytes) => (bytes, false),
            None => match self.bucket.read(&key).await? {
                Some(read) => (read.bytes, true),
                None => {
                    return Err(EnvironmentError::LostObject {
                        what: key.to_string(),
                    });
                }
            },
        };
        let malformed = |problem: &str| EnvironmentError::Malformed {
            key: key.to_string(),
            problem: problem.to_owned(),
        };
        let record = GenerationRecord::parse(&bytes, &self.key, key.as_str());
        if ObjectDigest::of(&bytes) != reference.record {
            // A newer program's record is called that even here.
            record?;
            return Err(malformed("its digest is not the recorded one"));
        }
        let record = record?;
        if record.generation != reference.generation {
            return Err(malformed("it is the record of another generation"));
        }
        if fetched {
            self.local.put(vec![bytes]).await?;
        }
        Ok(Arc::new(record))
    }

    /// A DAG file's bytes.
    pub(super) async fn dag_bytes(&self, dag: &RecordedDag) -> Result<Bytes, EnvironmentError> {
        self.object(dag.object).await
    }

    /// An object's bytes: from this machine, else from the bucket; verified.
    pub(super) async fn object(&self, digest: ObjectDigest) -> Result<Bytes, EnvironmentError> {
        if let Some(bytes) = self.local.get(digest).await? {
            return Ok(bytes);
        }
        let key = self.key.object(&digest)?;
        match self.bucket.read(&key).await? {
            Some(read) if ObjectDigest::of(&read.bytes) == digest => Ok(read.bytes),
            Some(_) => Err(EnvironmentError::Malformed {
                key: key.to_string(),
                problem: "its bytes do not have the digest that names it".to_owned(),
            }),
            None => Err(EnvironmentError::LostObject {
                what: key.to_string(),
            }),
        }
    }

    /// Lets this machine know what is live: a record that it has made or [loaded](Self::load).
    pub(super) async fn remember(
        &self,
        reference: &RecordReference,
        record: &GenerationRecord,
    ) -> Result<(), EnvironmentError> {
        let images = record.images.iter().map(|image| image.digest).collect();
        let mut objects = self.local.image_objects(images).await?;
        objects.extend(record.objects());
        let location = self.bucket.location();
        self.local
            .remember(&self.key, location, reference, objects, &record.images)
            .await
    }
}
