//! A push with the fewest requests that the protocol allows.
//!
//! A manifest that the repository serves proves its blobs, so:
//!
//! - an image that is there costs one request;
//! - the blobs of a manifest that is known to be there (`previous`) are not asked for;
//! - for every other blob, the question whether it is there and the start of
//!   its upload are one request (see [`Registry::put_blob`]);
//! - the manifest is written last, an index after those that it names, and if the
//!   registry then lacks something after all, one full pass asks for each.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::StreamExt as _;

use super::counted::counted;
use super::proven::{parse, proven_by, proven_with};
use super::{BlobOutcome, FetchedManifest, ManifestName, Registry, RegistryError};
use crate::oci::{BlobSource, Descriptor, Repository, Sha256Digest, Tag};
use crate::progress::{Event, Phase, Progress, Unit};

/// How many blobs travel at the same time.
pub(super) const PARALLEL_BLOBS: usize = 4;

/// An image, and where the bytes of its blobs come from.
#[derive(Clone)]
pub struct ImageToPush {
    /// The manifest, or an index.
    pub manifest: FetchedManifest,
    /// The manifests that an index names, one a platform; none beside a plain manifest.
    pub parts: Vec<FetchedManifest>,
    /// Everything that the manifests name: configurations and layers.
    pub blobs: Vec<Arc<dyn BlobSource>>,
    /// Repositories that are known to have had the whole image, the likeliest first. Those
    /// on another registry are passed over.
    pub mount_candidates: Vec<Repository>,
}

/// What a push did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PushReport {
    /// The blobs whose bytes were sent.
    pub uploaded: Vec<Descriptor>,
    /// How many blobs the registry took from another of its repositories.
    pub mounted: usize,
    /// How many blobs were there.
    pub present: usize,
    /// Whether the manifest was written, under its digest or any tag.
    pub manifest_written: bool,
}

/// Brings an image into a repository and puts `tags` on it.
///
/// `previous` is the digest of a manifest that is known to be in the
/// repository, usually the live image's. It may be the image's own: then the
/// tags are written without asking what they name now. Without `previous`, a
/// first tag that names the image already is proof enough, and is not written again;
/// that is not asked of an image that another repository of the registry had
/// ([`ImageToPush::mount_candidates`]), because it is being promoted.
///
/// Order: blobs, [`PARALLEL_BLOBS`] at a time; then the manifests that an index names,
/// under their digests; then the manifest under the first tag (under its digest if there is none); then the other tags.
///
/// # Errors
/// See [`RegistryError`]. Nothing is visible under a tag before everything
/// that it needs is there.
pub async fn push(
    registry: &dyn Registry,
    image: &ImageToPush,
    tags: &[Tag],
    previous: Option<&Sha256Digest>,
    progress: &dyn Progress,
) -> Result<PushReport, RegistryError> {
    Push::new(registry, image, progress)
        .run(tags, previous)
        .await
}

/// [`push`] of an image that the repository was just seen not to have: that is not asked again.
///
/// # Errors
/// See [`push`].
pub async fn push_absent(
    registry: &dyn Registry,
    image: &ImageToPush,
    tags: &[Tag],
    previous: Option<&Sha256Digest>,
    progress: &dyn Progress,
) -> Result<PushReport, RegistryError> {
    let push = Push {
        is_absent: true,
        ..Push::new(registry, image, progress)
    };
    push.run(tags, previous).await
}

/// [`push_absent`] onto an image that the repository was just seen to have: what that one consists
/// of is neither asked for nor sent.
///
/// # Errors
/// See [`push`].
pub async fn push_onto(
    registry: &dyn Registry,
    image: &ImageToPush,
    tags: &[Tag],
    previous: &FetchedManifest,
    progress: &dyn Progress,
) -> Result<PushReport, RegistryError> {
    let push = Push {
        is_absent: true,
        proven: proven_with(registry, previous).await?,
        ..Push::new(registry, image, progress)
    };
    push.run(tags, None).await
}

/// The distinct blobs without the configurations, which nobody calls layers.
pub(super) fn layers(image: &ImageToPush) -> BTreeSet<Sha256Digest> {
    let mut digests: BTreeSet<_> = image.blobs.iter().map(|b| b.descriptor().digest).collect();
    for manifest in image.parts.iter().chain([&image.manifest]) {
        if let Some(manifest) = parse(manifest) {
            digests.remove(&manifest.config.digest);
        }
    }
    digests
}

struct Push<'a> {
    registry: &'a dyn Registry,
    image: &'a ImageToPush,
    progress: &'a dyn Progress,
    layers: BTreeSet<Sha256Digest>,
    is_absent: bool,
    /// What the repository is known to have.
    proven: BTreeSet<Sha256Digest>,
}

impl<'a> Push<'a> {
    fn new(registry: &'a dyn Registry, image: &'a ImageToPush, progress: &'a dyn Progress) -> Self {
        Self {
            registry,
            image,
            progress,
            layers: layers(image),
            is_absent: false,
            proven: BTreeSet::new(),
        }
    }
}

