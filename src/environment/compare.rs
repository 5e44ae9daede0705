//! The heart of a plan, without any request: a record, a listing and a wish in, a draft out.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use super::clear::Condemned;
use super::desired::{Desired, DesiredDags, DesiredImage};
use super::draft::{Draft, ImageSource};
use super::drain::Draining;
use super::record::{GenerationRecord, RecordedDag, RecordedImage};
use super::summary::{PlanSummary, summarise};
use super::{EnvironmentError, Live, Options};
use crate::bucket::{Checksums, ObjectKey};
use crate::oci::{Repository, Sha256Digest, Tag};
use forebay_store::ObjectDigest;

/// What came of a comparison.
pub(super) struct Compared {
    /// Absent if everything is as it is to be.
    pub(super) draft: Option<Draft>,
    pub(super) summary: PlanSummary,
    /// What bars the way.
    pub(super) obstacles: Vec<EnvironmentError>,
}

/// What is to be recorded next, if anything.
pub(super) fn compare(
    base: Option<&GenerationRecord>,
    live: &Live,
    desired: Desired,
    draining: Draining,
    condemned: &Condemned,
    repository: &Repository,
    options: &Options,
) -> Result<Compared, EnvironmentError> {
    let action = desired.action();
    let image = desired.image();
    let tag: Tag = desired.version.image_tag().parse()?;
    let (files, others_stay) = match desired.dags {
        DesiredDags::All(files) => (files, false),
        DesiredDags::Only(files) => (files, true),
    };
    let chosen: BTreeSet<_> = files.iter().map(|file| file.workflow.clone()).collect();
    let live_files = base.map(GenerationRecord::by_workflow).unwrap_or_default();
    let mut dags = BTreeMap::new();
    let mut bytes = BTreeMap::new();
    for wanted in files {
        let (key, dag) = match live_files.get(&wanted.workflow) {
            // An identity knows the image only where the file names its digest.
            Some(&(key, dag))
                if dag.identity == wanted.identity
                    && dag.image == image
                    && options.dags_prefix.is_place_of(key) =>
            {
                (key.clone(), dag.clone())
            }
            _ => {
                let key = options.dags_prefix.key(&wanted.file_name)?;
                let object = ObjectDigest::of(&wanted.bytes);
                let dag = RecordedDag {
                    workflow: wanted.workflow,
                    identity: wanted.identity,
                    image,
                    image_tag: is_named_by_tag(&wanted.bytes, &tag, &image)
                        .then(|| tag.to_string()),
                    object,
                    start: wanted.start,
                    ends: None,
                    checksums: Checksums::of(&wanted.bytes),
                };
                bytes.insert(object, wanted.bytes.into());
                (key, dag)
            }
        };
        if dags.contains_key(&key) {
            return Err(EnvironmentError::DuplicateKey { key });
        }
        dags.insert(key, dag);
    }
    if let (true, Some(base)) = (others_stay, base) {
        let pushes = matches!(desired.image, DesiredImage::Push(_));
        for (key, dag) in &base.dags {
            if chosen.contains(&dag.workflow) {
                continue;
            }
            if dags.contains_key(key) {
                return Err(EnvironmentError::DuplicateKey { key: key.clone() });
            }
            let mut dag = dag.clone();
            // The push moves that tag, and with it what the file runs.
            if dag.image_tag.as_deref() == Some(tag.as_str())
                && pushes
                && is_from(base, &dag, repository)
            {
                dag.image = image;
            }
            dags.insert(key.clone(), dag);
        }
    }
    for (key, (dag, file)) in draining {
        if let Entry::Vacant(free) = dags.entry(key) {
            bytes.insert(dag.object, file);
            free.insert(dag);
        }
    }
    // An image that the registry has lost is pushed, and tagged, as a new one.
    let lost = live.image_is_present(&image) == Some(false);
    let retained = retained_images(base, &image, &dags, lost);
    let draft = Draft {
        action,
        rollback_of: None,
        git: desired.git,
        ancestors: Vec::new(),
        rolled_away: Vec::new(),
        image,
        contents: BTreeMap::new(),
        retained,
        source: match desired.image {
            DesiredImage::Push(image) => ImageSource::Push(image, tag),
            DesiredImage::Existing(_) => ImageSource::Existing,
        },
        version: desired.version,
        dags,
        bytes,
    };
    let (summary, obstacles) = summarise(base, live, &draft, condemned, options);
    let same = base.is_some_and(|base| base.image == image && base.dags == draft.dags);
    // What was deployed with changes that no commit had, and is committed now, is
    // recorded as that commit: the same files under a new number.
    let is_committed = base.is_some_and(GenerationRecord::is_dirty)
        && draft.git.as_ref().is_some_and(|git| !git.dirty);
    let unchanged = same && summary.restored.is_empty() && !lost && !is_committed;
    Ok(Compared {
        draft: (!unchanged).then_some(draft),
        summary,
        obstacles,
    })
}

/// Whether a DAG file runs what the version's tag names. Beside a digest the tag is only a
/// comment. The repository's spelling is the project's, so it is not looked at.
fn is_named_by_tag(file: &[u8], tag: &Tag, image: &Sha256Digest) -> bool {
    let file = String::from_utf8_lossy(file);
    let goes_on = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    !file.contains(&format!("@{image}"))
        && file
            .split(&format!(":{tag}"))
            .skip(1)
            .any(|rest| !rest.starts_with(goes_on))
}

/// Whether a DAG's image was recorded in that repository.
fn is_from(base: &GenerationRecord, dag: &RecordedDag, repository: &Repository) -> bool {
    let mut images = base.images.iter();
    images.any(|image| image.digest == dag.image && image.repository == repository.to_string())
}

/// The images of the live generation that are still needed, with the tags that they have.
fn retained_images(
    base: Option<&GenerationRecord>,
    image: &Sha256Digest,
    dags: &BTreeMap<ObjectKey, RecordedDag>,
    image_is_lost: bool,
) -> Vec<RecordedImage> {
    let needed = |digest: &Sha256Digest| {
        if digest == image {
            !image_is_lost
        } else {
            dags.values().any(|dag| dag.image == *digest)
        }
    };
    let images = base.into_iter().flat_map(|base| &base.images);
    images
        .filter(|image| needed(&image.digest))
        .cloned()
        .collect()
}
