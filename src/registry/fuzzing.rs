//! See [`crate::fuzzing`].
#![allow(clippy::unwrap_used, missing_docs)]

use bytes::Bytes;

use super::FetchedManifest;
use super::proven::parse;
pub use super::remote::fuzzing::challenge;
use crate::oci::{Descriptor, ImageReference, MediaType, Repository, Tag};

/// A manifest, an index or a list of tags is refused, or read.
pub fn manifest(bytes: &[u8]) {
    let descriptor = Descriptor::of(MediaType::new(MediaType::OCI_MANIFEST), bytes);
    parse(&FetchedManifest {
        descriptor,
        bytes: Bytes::copy_from_slice(bytes),
    });
    let layout = tempfile::tempdir().unwrap();
    std::fs::write(layout.path().join("index.json"), bytes).unwrap();
    super::layout::fuzzing::index(layout.path());
    super::remote::fuzzing::lists(bytes);
}

/// A name of an image is refused, or the same when it is written and read again.
pub fn reference(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(reference) = text.parse::<ImageReference>() {
        assert_eq!(reference.to_string().parse(), Ok(reference));
    }
    if let Ok(repository) = text.parse::<Repository>() {
        assert_eq!(repository.to_string().parse(), Ok(repository));
    }
    if let Ok(tag) = text.parse::<Tag>() {
        assert_eq!(tag.as_str(), text);
    }
}
