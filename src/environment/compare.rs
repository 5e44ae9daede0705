//! The heart of a plan, without any request: a record, a listing and a wish in, a draft out.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::clear::Condemned;
use super::drain::Draining;
use super::drift::{by_key, drift};
use super::owners::Owners;
use super::plan::{Desired, DesiredDags, DesiredImage, Draft, ImageSource, PlanSummary};
use super::record::{GenerationRecord, RecordedDag, RecordedImage, may_own};
use super::written::Written;
use super::{EnvironmentError, Live, Options};
use crate::bucket::{Checksums, ObjectKey};
use crate::oci::{Repository, Sha256Digest, Tag};
use crate::project::WorkflowId;
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
    let image = desired.image();
    let tag: Tag = desired.version.image_tag().parse()?;
    let of_base = |workflow: &WorkflowId| {
        let mut dags = base.into_iter().flat_map(GenerationRecord::lasting);
        dags.find(|(_, dag)| dag.workflow == *workflow)
    };
    let mut dags = BTreeMap::new();
    let mut bytes = BTreeMap::new();
    for wanted in desired.dags() {
        let (key, dag) = match of_base(&wanted.workflow) {
            // An identity knows the image only where the file names its digest.
            Some((key, dag))
                if dag.identity == wanted.identity
                    && dag.image == image
                    && options.dags_prefix.is_place_of(key) =>
            {
                (key.clone(), dag.clone())
            }
            _ => {
                let key = options.dags_prefix.key(&wanted.file_name)?;
                let object = ObjectDigest::of(&wanted.bytes);
                bytes.insert(object, Bytes::copy_from_slice(&wanted.bytes));
                let dag = RecordedDag {
                    workflow: wanted.workflow.clone(),
                    identity: wanted.identity,
                    image,
                    image_tag: is_named_by_tag(&wanted.bytes, &tag, &image)
                        .then(|| tag.to_string()),
                    object,
                    start: wanted.start,
                    ends: None,
                    checksums: Checksums::of(&wanted.bytes),
                };
                (key, dag)
            }
        };
        if dags.contains_key(&key) {
            return Err(EnvironmentError::DuplicateKey { key });
        }
        dags.insert(key, dag);
    }
    if let (DesiredDags::Only(only), Some(base)) = (&desired.dags, base) {
        let pushes = matches!(desired.image, DesiredImage::Push(_));
        let chosen: BTreeSet<_> = only.iter().map(|dag| &dag.workflow).collect();
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
    let action = desired.action();
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

/// What a draft means for the bucket, and why it may not be applied.
pub(super) fn summarise(
    base: Option<&GenerationRecord>,
    live: &Live,
    draft: &Draft,
    condemned: &Condemned,
    options: &Options,
) -> (PlanSummary, Vec<EnvironmentError>) {
    let mut obstacles = Vec::new();
    let listing = &live.listing;
    let drifted = base.map(|base| {
        let leaves = |key: &ObjectKey| {
            let (before, after) = (base.dags.get(key), draft.dags.get(key));
            before.map(|dag| dag.checksums) != after.map(|dag| dag.checksums)
        };
        let written = Written::of(Some(base), live.generation());
        let mut drifted = drift(base, listing);
        drifted.extend(written.rewritten(base, listing, leaves));
        drifted
    });
    let drifted = drifted.unwrap_or_default();
    if !drifted.is_empty() && !options.restore_drift {
        obstacles.push(EnvironmentError::Drift {
            objects: drifted.clone(),
        });
    }
    let objects = by_key(listing);
    let ours = |key: &ObjectKey| base.is_some_and(|base| base.dags.contains_key(key));
    let foreign: Vec<String> = draft
        .dags
        .keys()
        .filter(|key| {
            !may_own(key)
                || (!ours(key) && !condemned.has_key(key) && objects.contains_key(key.as_str()))
        })
        .map(ObjectKey::to_string)
        .collect();
    if !foreign.is_empty() {
        obstacles.push(EnvironmentError::ForeignKeys {
            keys: foreign,
            owners: Owners::new(),
        });
    }
    let before: BTreeMap<_, _> = base
        .into_iter()
        .flat_map(GenerationRecord::lasting)
        .map(|(key, dag)| (&dag.workflow, (key, dag)))
        .collect();
    let mut summary = PlanSummary {
        foreign: objects.len()
            - base.map_or(0, |base| {
                let keys = base.dags.keys();
                keys.filter(|key| objects.contains_key(key.as_str()))
                    .count()
            })
            - condemned.keys().count(),
        new_image: (base.map(|base| base.image) != Some(draft.image)).then_some(draft.image),
        ..PlanSummary::default()
    };
    let mut wanted = BTreeSet::new();
    for (key, dag) in &draft.dags {
        let is_new_end = base.is_none_or(|base| base.dags.get(key) != Some(dag));
        let list = match before.get(&dag.workflow) {
            _ if dag.ends.is_some() => is_new_end.then_some(&mut summary.draining),
            None => Some(&mut summary.added),
            Some(known) if *known == (key, dag) => Some(&mut summary.reused),
            Some(_) => Some(&mut summary.changed),
        };
        list.into_iter()
            .for_each(|list| list.push(dag.workflow.clone()));
        if dag.ends.is_none() {
            wanted.insert(&dag.workflow);
        }
        let object = objects.get(key.as_str());
        if !object.is_some_and(|object| dag.checksums.matches(object)) {
            summary.uploads += 1;
            summary.upload_bytes += dag.checksums.size;
        }
    }
    summary.draining.sort();
    summary.draining.dedup();
    let leaving = base.into_iter().flat_map(|base| &base.dags);
    let leaving = leaving.filter(|(key, _)| !draft.dags.contains_key(*key));
    let retired: BTreeSet<_> = leaving
        .map(|(_, dag)| &dag.workflow)
        .filter(|workflow| !wanted.contains(workflow))
        .collect();
    summary.retired = retired.into_iter().cloned().collect();
    let leaving = base.into_iter().flat_map(|base| base.dags.keys());
    summary.deletes = leaving
        .chain(condemned.keys())
        .filter(|key| !draft.dags.contains_key(*key) && objects.contains_key(key.as_str()))
        .count();
    summary.cleared = condemned.keys().map(ObjectKey::to_string).collect();
    summary.restored = drifted;
    (summary, obstacles)
}
