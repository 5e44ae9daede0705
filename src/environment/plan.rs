//! What a deploy would change. [`compare`] is pure: records and listings in,
//! a plan out; [`Environment::plan`] only fetches what it needs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use super::drift::{Drifted, by_key, drift};
use super::head::listing_digest;
use super::lease::lost_against;
use super::owners::Owners;
use super::record::{
    Action, GenerationRecord, RecordedCommit, RecordedDag, RecordedImage, may_own, state_digest,
};
use super::written::Written;
use super::{Environment, EnvironmentError, Live, Options};
use crate::bucket::{Checksums, ObjectKey};
use crate::dags::DagFile;
use crate::oci::{Repository, Sha256Digest, Tag};
use crate::project::{Version, WorkflowId};
use crate::registry::{FetchedManifest, ImageToPush};
use forebay_store::ObjectDigest;

/// Whether the commit `older` is contained in `newer`; `None` if nobody can tell.
pub type IsAncestor<'a> = &'a (dyn Fn(&str, &str) -> Option<bool> + Sync);

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

/// What a plan does, for people. A workflow is in at most one list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlanSummary {
    /// Workflows that were not live.
    pub added: Vec<WorkflowId>,
    /// Workflows whose file is replaced.
    pub changed: Vec<WorkflowId>,
    /// Workflows whose file stays.
    pub reused: Vec<WorkflowId>,
    /// Workflows that are no longer wanted.
    pub retired: Vec<WorkflowId>,
    /// How many objects in `dags/` are not ours and stay untouched.
    pub foreign: usize,
    /// Objects of ours that somebody changed and that are written anew.
    pub restored: Vec<Drifted>,
    /// The image, if another one was live.
    pub new_image: Option<Sha256Digest>,
}

/// What a deploy or a rollback would do.
pub struct Plan {
    pub(super) live: Live,
    pub(super) base: Option<Arc<GenerationRecord>>,
    /// Absent if everything is as it is to be.
    pub(super) draft: Option<Draft>,
    /// For people.
    pub summary: PlanSummary,
}

impl Plan {
    /// Whether nothing is to be done.
    pub fn is_unchanged(&self) -> bool {
        self.draft.is_none()
    }

    /// What the environment was at when this was planned.
    pub fn live(&self) -> &Live {
        &self.live
    }
}

/// A generation that has no number yet.
pub(super) struct Draft {
    pub(super) action: Action,
    pub(super) rollback_of: Option<u64>,
    pub(super) version: Version,
    pub(super) git: Option<RecordedCommit>,
    pub(super) image: Sha256Digest,
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
    /// They were proven to be there; these have lost their tag.
    Proven(Vec<FetchedManifest>),
}

impl Draft {
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

impl Desired {
    fn image(&self) -> Sha256Digest {
        match &self.image {
            DesiredImage::Push(image) => image.manifest.descriptor.digest,
            DesiredImage::Existing(digest) => *digest,
        }
    }

    fn dags(&self) -> &[DagFile] {
        let (DesiredDags::All(dags) | DesiredDags::Only(dags)) = &self.dags;
        dags
    }

