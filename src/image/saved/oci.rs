//! OCI layouts, as folders and as archives (image specification, "Image Layout"): what
//! `docker save` writes since version 25, `podman save`, skopeo, and Forebay itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use forebay_store::Store;
use serde::Deserialize;

use super::layers::{AsItIs, Limits, compressed};
use super::members::{Member, Members};
use super::{MAX_DOCUMENT, MAX_LAYERS, SavedImage, SavedImageError, parse_config, parse_manifest};
use crate::oci::{BlobSource, BytesBlob, Descriptor, ImageManifest, MediaType, Sha256Digest, Tag};
use crate::registry::FetchedManifest;

pub(super) const INDEX: &str = "index.json";
pub(super) const MARKER: &str = "oci-layout";
/// How deep indexes may lie in indexes.
const MAX_DEPTH: usize = 4;
const REFERENCE_NAME: &str = "org.opencontainers.image.ref.name";

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Listed>,
}

#[derive(Deserialize, Clone)]
struct Listed {
    #[serde(flatten)]
    descriptor: Descriptor,
    platform: Option<Platform>,
}

#[derive(Deserialize, Clone)]
struct Platform {
    os: String,
    architecture: String,
}

pub(super) fn read(
    members: &Members,
    tag: Option<&Tag>,
    store: &Arc<Store>,
    limits: &Limits,
) -> Result<SavedImage, SavedImageError> {
    let (descriptor, bytes) = manifest(members, tag)?;
    let manifest = parse_manifest(&bytes)?;
    if manifest.layers.len() > MAX_LAYERS {
        return Err(SavedImageError::malformed("it has layers without end"));
    }
    let config = document(members, &manifest.config)?;
    let parsed = parse_config(&config, manifest.layers.len())?;
    let mut found = Vec::new();
    for layer in &manifest.layers {
        found.push(member(members, layer)?);
    }
    let config = BytesBlob::new(manifest.config.media_type.clone(), Bytes::from(config));
    let plain: Vec<_> = (manifest
        .layers
        .iter()
        .zip(&found)
        .zip(&parsed.rootfs.diff_ids))
    .filter(|((layer, _), _)| is_plain(&layer.media_type))
    .map(|((_, member), diff_id)| (member.clone(), *diff_id))
    .collect();
    let mut made = compressed(&plain, store, limits)?.into_iter();
    let is_whole = plain.is_empty();
    let blobs: Vec<_> = (manifest.layers.into_iter().zip(found))
        .filter_map(
            |(descriptor, member)| match is_plain(&descriptor.media_type) {
                true => made.next(),
                false => Some(Arc::new(AsItIs { descriptor, member }) as Arc<dyn BlobSource>),
            },
        )
        .collect();
    if !is_whole {
        return assemble(config, blobs, parsed.platform());
    }
    let config: Arc<dyn BlobSource> = Arc::new(config);
    Ok(SavedImage {
        manifest: FetchedManifest {
            descriptor,
            bytes: bytes.into(),
        },
        blobs: std::iter::once(config).chain(blobs).collect(),
        platform: parsed.platform(),
    })
}

/// An image of this configuration and these layers.
pub(super) fn assemble(
    config: BytesBlob,
    layers: Vec<Arc<dyn BlobSource>>,
    platform: String,
) -> Result<SavedImage, SavedImageError> {
    // Docker's configuration is an OCI configuration too.
    let config = BytesBlob::new(
        MediaType::new(MediaType::OCI_CONFIG),
        config.bytes().clone(),
    );
    let manifest = ImageManifest {
        schema_version: 2,
        media_type: Some(MediaType::new(MediaType::OCI_MANIFEST)),
        config: config.descriptor().clone(),
        layers: (layers.iter())
            .map(|layer| {
                let descriptor = layer.descriptor().clone();
                Descriptor {
                    annotations: BTreeMap::new(),
                    ..crate::image::base::with_oci_type(descriptor)
                }
            })
            .collect(),
        annotations: BTreeMap::new(),
    };
    let bytes = crate::image::json(&manifest)?;
    let config: Arc<dyn BlobSource> = Arc::new(config);
    Ok(SavedImage {
        manifest: FetchedManifest {
            descriptor: Descriptor::of(MediaType::new(MediaType::OCI_MANIFEST), &bytes),
            bytes: bytes.into(),
        },
        blobs: std::iter::once(config).chain(layers).collect(),
        platform,
    })
}