impl Push<'_> {
    async fn run(
        &self,
        tags: &[Tag],
        previous: Option<&Sha256Digest>,
    ) -> Result<PushReport, RegistryError> {
        let mut report = PushReport::default();
        let digest = self.image.manifest.descriptor.digest;
        let mut proven = self.proven.clone();
        match previous {
            Some(previous) if *previous != digest => {
                proven = proven_by(self.registry, previous).await?;
            }
            _ if self.is_absent => {}
            _ => {
                if let Some(unwritten) = self.tags_of_present(tags, previous.is_some()).await? {
                    report.present = self.blobs(&BTreeSet::new()).count();
                    self.start(0);
                    self.write_tags(unwritten, &mut report).await?;
                    self.finish(&report);
                    return Ok(report);
                }
            }
        }
        self.send_blobs(&proven, &mut report).await?;
        match self.write_manifests(tags, &proven, &mut report).await {
            Err(RegistryError::BlobsMissing { .. }) => {
                self.send_missing_blobs(&mut report).await?;
                let nothing = BTreeSet::new();
                self.write_manifests(tags, &nothing, &mut report).await?;
            }
            written => written?,
        }
        self.finish(&report);
        Ok(report)
    }

    /// If the image is in the repository: the tags that have yet to be written.
    async fn tags_of_present<'t>(
        &self,
        tags: &'t [Tag],
        expected: bool,
    ) -> Result<Option<&'t [Tag]>, RegistryError> {
        let digest = self.image.manifest.descriptor.digest;
        let expected = expected || self.had_by().is_some();
        if let (Some((first, others)), false) = (tags.split_first(), expected) {
            let name = ManifestName::Tag(first.clone());
            let tagged = self.registry.manifest_descriptor(&name).await?;
            if tagged.is_some_and(|descriptor| descriptor.digest == digest) {
                return Ok(Some(others));
            }
        }
        let name = ManifestName::Digest(digest);
        let present = self.registry.manifest_descriptor(&name).await?.is_some();
        Ok(present.then_some(tags))
    }

    /// The blobs outside `except`, each once although layers may repeat.
    fn blobs<'s>(
        &'s self,
        except: &BTreeSet<Sha256Digest>,
    ) -> impl Iterator<Item = &'s Arc<dyn BlobSource>> {
        let mut seen = except.clone();
        self.image
            .blobs
            .iter()
            .filter(move |blob| seen.insert(blob.descriptor().digest))
    }

    async fn send_blobs(
        &self,
        proven: &BTreeSet<Sha256Digest>,
        report: &mut PushReport,
    ) -> Result<(), RegistryError> {
        let blobs: Vec<_> = self.blobs(proven).collect();
        report.present = self.blobs(&BTreeSet::new()).count() - blobs.len();
        self.start(blobs.iter().map(|blob| blob.descriptor().size).sum());
        let sends: Vec<_> = (blobs.into_iter())
            .map(|blob| self.send_blob(blob, self.candidates(blob)))
            .collect();
        in_parallel(sends, report).await
    }

    /// Another repository of the registry that is known to have had the image.
    fn had_by(&self) -> Option<&Repository> {
        let own = self.registry.repository();
        (self.image.mount_candidates.iter())
            .find(|candidate| *candidate != own && are_on_one_registry(candidate, own))
    }

    /// Where to mount a blob from. A blob that is known nowhere else is sought in the
    /// repository itself, which is the same request as starting its upload.
    fn candidates(&self, blob: &Arc<dyn BlobSource>) -> Vec<Repository> {
        let own = self.registry.repository();
        let origin =
            (blob.origin()).filter(|origin| *origin != own && are_on_one_registry(origin, own));
        let mut candidates: Vec<_> = self.had_by().into_iter().chain(origin).cloned().collect();
        candidates.dedup();
        if candidates.is_empty() {
            candidates.push(own.clone());
        }
        candidates
    }

    /// The full pass: what was taken for present turned out not to be.
    async fn send_missing_blobs(&self, report: &mut PushReport) -> Result<(), RegistryError> {
        let blobs: Vec<_> = self.blobs(&BTreeSet::new()).collect();
        *report = PushReport {
            uploaded: std::mem::take(&mut report.uploaded),
            ..PushReport::default()
        };
        let sends: Vec<_> = (blobs.into_iter())
            .map(|blob| self.send_if_missing(blob))
            .collect();
        in_parallel(sends, report).await
    }

    async fn send_if_missing(&self, blob: &Arc<dyn BlobSource>) -> SentBlob {
        match self.registry.has_blob(&blob.descriptor().digest).await {
            Ok(true) => Ok((blob.descriptor().clone(), BlobOutcome::Present)),
            // Whether it is absent or the question is refused: sending it settles both.
            Ok(false) | Err(_) => self.send_blob(blob, Vec::new()).await,
        }
    }

    async fn send_blob(&self, blob: &Arc<dyn BlobSource>, candidates: Vec<Repository>) -> SentBlob {
        let descriptor = blob.descriptor();
        let (counted, position) = counted(Arc::clone(blob));
        let mut reported = 0;
        let sending = self.registry.put_blob(&counted, &candidates);
        tokio::pin!(sending);
        let outcome = loop {
            tokio::select! {
                outcome = &mut sending => break outcome?,
                furthest = position.moved() => {
                    self.advance(furthest.saturating_sub(reported));
                    reported = furthest;
                }
            }
        };
        // Also for a blob whose bytes were not needed.
        self.advance(descriptor.size.saturating_sub(reported));
        Ok((descriptor.clone(), outcome))
    }

    /// The manifests that the repository is not proven to have.
    async fn write_manifests(
        &self,
        tags: &[Tag],
        proven: &BTreeSet<Sha256Digest>,
        report: &mut PushReport,
    ) -> Result<(), RegistryError> {
        for FetchedManifest { descriptor, bytes } in &self.image.parts {
            if !proven.contains(&descriptor.digest) {
                let name = ManifestName::Digest(descriptor.digest);
                let media_type = &descriptor.media_type;
                (self.registry)
                    .put_manifest(&name, media_type, bytes.clone())
                    .await?;
            }
        }
        if tags.is_empty() {
            let digest = self.image.manifest.descriptor.digest;
            self.write(&ManifestName::Digest(digest), report).await
        } else {
            self.write_tags(tags, report).await
        }
    }

    async fn write_tags(&self, tags: &[Tag], report: &mut PushReport) -> Result<(), RegistryError> {
        for tag in tags {
            self.write(&ManifestName::Tag(tag.clone()), report).await?;
        }
        Ok(())
    }

    async fn write(
        &self,
        name: &ManifestName,
        report: &mut PushReport,
    ) -> Result<(), RegistryError> {
        let FetchedManifest { descriptor, bytes } = &self.image.manifest;
        self.registry
            .put_manifest(name, &descriptor.media_type, bytes.clone())
            .await?;
        report.manifest_written = true;
        Ok(())
    }

    fn start(&self, total: u64) {
        self.progress.report(Event::Started {
            phase: Phase::Push,
            total: Some(total),
            unit: Unit::Bytes,
        });
    }

    fn advance(&self, amount: u64) {
        if amount > 0 {
            self.progress.report(Event::Advanced {
                phase: Phase::Push,
                amount,
            });
        }
    }

    fn finish(&self, report: &PushReport) {
        // A full pass may send a blob that was sent already.
        let uploaded = report.uploaded.iter().map(|blob| blob.digest);
        let uploaded: BTreeSet<Sha256Digest> = uploaded.collect();
        let sent = self.layers.intersection(&uploaded).count();
        let bytes = report.uploaded.iter().map(|blob| blob.size).sum();
        let summary = if report.uploaded.is_empty() {
            format!(
                "nothing to send, all {} layers already there",
                self.layers.len()
            )
        } else {
            format!(
                "{sent} of {} layers sent, {}; {} already there",
                self.layers.len(),
                amount_of(bytes),
                self.layers.len() - sent
            )
        };
        self.progress.report(Event::Finished {
            phase: Phase::Push,
            summary,
        });
    }
}