    fn action(&self) -> Action {
        match (&self.image, &self.dags) {
            (DesiredImage::Existing(_), _) => Action::DeployDags,
            (DesiredImage::Push(_), DesiredDags::Only(dags)) if dags.is_empty() => {
                Action::DeployImage
            }
            (DesiredImage::Push(_), _) => Action::Deploy,
        }
    }
}

impl Environment {
    /// Compares what is live with what is to be live.
    ///
    /// If HEAD and the listing alone say that nothing has changed, no record is read.
    ///
    /// # Errors
    /// [`EnvironmentError::Drift`], [`EnvironmentError::ForeignKeys`],
    /// [`EnvironmentError::OlderCommit`], [`EnvironmentError::EmptySet`] and
    /// [`EnvironmentError::DuplicateKey`] refuse; [`EnvironmentError::Held`] if
    /// a change is being applied: see [`Environment::settle`].
    pub async fn plan(
        &self,
        mut live: Live,
        desired: Desired,
        is_ancestor: IsAncestor<'_>,
    ) -> Result<Plan, EnvironmentError> {
        self.refuse_unsettled(&live)?;
        if matches!(&desired.dags, DesiredDags::All(dags) if dags.is_empty()) {
            return Err(EnvironmentError::EmptySet);
        }
        let image = desired.image();
        if live.generation().is_some_and(|live| live.image == image)
            && live.image_is_present(&image).is_none()
        {
            live.image = Some((image, self.has_image(&image).await?));
        }
        if let Some(summary) = unchanged_by_head(&live, &desired) {
            return Ok(Plan {
                live,
                base: None,
                draft: None,
                summary,
            });
        }
        let base = self.live_record(&live).await?;
        self.widen(&mut live.listing, &[base.as_deref()]).await?;
        let compared = compare(
            base.as_deref(),
            &live,
            desired,
            self.registry.repository(),
            &self.options,
        );
        let (draft, summary) = self.unless_lost(&live, compared).await?;
        if let (Some(draft), Some(base)) = (&draft, base.as_deref())
            && !self.options.allow_older
        {
            refuse_older(base, draft.git.as_ref(), is_ancestor)?;
        }
        Ok(Plan {
            live,
            base,
            draft,
            summary,
        })
    }

    /// Whether HEAD and the listing alone say that nothing would change.
    pub fn is_unchanged(&self, live: &Live, desired: &Desired) -> bool {
        unchanged_by_head(live, desired).is_some()
    }

    /// HEAD and the listing are read at the same time, so that what somebody has
    /// deployed in between looks like drift: HEAD tells the two apart.
    pub(super) async fn unless_lost<T>(
        &self,
        live: &Live,
        result: Result<T, EnvironmentError>,
    ) -> Result<T, EnvironmentError> {
        let Err(EnvironmentError::Drift { .. } | EnvironmentError::ForeignKeys { .. }) = &result
        else {
            return result;
        };
        let now = self.read_head().await?;
        let seen = live.seen.as_ref().map(|seen| seen.generation);
        if now.as_ref().map(|now| now.generation) == seen {
            return match result {
                Err(error) => Err(self.naming_owners(error).await),
                result => result,
            };
        }
        Err(lost_against(now))
    }