fn is_plain(media_type: &MediaType) -> bool {
    matches!(
        media_type.as_str(),
        "application/vnd.oci.image.layer.v1.tar" | "application/vnd.docker.image.rootfs.diff.tar"
    )
}

/// The image's manifest: the only one, the one with that tag, or the one for our platform.
fn manifest(
    members: &Members,
    tag: Option<&Tag>,
) -> Result<(Descriptor, Vec<u8>), SavedImageError> {
    let bytes = members.read(INDEX, MAX_DOCUMENT)?.unwrap_or_default();
    let mut listed = parse_index(&bytes)?;
    if let Some(tag) = tag {
        listed.retain(|entry| {
            let name = entry.descriptor.annotations.get(REFERENCE_NAME);
            name.is_some_and(|name| name == tag.as_str())
        });
        if listed.is_empty() {
            return Err(SavedImageError::malformed(format!(
                "it has no image with the tag {tag}"
            )));
        }
    }
    for _ in 0..MAX_DEPTH {
        let chosen = choose(listed)?;
        let bytes = document(members, &chosen)?;
        if !chosen.media_type.is_index() {
            return Ok((chosen, bytes));
        }
        listed = parse_index(&bytes)?;
    }
    Err(SavedImageError::malformed(
        "its indexes lead to indexes without end",
    ))
}

fn parse_index(bytes: &[u8]) -> Result<Vec<Listed>, SavedImageError> {
    serde_json::from_slice::<Index>(bytes)
        .map(|index| index.manifests)
        .map_err(|error| SavedImageError::malformed(format!("its index is not valid: {error}")))
}

fn choose(listed: Vec<Listed>) -> Result<Descriptor, SavedImageError> {
    // What builders add about an image stands beside it, for no platform at all.
    let is_image =
        |entry: &Listed| (entry.platform.as_ref()).is_none_or(|platform| platform.os != "unknown");
    let fits = |entry: &Listed| {
        (entry.platform.as_ref())
            .is_some_and(|platform| platform.os == "linux" && platform.architecture == "amd64")
    };
    let mut images: Vec<_> = listed.into_iter().filter(is_image).collect();
    if images.iter().any(fits) {
        images.retain(fits);
    }
    // One image may have several names.
    images.sort_by_key(|entry| entry.descriptor.digest);
    images.dedup_by_key(|entry| entry.descriptor.digest);
    match <[Listed; 1]>::try_from(images) {
        Ok([only]) => Ok(only.descriptor),
        Err(none) if none.is_empty() => Err(SavedImageError::malformed("its index names no image")),
        Err(several) => Err(SavedImageError::Several {
            count: several.len(),
        }),
    }
}

/// The file of a blob, which must have the promised size.
fn member(members: &Members, descriptor: &Descriptor) -> Result<Member, SavedImageError> {
    let name = format!(
        "blobs/{}",
        descriptor.digest.to_string().replacen(':', "/", 1)
    );
    let member = members.find(&name)?.ok_or_else(|| {
        SavedImageError::malformed(format!("the blob {} is not there", descriptor.digest))
    })?;
    if member.size == descriptor.size {
        return Ok(member);
    }
    Err(SavedImageError::Damaged {
        what: format!("the blob {}", descriptor.digest),
        expected: format!("{} bytes", descriptor.size),
        actual: format!("{} bytes", member.size),
    })
}

/// The bytes of a manifest, an index or a configuration, as their digest promises them.
fn document(members: &Members, descriptor: &Descriptor) -> Result<Vec<u8>, SavedImageError> {
    member(members, descriptor)?;
    let name = format!(
        "blobs/{}",
        descriptor.digest.to_string().replacen(':', "/", 1)
    );
    let bytes = members.read(&name, MAX_DOCUMENT)?.unwrap_or_default();
    let actual = Sha256Digest::of(&bytes);
    if actual == descriptor.digest {
        return Ok(bytes);
    }
    Err(SavedImageError::Damaged {
        what: format!("the blob {}", descriptor.digest),
        expected: descriptor.digest.to_string(),
        actual: actual.to_string(),
    })
}
