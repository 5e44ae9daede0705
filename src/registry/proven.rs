//! What a repository is proven to have by a manifest that it serves: this saves a push a question a blob.

use std::collections::BTreeSet;

use super::{FetchedManifest, ManifestName, Registry, RegistryError};
use crate::oci::{ImageIndex, ImageManifest, Sha256Digest};

/// A manifest that is known to be in a repository.
#[derive(Debug, Clone, Copy)]
pub enum Previous<'a> {
    /// It has to be fetched.
    Named(&'a Sha256Digest),
    /// It was fetched.
    Fetched(&'a FetchedManifest),
}

pub(super) fn parse(manifest: &FetchedManifest) -> Option<ImageManifest> {
    serde_json::from_slice(&manifest.bytes).ok()
}

/// What the repository must have, because it serves the manifest with this digest: blobs,
/// and of an index the manifests that it names and theirs. One request a manifest.
pub(super) async fn proven_by(
    registry: &dyn Registry,
    digest: &Sha256Digest,
) -> Result<BTreeSet<Sha256Digest>, RegistryError> {
    match registry.manifest(&ManifestName::Digest(*digest)).await? {
        Some(manifest) => proven_with(registry, &manifest).await,
        None => Ok(BTreeSet::new()),
    }
}

/// The same of a manifest that was fetched: no request but those for the manifests of an index.
pub(super) async fn proven_with(
    registry: &dyn Registry,
    manifest: &FetchedManifest,
) -> Result<BTreeSet<Sha256Digest>, RegistryError> {
    let mut proven = BTreeSet::new();
    let mut manifests = Vec::new();
    if manifest.descriptor.media_type.is_index() {
        let index = serde_json::from_slice::<ImageIndex>(&manifest.bytes);
        for entry in index.map(|index| index.manifests).unwrap_or_default() {
            let digest = entry.descriptor.digest;
            if let Some(part) = registry.manifest(&ManifestName::Digest(digest)).await? {
                proven.insert(digest);
                manifests.extend(parse(&part));
            }
        }
    } else {
        manifests.extend(parse(manifest));
    }
    for manifest in manifests {
        proven.insert(manifest.config.digest);
        proven.extend(manifest.layers.iter().map(|layer| layer.digest));
    }
    Ok(proven)
}
