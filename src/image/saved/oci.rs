//! OCI layouts, as folders and as archives (image specification, "Image Layout"): what
//! `docker save` writes since version 25, `podman save`, skopeo, and Forebay itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use forebay_store::Store;

use super::layers::{AsItIs, Limits, compressed};
use super::members::{Member, Members};
use super::{MAX_DOCUMENT, MAX_LAYERS, SavedImage, SavedImageError, parse_config, parse_manifest};
use crate::oci::{
    BlobSource, BytesBlob, Descriptor, ImageIndex, ImageManifest, IndexEntry, MediaType,
    Sha256Digest, Tag,
};
use crate::registry::FetchedManifest;

pub(super) const INDEX: &str = "index.json";
pub(super) const MARKER: &str = "oci-layout";
/// How deep indexes may lie in indexes.
const MAX_DEPTH: usize = 4;
/// What Composer's machines run.
const USUAL_PLATFORM: &str = "linux/amd64";
const REFERENCE_NAME: &str = "org.opencontainers.image.ref.name";

pub(super) fn read(
    members: &Members,
    tag: Option<&Tag>,
    store: &Arc<Store>,
    limits: &Limits,
) -> Result<SavedImage, SavedImageError> {
    let mut listed = entries(members, tag)?;
    for _ in 0..MAX_DEPTH {
        let chosen = choose(&listed)?;
        let bytes = document(members, &chosen)?;
        if !chosen.media_type.is_index() {
            return image(members, chosen, bytes, store, limits);
        }
        listed = parse_index(&bytes)?;
        if are_all_here(members, &listed)?
            && let Some(whole) = whole(members, &chosen, &bytes, &listed, store, limits)?
        {
            return Ok(whole);
        }
    }
    Err(SavedImageError::malformed(
        "its indexes lead to indexes without end",
    ))
}

/// Whether an index is one of several platforms' images, all of which are in the archive.
fn are_all_here(members: &Members, listed: &[IndexEntry]) -> Result<bool, SavedImageError> {
    let mut platforms: Vec<String> = listed.iter().filter_map(IndexEntry::platform).collect();
    platforms.sort();
    platforms.dedup();
    if platforms.len() < 2 || platforms.len() != listed.len() {
        return Ok(false);
    }
    for entry in listed {
        if members.find(&blob_name(&entry.descriptor))?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// All images of an index, which stays as it is; nothing if an image of it does not stay.
fn whole(
    members: &Members,
    index: &Descriptor,
    bytes: &[u8],
    listed: &[IndexEntry],
    store: &Arc<Store>,
    limits: &Limits,
) -> Result<Option<SavedImage>, SavedImageError> {
    let mut images = Vec::new();
    for entry in listed {
        let bytes = document(members, &entry.descriptor)?;
        let one = image(members, entry.descriptor.clone(), bytes, store, limits)?;
        if one.manifest.descriptor.digest != entry.descriptor.digest {
            return Ok(None);
        }
        images.push(one);
    }
    let platforms = listed.iter().filter_map(IndexEntry::platform);
    let mut platforms: Vec<String> = platforms.collect();
    platforms.sort_by_key(|platform| platform != USUAL_PLATFORM);
    Ok(Some(SavedImage {
        manifest: FetchedManifest {
            descriptor: Descriptor {
                annotations: BTreeMap::new(),
                ..index.clone()
            },
            bytes: bytes.to_vec().into(),
        },
        parts: images.iter().map(|one| one.manifest.clone()).collect(),
        blobs: images.into_iter().flat_map(|one| one.blobs).collect(),
        platform: platforms.into_iter().next().unwrap_or_default(),
    }))
}

/// The image of one manifest.
fn image(
    members: &Members,
    descriptor: Descriptor,
    bytes: Vec<u8>,
    store: &Arc<Store>,
    limits: &Limits,
) -> Result<SavedImage, SavedImageError> {
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
        parts: Vec::new(),
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
        parts: Vec::new(),
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

/// What the layout lists: all, or what has that tag.
fn entries(members: &Members, tag: Option<&Tag>) -> Result<Vec<IndexEntry>, SavedImageError> {
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
    Ok(listed)
}

fn parse_index(bytes: &[u8]) -> Result<Vec<IndexEntry>, SavedImageError> {
    serde_json::from_slice::<ImageIndex>(bytes)
        .map(|index| index.manifests)
        .map_err(|error| SavedImageError::malformed(format!("its index is not valid: {error}")))
}

/// The only image, or the one for our platform.
fn choose(listed: &[IndexEntry]) -> Result<Descriptor, SavedImageError> {
    let is_image = |entry: &IndexEntry| entry.platform.is_none() || entry.platform().is_some();
    let fits = |entry: &IndexEntry| entry.platform().as_deref() == Some(USUAL_PLATFORM);
    let mut images: Vec<_> = listed
        .iter()
        .filter(|entry| is_image(entry))
        .cloned()
        .collect();
    if images.iter().any(fits) {
        images.retain(fits);
    }
    // One image may have several names.
    images.sort_by_key(|entry| entry.descriptor.digest);
    images.dedup_by_key(|entry| entry.descriptor.digest);
    match <[IndexEntry; 1]>::try_from(images) {
        Ok([only]) => Ok(only.descriptor),
        Err(none) if none.is_empty() => Err(SavedImageError::malformed("its index names no image")),
        Err(several) => Err(SavedImageError::Several {
            count: several.len(),
        }),
    }
}

fn blob_name(descriptor: &Descriptor) -> String {
    let digest = descriptor.digest.to_string();
    format!("blobs/{}", digest.replacen(':', "/", 1))
}

/// The file of a blob, which must have the promised size.
fn member(members: &Members, descriptor: &Descriptor) -> Result<Member, SavedImageError> {
    let member = members.find(&blob_name(descriptor))?.ok_or_else(|| {
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
    let bytes = members
        .read(&blob_name(descriptor), MAX_DOCUMENT)?
        .unwrap_or_default();
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