/// Whether a blob can be mounted from one to the other.
pub(super) fn are_on_one_registry(one: &Repository, other: &Repository) -> bool {
    match (one, other) {
        (Repository::Registry { host: one, .. }, Repository::Registry { host: other, .. }) => {
            one == other
        }
        _ => false,
    }
}

type SentBlob = Result<(Descriptor, BlobOutcome), RegistryError>;

/// Awaits all of them, [`PARALLEL_BLOBS`] at a time; the first failure ends the rest.
async fn in_parallel(
    sends: Vec<impl Future<Output = SentBlob>>,
    report: &mut PushReport,
) -> Result<(), RegistryError> {
    let mut outcomes = futures_util::stream::iter(sends).buffer_unordered(PARALLEL_BLOBS);
    while let Some(outcome) = outcomes.next().await {
        match outcome? {
            (_, BlobOutcome::Present) => report.present += 1,
            (_, BlobOutcome::Mounted) => report.mounted += 1,
            (descriptor, BlobOutcome::Uploaded) => report.uploaded.push(descriptor),
        }
    }
    Ok(())
}

/// Bytes as people read them, in powers of ten as registries count them.
fn amount_of(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Callers await it inside boxed, sendable futures.
    #[test]
    fn a_push_can_be_moved_between_threads() {
        fn sendable<T: Send>(_: T) {}
        fn check(registry: &dyn Registry, image: &ImageToPush, progress: &dyn Progress) {
            sendable(push(registry, image, &[], None, progress));
        }
        let _ = check;
    }

    #[test]
    fn amounts_are_short() {
        assert_eq!(amount_of(999), "999 B");
        assert_eq!(amount_of(3_140_000), "3.1 MB");
    }
}
