//! Two builds of one image, and the first thing in which they differ.

use std::io::{self, Read};
use std::sync::Arc;

use forebay_store::Store;
use sha2::Digest as _;

use super::decompress::decompressed;
use super::layer::{Layer, StoredLayer};
use super::{BuiltImage, ImageError};
use crate::oci::{BlobSource, Sha256Digest};

/// An image with the store that has its layers.
pub type Stored<'a> = (&'a BuiltImage, &'a Arc<Store>);

/// Names the first thing in which two builds differ; `None` if they are the same image.
///
/// # Errors
/// A layer that cannot be read again.
pub fn first_difference(
    first: Stored<'_>,
    second: Stored<'_>,
) -> Result<Option<String>, ImageError> {
    let ((one, _), (two, _)) = (first, second);
    if one.digest() == two.digest() {
        return Ok(None);
    }
    if one.base().manifest != two.base().manifest {
        return Ok(Some("the base image".to_owned()));
    }
    for (left, right) in one.layers().iter().zip(two.layers()) {
        if left.descriptor.digest == right.descriptor.digest {
            continue;
        }
        let entry = differing_entry((left, first.1), (right, second.1)).map_err(ImageError::io(
            format!("cannot read the layer of `{}` again", left.created_by),
        ))?;
        return Ok(Some(match entry {
            Some(path) => format!("/{path}, in the layer of `{}`", left.created_by),
            None => format!("how the layer of `{}` is compressed", left.created_by),
        }));
    }
    if one.layers().len() != two.layers().len() {
        return Ok(Some(format!(
            "the number of layers: {} and {}",
            one.layers().len(),
            two.layers().len()
        )));
    }
    let config = |image: &BuiltImage| {
        serde_json::from_slice::<serde_json::Map<_, _>>(image.config().bytes()).unwrap_or_default()
    };
    let (left, right) = (config(one), config(two));
    let differing = left
        .keys()
        .chain(right.keys())
        .find(|key| left.get(*key) != right.get(*key));
    Ok(Some(match differing {
        Some(key) => format!("`{key}` of the image's configuration"),
        None => "the manifest".to_owned(),
    }))
}

/// One entry of an archive: what its header says, and its content.
type Entry = (String, Vec<u8>, Sha256Digest);

fn differing_entry(
    left: (&Layer, &Arc<Store>),
    right: (&Layer, &Arc<Store>),
) -> io::Result<Option<String>> {
    let open = |(layer, store): (&Layer, &Arc<Store>)| -> io::Result<_> {
        let blob = StoredLayer {
            store: Arc::clone(store),
            descriptor: layer.descriptor.clone(),
            source: layer.source,
        };
        Ok(tar::Archive::new(decompressed(blob.open()?)?))
    };
    let (mut left, mut right) = (open(left)?, open(right)?);
    let (mut left, mut right) = (left.entries()?, right.entries()?);
    loop {
        let (one, two) = (next(&mut left)?, next(&mut right)?);
        match (one, two) {
            (None, None) => return Ok(None),
            (Some(one), Some(two)) if one == two => {}
            (Some((one, ..)), Some((two, ..))) => return Ok(Some(one.min(two))),
            (Some((path, ..)), None) | (None, Some((path, ..))) => return Ok(Some(path)),
        }
    }
}

fn next<R: Read>(entries: &mut tar::Entries<'_, R>) -> io::Result<Option<Entry>> {
    let Some(entry) = entries.next() else {
        return Ok(None);
    };
    let mut entry = entry?;
    let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
    let header = entry.header().as_bytes().to_vec();
    let mut hash = sha2::Sha256::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = entry.read(&mut buffer)?;
        if length == 0 {
            break;
        }
        hash.update(buffer.get(..length).unwrap_or_default());
    }
    Ok(Some((
        path,
        header,
        Sha256Digest::from_bytes(hash.finalize().into()),
    )))
}
