//! The immutable record of what was deployed.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::EnvironmentError;
use super::key::{DAGS_PREFIX, EnvironmentKey, LAST_GENERATION, MONITORING_KEY};
use super::readable::{parse_readable, refuse_newer};
use crate::bucket::{Checksums, ObjectKey};
use crate::dags::{LiveStarts, WorkflowStart};
use crate::oci::{Sha256Digest, Tag};
use crate::project::{EnvironmentName, GitState, ProjectName, Version, WorkflowId};
use forebay_store::ObjectDigest;

/// One generation of an environment, as `generations/<number>.json` holds it
/// (`schema/generation.schema.json`). Written once, never changed; named by
/// the BLAKE3 of its bytes, which HEAD and the next generation carry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerationRecord {
    /// The version of this format; see [`GenerationRecord::SCHEMA`].
    pub schema: u32,
    /// Whose it is.
    pub project: ProjectName,
    /// Where it was deployed.
    pub environment: EnvironmentName,
    /// Its number. Numbers grow, but those of deploys that died are missing.
    pub generation: u64,
    /// The generation that was live before; absent for the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<RecordReference>,
    /// What brought it about.
    pub action: Action,
    /// The generation whose set this restores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback_of: Option<u64>,
    /// The project's version. A label, never content.
    pub version: Version,
    /// The git commit, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git: Option<RecordedCommit>,
    /// The nearest ancestors of that commit, at most [`GenerationRecord::ANCESTORS`]: a clone
    /// that is older than the commit tells by them that its own commit is older too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ancestors: Vec<String>,
    /// After a rollback: the [states](GenerationRecord::state) that it led away from. None of
    /// them is deployed again unasked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rolled_away: Vec<ObjectDigest>,
    /// When it was made, by the clock of whoever made it: for people, never judged by.
    pub created_at: Timestamp,
    /// Who made it.
    pub created_by: String,
    /// The program that wrote the record: `forebay 0.1.0`.
    pub program: String,
    /// The environment's image; DAGs deployed now run it.
    pub image: Sha256Digest,
    /// That image, and all others that DAGs run which were left as they were. Sorted by digest.
    pub images: Vec<RecordedImage>,
    /// Every DAG file, by its key in the bucket.
    pub dags: BTreeMap<ObjectKey, RecordedDag>,
}

/// Names a record beyond doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordReference {
    /// The generation's number.
    pub generation: u64,
    /// The BLAKE3 of the record's bytes.
    pub record: ObjectDigest,
}

/// What brought a generation about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Image and DAGs.
    Deploy,
    /// The image alone; the DAGs stayed as they were.
    DeployImage,
    /// DAGs alone; the image was in the registry.
    DeployDags,
    /// An earlier set again.
    Rollback,
    /// What BigFlow had deployed was recorded; nothing changed.
    Adopt,
}

/// The commit that was deployed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedCommit {
    /// Its full hash.
    pub commit: String,
    /// Whether tracked files differed from it.
    pub dirty: bool,
}

impl From<GitState> for RecordedCommit {
    fn from(state: GitState) -> Self {
        Self {
            commit: state.commit,
            dirty: state.dirty,
        }
    }
}

/// An image that the generation needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedImage {
    /// Its manifest's digest.
    pub digest: Sha256Digest,
    /// The repository, as `docker_repository` has it.
    pub repository: String,
    /// The tag that retains it: of the generation that first needed it.
    pub retention_tag: String,
    /// The BLAKE3 of [what is in it](crate::image::ImageContents), which `objects/` keeps;
    /// absent if whoever deployed it had not built it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contents: Option<ObjectDigest>,
}

/// A DAG file that is live in a generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedDag {
    /// The workflow that it runs.
    pub workflow: WorkflowId,
    /// The digest of what decides the file, without version and clock.
    pub identity: ObjectDigest,
    /// The image that it runs.
    pub image: Sha256Digest,
    /// The version's tag, if the file names its image by it: then the file runs
    /// what it was deployed with only as long as the tag is on that image.
    /// Absent where the file names the digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_tag: Option<String>,
    /// The BLAKE3 of its bytes, which `objects/` keeps.
    pub object: ObjectDigest,
    /// When it lets its workflow start; absent in records of programs that did not note it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<WorkflowStart>,
    /// The `end_date` that it was given when it was no longer wanted: the next deploy
    /// deletes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends: Option<Timestamp>,
    /// By which a listing tells whether the bucket still has these bytes.
    #[serde(flatten)]
    pub checksums: Checksums,
}

/// Refuses numbers that no key has, so that there always is a next one to count to.
pub(super) fn check_number(number: u64, place: &str) -> Result<(), EnvironmentError> {
    if (1..=LAST_GENERATION).contains(&number) {
        return Ok(());
    }
    Err(EnvironmentError::Malformed {
        key: place.to_owned(),
        problem: format!("{number} is not the number of a generation"),
    })
}

impl GenerationRecord {
    /// The version that we write.
    pub const SCHEMA: u32 = 1;

    /// How many ancestors of a commit are recorded.
    pub const ANCESTORS: usize = 100;

    /// Nothing is changed that a newer program has recorded.
    pub(super) fn refuse_newer(&self) -> Result<(), EnvironmentError> {
        let place = format!("the record of generation {}", self.generation);
        refuse_newer(&place, self.schema, Self::SCHEMA)
    }

    /// Whether its files had changes that no commit has.
    pub fn is_dirty(&self) -> bool {
        self.git.as_ref().is_some_and(|git| git.dirty)
    }

