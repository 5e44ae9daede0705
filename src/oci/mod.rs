//! The words of the OCI image specification that images and registries share:
//! references, descriptors, manifests and blobs.

mod blob;
mod descriptor;
mod reference;

pub use blob::{BlobSource, BytesBlob};
pub use descriptor::{Descriptor, ImageIndex, ImageManifest, IndexEntry, IndexPlatform, MediaType};
pub use reference::{ImageReference, ParseReferenceError, Repository, Tag};

pub use forebay_store::Sha256Digest;
