//! Archives with `manifest.json`, as `docker save` has written them since 2016
//! ("Docker Image Specification v1.2"), and skopeo's `docker-archive:`.

use std::sync::Arc;

use bytes::Bytes;
use forebay_store::Store;
use serde::Deserialize;

use super::layers::{Limits, compressed};
use super::members::Members;
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

pub(super) fn read(
    members: &Members,
    store: &Arc<Store>,
    limits: &Limits,
) -> Result<SavedImage, SavedImageError> {
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
    let blobs = compressed(&layers, store, limits)?;
    let config = BytesBlob::new(MediaType::new(MediaType::OCI_CONFIG), Bytes::from(config));
    oci::assemble(config, blobs, parsed.platform())
}

/// The digest that a configuration's name carries.
fn digest_in(name: &str) -> Option<Sha256Digest> {
    let last = name.rsplit('/').next().unwrap_or(name);
    let hex = last.strip_suffix(".json").unwrap_or(last);
    format!("sha256:{hex}").parse().ok()
}