    /// The files that are to stay, without those that only come to their end.
    pub(super) fn lasting(&self) -> impl Iterator<Item = (&ObjectKey, &RecordedDag)> {
        self.dags.iter().filter(|(_, dag)| dag.ends.is_none())
    }

    /// The file of each workflow that is to stay; the first of several, as BigFlow may have left them.
    pub(super) fn by_workflow(&self) -> BTreeMap<&WorkflowId, (&ObjectKey, &RecordedDag)> {
        let mut files = BTreeMap::new();
        for (key, dag) in self.lasting() {
            files.entry(&dag.workflow).or_insert((key, dag));
        }
        files
    }

    /// The files that only come to their end, and that a later deploy deletes.
    pub fn draining(&self) -> impl Iterator<Item = &ObjectKey> {
        let ending = self.dags.iter().filter(|(_, dag)| dag.ends.is_some());
        ending.map(|(key, _)| key)
    }

    /// All objects of `objects/` that it needs: DAG files, contents of images.
    pub fn objects(&self) -> impl Iterator<Item = ObjectDigest> {
        let dags = self.dags.values().map(|dag| dag.object);
        dags.chain(self.images.iter().filter_map(|image| image.contents))
    }

    /// The bytes that are stored and digested: JSON without blanks, members in
    /// the order of the type, keys of `dags` sorted.
    pub(super) fn to_bytes(&self) -> Result<Vec<u8>, EnvironmentError> {
        serde_json::to_vec(self).map_err(|error| EnvironmentError::Malformed {
            key: format!("generation {}", self.generation),
            problem: error.to_string(),
        })
    }

    /// Reads a record and checks everything that we rely on later: above all
    /// that no key leads outside the DAGs folder.
    ///
    /// # Errors
    /// [`EnvironmentError::Newer`] and [`EnvironmentError::Malformed`], with `place` in them.
    pub fn parse(
        bytes: &[u8],
        environment: &EnvironmentKey,
        place: &str,
    ) -> Result<Self, EnvironmentError> {
        let record: Self = parse_readable(place, bytes, Self::SCHEMA)?;
        check_number(record.generation, place)?;
        let older = |other: u64| other < record.generation;
        let problem = if (&record.project, &record.environment)
            != (&environment.project, &environment.environment)
        {
            "it belongs to another project or environment".to_owned()
        } else if let Some(key) = record.dags.keys().find(|key| !may_own(key)) {
            format!("{key} can be nobody's DAG")
        } else if record.needed_images() != record.images.iter().map(|i| i.digest).collect() {
            "its list of images is not the one that its DAGs need".to_owned()
        } else if let Some(tag) = record.unusable_tag() {
            format!("{tag:?} is not a tag")
        } else if !record.parent.is_none_or(|parent| older(parent.generation))
            || !record.rollback_of.is_none_or(older)
        {
            "it follows a generation that is not older than itself".to_owned()
        } else {
            return Ok(record);
        };
        Err(EnvironmentError::Malformed {
            key: place.to_owned(),
            problem,
        })
    }

    /// The images that the DAGs run, and the environment's own.
    pub(super) fn needed_images(&self) -> BTreeSet<Sha256Digest> {
        let of_dags = self.dags.values().map(|dag| dag.image);
        of_dags.chain([self.image]).collect()
    }

    fn unusable_tag(&self) -> Option<&str> {
        let of_images = self.images.iter().map(|image| image.retention_tag.as_str());
        let of_dags = self.dags.values();
        let of_dags = of_dags.filter_map(|dag| dag.image_tag.as_deref());
        of_images
            .chain(of_dags)
            .find(|tag| tag.parse::<Tag>().is_err())
    }

    /// When the live workflows start, as far as it was recorded.
    pub fn starts(&self) -> LiveStarts {
        let starts = self
            .lasting()
            .filter_map(|(_, dag)| Some((dag.workflow.clone(), dag.start?)));
        LiveStarts {
            workflows: starts.collect(),
        }
    }

    /// The digest of what is live, whatever the version, the clock and the file names are,
    /// and which files only come to their end.
    pub fn state(&self) -> ObjectDigest {
        state_digest(
            &self.image,
            self.lasting()
                .map(|(_, dag)| (&dag.workflow, &dag.identity, &dag.image)),
        )
    }
}

impl RecordedImage {
    pub(super) fn tag(&self) -> Result<Tag, EnvironmentError> {
        Ok(self.retention_tag.parse()?)
    }
}

/// Whether a key may be a project's DAG at all.
pub(super) fn may_own(key: &ObjectKey) -> bool {
    key.as_str().starts_with(DAGS_PREFIX) && key.as_str() != MONITORING_KEY
}

/// The BLAKE3 of the image's digest and of every workflow's id and identity,
/// sorted by id: each digest as 32 raw bytes, the id ended by a zero byte. After
/// the identity of a workflow that runs another image come a zero byte, which
/// starts no id, and that image's digest.
pub(super) fn state_digest<'a>(
    image: &Sha256Digest,
    dags: impl Iterator<Item = (&'a WorkflowId, &'a ObjectDigest, &'a Sha256Digest)>,
) -> ObjectDigest {
    let mut dags: Vec<_> = dags.collect();
    dags.sort();
    let mut bytes = image.as_bytes().to_vec();
    for (workflow, identity, runs) in dags {
        bytes.extend_from_slice(workflow.as_str().as_bytes());
        bytes.push(0);
        bytes.extend_from_slice(identity.as_bytes());
        if runs != image {
            bytes.push(0);
            bytes.extend_from_slice(runs.as_bytes());
        }
    }
    ObjectDigest::of(&bytes)
}
