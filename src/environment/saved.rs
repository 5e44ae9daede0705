//! A plan in a file: what somebody has looked at is what is deployed, or nothing.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::readable::parse_versioned;
use super::{Action, Environment, EnvironmentError, Plan, RecordReference, RecordedCommit};
use crate::bucket::ObjectKey;
use crate::dags::{LiveStarts, WorkflowStart};
use crate::oci::Sha256Digest;
use crate::project::{EnvironmentName, ProjectName, Version, WorkflowId};
use forebay_store::ObjectDigest;

/// What a deploy would do, completely enough to tell whether it still would
/// (`schema/saved-plan.schema.json`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedPlan {
    /// The version of this format; see [`SavedPlan::SCHEMA`].
    pub schema: u32,
    /// Whose.
    pub project: ProjectName,
    /// Where to.
    pub environment: EnvironmentName,
    /// The bucket, as messages name it.
    pub bucket: String,
    /// The image repository.
    pub repository: String,
    /// What was live.
    pub live: Option<RecordReference>,
    /// What would be live; absent if nothing was to be done.
    pub target: Option<SavedTarget>,
}

/// What would be recorded as the next generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedTarget {
    /// What brings it about.
    pub action: Action,
    /// The project's version.
    pub version: Version,
    /// The commit.
    pub git: Option<RecordedCommit>,
    /// The environment's image.
    pub image: Sha256Digest,
    /// Every DAG file.
    pub dags: BTreeMap<ObjectKey, SavedDag>,
    /// The files that somebody changed and that would be written anew.
    pub restored: Vec<ObjectKey>,
}

/// A DAG file that would be live.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedDag {
    /// The workflow that it runs.
    pub workflow: WorkflowId,
    /// The image that it runs.
    pub image: Sha256Digest,
    /// The BLAKE3 of its bytes.
    pub object: ObjectDigest,
    /// When it lets its workflow start, if that is known.
    pub start: Option<WorkflowStart>,
}

impl SavedPlan {
    /// The version that we write.
    pub const SCHEMA: u32 = 1;

    /// Reads one.
    ///
    /// # Errors
    /// [`EnvironmentError::Newer`] and [`EnvironmentError::Malformed`], with `place` in them.
    pub fn parse(bytes: &[u8], place: &str) -> Result<Self, EnvironmentError> {
        parse_versioned(place, bytes, Self::SCHEMA)
    }

    /// The start times that its files have. Files that are rendered with these
    /// are the same at any hour.
    pub fn starts(&self) -> LiveStarts {
        let dags = self.target.iter().flat_map(|target| target.dags.values());
        let starts = dags.filter_map(|dag| Some((dag.workflow.clone(), dag.start?)));
        LiveStarts {
            workflows: starts.collect(),
        }
    }

    /// Refuses `now` unless it does exactly what this does.
    ///
    /// # Errors
    /// [`EnvironmentError::StalePlan`] says what is different.
    pub fn refuse_other(&self, now: &Self) -> Result<(), EnvironmentError> {
        let differences = self.differences(now);
        match differences.is_empty() {
            true => Ok(()),
            false => Err(EnvironmentError::StalePlan { differences }),
        }
    }

    fn differences(&self, now: &Self) -> Vec<String> {
        let mut found = Vec::new();
        let mut compare = |what: &str, planned: String, now: String| {
            if planned != now {
                found.push(format!("{what}: planned for {planned}, now {now}"));
            }
        };
        compare("project", self.project.to_string(), now.project.to_string());
        compare(
            "environment",
            self.environment.to_string(),
            now.environment.to_string(),
        );
        compare("bucket", self.bucket.clone(), now.bucket.clone());
        compare(
            "repository",
            self.repository.clone(),
            now.repository.clone(),
        );
        let live = |live: &Option<RecordReference>| match live {
            Some(live) => format!("generation {}", live.generation),
            None => "nothing".to_owned(),
        };
        compare("what is live", live(&self.live), live(&now.live));
        match (&self.target, &now.target) {
            (Some(planned), Some(now)) => planned.differences(now, &mut compare),
            (planned, now) => {
                let changes = |target: &Option<SavedTarget>| match target {
                    Some(_) => "changes".to_owned(),
                    None => "no change".to_owned(),
                };
                compare("the deploy", changes(planned), changes(now));
            }
        }
        // Whatever else may differ, and however little it tells a person.
        if found.is_empty() && self != now {
            found.push("records or DAG files are not those that were planned".to_owned());
        }
        found
    }
}

impl SavedTarget {
    fn differences(&self, now: &Self, compare: &mut impl FnMut(&str, String, String)) {
        let commit = |git: &Option<RecordedCommit>| match git {
            Some(git) if git.dirty => format!("{} with uncommitted changes", git.commit),
            Some(git) => git.commit.clone(),
            None => "no commit".to_owned(),
        };
        compare("commit", commit(&self.git), commit(&now.git));
        compare("version", self.version.to_string(), now.version.to_string());
        compare("image", self.image.to_string(), now.image.to_string());
        let files = |target: &Self| -> BTreeMap<String, String> {
            let dags = target.dags.iter();
            dags.map(|(key, dag)| (key.to_string(), dag.object.to_string()))
                .collect()
        };
        let (planned, found) = (files(self), files(now));
        let keys: BTreeSet<_> = planned.keys().chain(found.keys()).collect();
        for key in keys {
            let of = |files: &BTreeMap<String, String>| match files.get(key) {
                Some(object) => object.clone(),
                None => "no such file".to_owned(),
            };
            compare(key, of(&planned), of(&found));
        }
        let keys = |target: &Self| {
            let keys = target.restored.iter().map(ObjectKey::to_string);
            match keys.collect::<Vec<_>>().join(", ") {
                keys if keys.is_empty() => "none".to_owned(),
                keys => keys,
            }
        };
        compare("files to be restored", keys(self), keys(now));
    }
}

impl Environment {
    /// A plan as it is kept in a file.
    pub fn saved(&self, plan: &Plan) -> SavedPlan {
        let target = plan.draft.as_ref().map(|draft| {
            let dags = draft.dags.iter().map(|(key, dag)| {
                let saved = SavedDag {
                    workflow: dag.workflow.clone(),
                    image: dag.image,
                    object: dag.object,
                    start: dag.start,
                };
                (key.clone(), saved)
            });
            let restored = plan.summary.restored.iter();
            SavedTarget {
                action: draft.action,
                version: draft.version.clone(),
                git: draft.git.clone(),
                image: draft.image,
                dags: dags.collect(),
                restored: restored.map(|drifted| drifted.key.clone()).collect(),
            }
        });
        SavedPlan {
            schema: SavedPlan::SCHEMA,
            project: self.key.project.clone(),
            environment: self.key.environment.clone(),
            bucket: self.bucket.location().to_string(),
            repository: self.registry.repository().to_string(),
            live: plan.live.generation().map(|live| live.reference),
            target,
        }
    }
}
