//! A generation before it is recorded: what a deploy, a rollback and an adoption have in common.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::record::{Action, RecordedCommit, RecordedDag, RecordedImage, state_digest};
use crate::bucket::ObjectKey;
use crate::oci::{Sha256Digest, Tag};
use crate::project::Version;
use crate::registry::{FetchedManifest, ImageToPush};
use forebay_store::ObjectDigest;

/// A generation that has no number yet.
pub(super) struct Draft {
    pub(super) action: Action,
    pub(super) rollback_of: Option<u64>,
    pub(super) version: Version,
    pub(super) git: Option<RecordedCommit>,
    pub(super) ancestors: Vec<String>,
    pub(super) rolled_away: Vec<ObjectDigest>,
    pub(super) image: Sha256Digest,
    /// What is known to be in images.
    pub(super) contents: BTreeMap<Sha256Digest, ObjectDigest>,
    /// The images that were recorded before and keep their tags.
    pub(super) retained: Vec<RecordedImage>,
    pub(super) source: ImageSource,
    pub(super) dags: BTreeMap<ObjectKey, RecordedDag>,
    /// The bytes of new DAGs.
    pub(super) bytes: BTreeMap<ObjectDigest, Bytes>,
}

/// How the images of a draft come to be in the registry, each with a tag that retains it.
pub(super) enum ImageSource {
    /// By a push, under the version's tag.
    Push(ImageToPush, Tag),
    /// It must be there.
    Existing,
    /// They were proven.
    Proven {
        /// These are there, and have lost their tag.
        untagged: Vec<FetchedManifest>,
        /// These were lost, and are pushed again.
        lost: Vec<ImageToPush>,
    },
}

impl Draft {
    pub(super) fn contents_of(&self, image: &Sha256Digest) -> Option<ObjectDigest> {
        self.contents.get(image).copied()
    }

    /// See [`GenerationRecord::state`].
    pub(super) fn state(&self) -> ObjectDigest {
        let dags = self.dags.values().filter(|dag| dag.ends.is_none());
        state_digest(
            &self.image,
            dags.map(|dag| (&dag.workflow, &dag.identity, &dag.image)),
        )
    }

    /// The images that need a tag of this generation's.
    pub(super) fn untagged(&self) -> BTreeSet<Sha256Digest> {
        let mut needed: BTreeSet<_> = self.dags.values().map(|dag| dag.image).collect();
        needed.insert(self.image);
        for image in &self.retained {
            needed.remove(&image.digest);
        }
        needed
    }
}
