//! The registry's part of an apply: steps 1, 4 and 6 of its order.

use std::collections::{BTreeMap, BTreeSet};

use super::draft::{Draft, ImageSource};
use super::record::{GenerationRecord, RecordedImage};
use super::{Environment, EnvironmentError, Live};
use crate::oci::Sha256Digest;
use crate::progress::Event;
use crate::registry::{
    FetchedManifest, ImageToPush, ManifestName, PushReport, push, push_absent, push_onto,
};

impl Environment {
    /// Step 1. Also gives the manifests that need this generation's tag.
    pub(super) async fn provide_images(
        &self,
        live: &Live,
        base: Option<&GenerationRecord>,
        draft: &Draft,
    ) -> Result<(Option<PushReport>, Vec<FetchedManifest>), EnvironmentError> {
        let is_new = draft.untagged().contains(&draft.image);
        match &draft.source {
            ImageSource::Push(image, version_tag) => {
                // Only an image that was just seen there needs no push to be proven.
                let tagged = !is_new
                    && live.image_is_present(&draft.image) == Some(true)
                    && base.is_some_and(|base| base.version == draft.version);
                let report = if tagged {
                    None
                } else {
                    let previous = known_manifest(live, &draft.image);
                    let tags = std::slice::from_ref(version_tag);
                    let registry = self.registry.as_ref();
                    let progress = self.progress.as_ref();
                    let image = self.with_known_places(image).await?;
                    let previous = previous.as_ref();
                    let onto = previous.and_then(|previous| live.fetched(previous));
                    Some(match (onto, live.image_is_present(&draft.image)) {
                        (Some(onto), None) => {
                            push_onto(registry, &image, tags, onto, progress).await?
                        }
                        (_, Some(false)) => {
                            push_absent(registry, &image, tags, previous, progress).await?
                        }
                        _ => push(registry, &image, tags, previous, progress).await?,
                    })
                };
                Ok((report, manifest_if(is_new, image)))
            }
            ImageSource::Existing if is_new => {
                let name = ManifestName::Digest(draft.image);
                let manifest = self.registry.manifest(&name).await?;
                let manifest = manifest.ok_or_else(|| self.image_missing(&draft.image))?;
                Ok((None, vec![manifest]))
            }
            ImageSource::Existing => match live.image_is_present(&draft.image) {
                Some(true) => Ok((None, Vec::new())),
                _ if self.has_image(&draft.image).await? => Ok((None, Vec::new())),
                _ => Err(self.image_missing(&draft.image)),
            },
            ImageSource::Proven { untagged, lost } => {
                let mut manifests = untagged.clone();
                let mut report = None;
                for image in lost {
                    let registry = self.registry.as_ref();
                    let progress = self.progress.as_ref();
                    let pushed = push(registry, image, &[], None, progress).await?;
                    // Only one of them is the environment's own.
                    if image.manifest.descriptor.digest == draft.image {
                        report = Some(pushed);
                    }
                    manifests.push(image.manifest.clone());
                }
                Ok((report, manifests))
            }
        }
    }

    /// The image with the repositories that are known to have had it.
    pub(super) async fn with_known_places(
        &self,
        image: &ImageToPush,
    ) -> Result<ImageToPush, EnvironmentError> {
        let digest = image.manifest.descriptor.digest;
        Ok(ImageToPush {
            mount_candidates: self.local.repositories_of(digest).await?,
            ..image.clone()
        })
    }

    pub(super) fn image_missing(&self, digest: &Sha256Digest) -> EnvironmentError {
        EnvironmentError::image_missing(&self.registry.repository().to_string(), digest)
    }

    /// Step 6, for files that name their image by the version's tag: another
    /// deploy of that version, or one that lost or died, may have moved the tag.
    /// No request where all files name digests.
    pub(super) async fn place_version_tags(
        &self,
        target: &GenerationRecord,
    ) -> Result<(), EnvironmentError> {
        let here = self.registry.repository().to_string();
        let images = target.images.iter();
        let images: BTreeSet<_> = images
            .filter(|image| image.repository == here)
            .map(|image| image.digest)
            .collect();
        let dags = target.dags.values();
        let tags: BTreeMap<_, _> = dags
            .filter(|dag| images.contains(&dag.image))
            .filter_map(|dag| Some((dag.image_tag.as_ref()?, dag.image)))
            .collect();
        for (tag, digest) in tags {
            let name = ManifestName::Tag(tag.parse()?);
            let tagged = self.registry.manifest_descriptor(&name).await?;
            if tagged.is_some_and(|descriptor| descriptor.digest == digest) {
                continue;
            }
            match self
                .registry
                .manifest(&ManifestName::Digest(digest))
                .await?
            {
                Some(manifest) => {
                    let media_type = &manifest.descriptor.media_type;
                    self.registry
                        .put_manifest(&name, media_type, manifest.bytes)
                        .await?;
                }
                // Only on the way back from a deploy, which must not end for that.
                None => self.progress.report(Event::Warning(format!(
                    "the tag {tag} cannot be put back: {}",
                    self.image_missing(&digest)
                ))),
            }
        }
        Ok(())
    }

    /// Why an image cannot be looked for: it is in another repository than the environment's.
    pub(super) fn elsewhere(&self, image: &RecordedImage) -> Option<EnvironmentError> {
        let current = self.registry.repository().to_string();
        (image.repository != current).then(|| EnvironmentError::ImageElsewhere {
            image: format!("{}@{}", image.repository, image.digest),
            repository: image.repository.clone(),
            current,
        })
    }

    /// Step 4.
    pub(super) async fn retain_images(
        &self,
        record: &GenerationRecord,
        manifests: &[FetchedManifest],
    ) -> Result<(), EnvironmentError> {
        for manifest in manifests {
            let descriptor = &manifest.descriptor;
            let mut images = record.images.iter();
            if let Some(image) = images.find(|image| image.digest == descriptor.digest) {
                let name = ManifestName::Tag(image.tag()?);
                let bytes = manifest.bytes.clone();
                self.registry
                    .put_manifest(&name, &descriptor.media_type, bytes)
                    .await?;
            }
        }
        Ok(())
    }
}

/// A manifest that is known to be in the registry: the image's own, or the live one.
pub(super) fn known_manifest(live: &Live, image: &Sha256Digest) -> Option<Sha256Digest> {
    match live.image_is_present(image) {
        Some(true) => Some(*image),
        _ => live
            .generation()
            .map(|live| live.image)
            .filter(|live| live != image),
    }
}

fn manifest_if(wanted: bool, image: &ImageToPush) -> Vec<FetchedManifest> {
    let manifest = wanted.then(|| image.manifest.clone());
    manifest.into_iter().collect()
}
