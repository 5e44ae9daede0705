//! What is to be live: what whoever builds asks an environment for.

use super::record::{Action, RecordedCommit};
use crate::dags::DagFile;
use crate::oci::Sha256Digest;
use crate::project::Version;
use crate::registry::ImageToPush;

/// What is to be live.
pub struct Desired {
    /// The image that these DAGs run.
    pub image: DesiredImage,
    /// The DAGs.
    pub dags: DesiredDags,
    /// The project's version, which also becomes the image's tag.
    pub version: Version,
    /// The git commit, where there is one.
    pub git: Option<RecordedCommit>,
}

/// An image that is to be live.
pub enum DesiredImage {
    /// Brought into the registry if it is not there.
    Push(ImageToPush),
    /// Must be in the registry.
    Existing(Sha256Digest),
}

/// Which DAGs are to be live.
///
/// A file whose [`identity`](DagFile::identity) is that of the workflow's live
/// file is not taken: the live one stays, bytes and name.
pub enum DesiredDags {
    /// These and no others.
    All(Vec<DagFile>),
    /// These; all other workflows stay as they are. None at all for an image alone.
    Only(Vec<DagFile>),
}

impl Desired {
    pub(super) fn image(&self) -> Sha256Digest {
        match &self.image {
            DesiredImage::Push(image) => image.manifest.descriptor.digest,
            DesiredImage::Existing(digest) => *digest,
        }
    }

    pub(super) fn dags(&self) -> &[DagFile] {
        let (DesiredDags::All(dags) | DesiredDags::Only(dags)) = &self.dags;
        dags
    }

    pub(super) fn action(&self) -> Action {
        match (&self.image, &self.dags) {
            (DesiredImage::Existing(_), _) => Action::DeployDags,
            (DesiredImage::Push(_), DesiredDags::Only(dags)) if dags.is_empty() => {
                Action::DeployImage
            }
            (DesiredImage::Push(_), _) => Action::Deploy,
        }
    }
}
