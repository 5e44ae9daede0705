//! Archives with `manifest.json`, as `docker save` has written them since 2016
//! ("Docker Image Specification v1.2"), and skopeo's `docker-archive:`. What container engines
//! make of a Dockerfile's lines comes back in this form too.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use forebay_store::Store;
use serde::Deserialize;

use super::layers::{LayerArchive, Limits, compressed};
use super::members::{Member, Members};
use super::{MAX_DOCUMENT, SavedImage, SavedImageError, oci, parse_config};
use crate::oci::{BytesBlob, MediaType, Sha256Digest};

pub(super) const MANIFEST: &str = "manifest.json";

/// One image of an archive.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    /// `<sha256>.json`, or `blobs/sha256/<sha256>` since version 25.
    config: String,
    /// `<id>/layer.tar`, which may be a link to another's; or `blobs/sha256/<sha256>`.
    layers: Vec<String>,
}

/// The image of such an archive: its configuration, and where its layers stand.
pub(in crate::image) struct DockerArchive {
    config: Bytes,
    platform: String,
    layers: Vec<(Member, Sha256Digest)>,
    limits: Limits,
}

impl DockerArchive {
    /// Reads the directory of an archive, and the configuration of the only image in it.
    ///
    /// # Errors
    /// What is no such archive, or lies about itself.
    pub(in crate::image) fn open(path: &Path, limits: &Limits) -> Result<Self, SavedImageError> {
        Self::of(&Members::of_archive(path)?, limits)
    }

    fn of(members: &Members, limits: &Limits) -> Result<Self, SavedImageError> {
        let bytes = members.read(MANIFEST, MAX_DOCUMENT)?.unwrap_or_default();
        let images: Vec<Saved> = serde_json::from_slice(&bytes).map_err(|error| {
            SavedImageError::malformed(format!("its {MANIFEST} is not valid: {error}"))
        })?;
        let [saved] = &*images else {
            return Err(match images.len() {
                0 => SavedImageError::malformed(format!("its {MANIFEST} names no image")),
                count => SavedImageError::Several { count },
            });
        };
        let missing = |name: &str| {
            SavedImageError::malformed(format!("its {MANIFEST} names {name:?}, which is not there"))
        };
        let config =
            (members.read(&saved.config, MAX_DOCUMENT)?).ok_or_else(|| missing(&saved.config))?;
        let digest = Sha256Digest::of(&config);
        if let Some(named) = digest_in(&saved.config)
            && named != digest
        {
            return Err(SavedImageError::Damaged {
                what: "its configuration".to_owned(),
                expected: named.to_string(),
                actual: digest.to_string(),
            });
        }
        let parsed = parse_config(&config, saved.layers.len())?;
        let mut layers = Vec::new();
        for (name, diff_id) in saved.layers.iter().zip(&parsed.rootfs.diff_ids) {
            let member = members.find(name)?.ok_or_else(|| missing(name))?;
            layers.push((member, *diff_id));
        }
        Ok(Self {
            config: config.into(),
            platform: parsed.platform(),
            layers,
            limits: limits.clone(),
        })
    }

    /// The layers' diff ids, in order.
    pub(in crate::image) fn diff_ids(&self) -> impl Iterator<Item = &Sha256Digest> {
        self.layers.iter().map(|(_, diff_id)| diff_id)
    }

    /// The archives of the layers from `first` on, uncompressed.
    pub(in crate::image) fn layers(&self, first: usize) -> impl Iterator<Item = LayerArchive<'_>> {
        let layers = self.layers.iter().skip(first);
        layers.map(|(member, diff_id)| LayerArchive {
            member,
            diff_id,
            limit: self.limits.layer,
        })
    }
}

pub(super) fn read(
    members: &Members,
    store: &Arc<Store>,
    limits: &Limits,
) -> Result<SavedImage, SavedImageError> {
    let archive = DockerArchive::of(members, limits)?;
    let blobs = compressed(&archive.layers, store, limits)?;
    let config = BytesBlob::new(MediaType::new(MediaType::OCI_CONFIG), archive.config);
    oci::assemble(config, blobs, archive.platform)
}

/// The digest that a configuration's name carries.
fn digest_in(name: &str) -> Option<Sha256Digest> {
    let last = name.rsplit('/').next().unwrap_or(name);
    let hex = last.strip_suffix(".json").unwrap_or(last);
    format!("sha256:{hex}").parse().ok()
}