    pub(super) fn refuse_unsettled(&self, live: &Live) -> Result<(), EnvironmentError> {
        match live
            .seen
            .as_ref()
            .zip(live.head().and_then(|head| head.applying.as_ref()))
        {
            None => Ok(()),
            Some((seen, intent)) => Err(EnvironmentError::Held {
                holder: intent.holder.clone(),
                generation: intent.reference.generation,
                remaining: intent
                    .remaining(seen.updated, seen.server_time)
                    .unwrap_or_default(),
            }),
        }
    }
}

/// The shortest way to "nothing to do": the same image and identities, all of
/// `dags/` as it was when the live generation was verified.
fn unchanged_by_head(live: &Live, desired: &Desired) -> Option<PlanSummary> {
    let DesiredDags::All(dags) = &desired.dags else {
        return None;
    };
    let generation = live.generation()?;
    let image = desired.image();
    let state = state_digest(
        &image,
        dags.iter()
            .map(|dag| (&dag.workflow, &dag.identity, &image)),
    );
    let unchanged = generation.state == state
        && generation.listing == listing_digest(&live.listing)
        && live.image_is_present(&image) == Some(true);
    unchanged.then(|| PlanSummary {
        reused: dags.iter().map(|dag| dag.workflow.clone()).collect(),
        foreign: live.listing.objects.len().saturating_sub(dags.len()),
        ..PlanSummary::default()
    })
}

/// An older commit does not overwrite a newer one, unless somebody rolled back to the live one.
fn refuse_older(
    base: &GenerationRecord,
    ours: Option<&RecordedCommit>,
    is_ancestor: IsAncestor<'_>,
) -> Result<(), EnvironmentError> {
    let (Some(live), Some(ours), None) = (&base.git, ours, base.rollback_of) else {
        return Ok(());
    };
    if live.commit != ours.commit && is_ancestor(&ours.commit, &live.commit) == Some(true) {
        return Err(EnvironmentError::OlderCommit {
            generation: base.generation,
            live: live.commit.clone(),
            ours: ours.commit.clone(),
        });
    }
    Ok(())
}

/// The heart of a plan: what is to be recorded next, if anything.
fn compare(
    base: Option<&GenerationRecord>,
    live: &Live,
    desired: Desired,
    repository: &Repository,
    options: &Options,
) -> Result<(Option<Draft>, PlanSummary), EnvironmentError> {
    let image = desired.image();
    let tag: Tag = desired.version.image_tag().parse()?;
    let of_base = |workflow: &WorkflowId| {
        let mut dags = base.into_iter().flat_map(|base| &base.dags);
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
    // An image that the registry has lost is pushed, and tagged, as a new one.
    let lost = live.image_is_present(&image) == Some(false);
    let retained = retained_images(base, &image, &dags, lost);
    let action = desired.action();
    let draft = Draft {
        action,
        rollback_of: None,
        git: desired.git,
        image,
        retained,
        source: match desired.image {
            DesiredImage::Push(image) => ImageSource::Push(image, tag),
            DesiredImage::Existing(_) => ImageSource::Existing,
        },
        version: desired.version,
        dags,
        bytes,
    };
    let summary = summarise(base, live, &draft, options)?;
    let same = base.is_some_and(|base| base.image == image && base.dags == draft.dags);
    let unchanged = same && summary.restored.is_empty() && !lost;
    Ok(((!unchanged).then_some(draft), summary))
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

/// What a draft means for the bucket, or why it may not be applied.
pub(super) fn summarise(
    base: Option<&GenerationRecord>,
    live: &Live,
    draft: &Draft,
    options: &Options,
) -> Result<PlanSummary, EnvironmentError> {
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
        return Err(EnvironmentError::Drift { objects: drifted });
    }
    let objects = by_key(listing);
    let ours = |key: &ObjectKey| base.is_some_and(|base| base.dags.contains_key(key));
    let foreign: Vec<String> = draft
        .dags
        .keys()
        .filter(|key| !may_own(key) || (!ours(key) && objects.contains_key(key.as_str())))
        .map(ObjectKey::to_string)
        .collect();
    if !foreign.is_empty() {
        return Err(EnvironmentError::ForeignKeys {
            keys: foreign,
            owners: Owners::new(),
        });
    }
    let before: BTreeMap<_, _> = base
        .into_iter()
        .flat_map(|base| &base.dags)
        .map(|(key, dag)| (&dag.workflow, (key, dag)))
        .collect();
    let mut summary = PlanSummary {
        foreign: objects.len()
            - base.map_or(0, |base| {
                let keys = base.dags.keys();
                keys.filter(|key| objects.contains_key(key.as_str()))
                    .count()
            }),
        restored: drifted,
        new_image: (base.map(|base| base.image) != Some(draft.image)).then_some(draft.image),
        ..PlanSummary::default()
    };
    let mut wanted = BTreeSet::new();
    for (key, dag) in &draft.dags {
        wanted.insert(&dag.workflow);
        let list = match before.get(&dag.workflow) {
            None => &mut summary.added,
            Some(known) if *known == (key, dag) => &mut summary.reused,
            Some(_) => &mut summary.changed,
        };
        list.push(dag.workflow.clone());
    }
    let retired = before.keys().filter(|workflow| !wanted.contains(*workflow));
    summary.retired = retired.map(|workflow| (*workflow).clone()).collect();
    Ok(summary)
}
