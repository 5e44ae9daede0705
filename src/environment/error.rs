//! What stops a deployment, with all that a message needs: each variant that a
//! command has an exit code for stands alone.

use std::time::Duration;

use super::drift::Drifted;
use super::owners::{Owners, with_owners};
use crate::bucket::{BucketError, InvalidKey, ObjectKey};
use crate::oci::{ParseReferenceError, Sha256Digest};
use crate::registry::RegistryError;

/// Why an environment could not be read or changed.
///
/// Unless it is [`Interrupted`](Self::Interrupted), nothing visible has changed.
#[derive(Debug, thiserror::Error)]
pub enum EnvironmentError {
    /// Another deploy is being applied and its lease is running.
    #[error("{}", held(holder, *generation, *remaining))]
    Held {
        /// Who applies it.
        holder: String,
        /// What is being applied.
        generation: u64,
        /// How long its lease still runs, by the server's clock.
        remaining: Duration,
    },
    /// Another deploy changed the environment while ours was being prepared or applied.
    #[error("{winner} changed the environment first: {state}")]
    Lost {
        /// Who won.
        winner: String,
        /// What the environment is at now, in words.
        state: String,
    },
    /// Objects that we wrote were changed or deleted by somebody else.
    #[error("somebody changed {} of this environment's files since the last deploy", objects.len())]
    Drift {
        /// Which, sorted by key.
        objects: Vec<Drifted>,
    },
    /// The keys that we would write are taken by objects that are not ours.
    #[error("{} of the keys to be written belong{} to somebody else: {}", keys.len(), if keys.len() == 1 { "s" } else { "" }, with_owners(keys, owners))]
    ForeignKeys {
        /// Which, sorted.
        keys: Vec<String>,
        /// Whose they are, where that is known.
        owners: Owners,
    },
    /// DAG files of this project's that nobody has recorded: BigFlow's.
    #[error("{} of this project that Forebay did not deploy {} in dags/, and would run beside the new ones", count(files.len()), if files.len() == 1 { "is" } else { "are" })]
    OldFiles {
        /// Which, in words, sorted by key.
        files: Vec<String>,
    },
    /// Objects of others would be deleted, and nobody has agreed to it.
    #[error("{} of others would be deleted", count(keys.len()))]
    Unconfirmed {
        /// Which, sorted.
        keys: Vec<String>,
        /// Whose they are, where that is known.
        owners: Owners,
    },
    /// A plan that was made on what an adoption would record: it can only be looked at.
    #[error("this was planned before BigFlow's files were adopted")]
    Foreseen,
    /// The live commit contains ours.
    #[error("generation {generation} is of commit {live}, which is newer than {ours}")]
    OlderCommit {
        /// The live generation.
        generation: u64,
        /// Its commit.
        live: String,
        /// The commit that would have been deployed.
        ours: String,
    },
    /// A rollback led away from the very set that would be deployed.
    #[error("this image with these DAGs was rolled away by {holder}, with generation {generation}")]
    RolledAway {
        /// The rollback, which is live.
        generation: u64,
        /// Who rolled back.
        holder: String,
    },
    /// Another generation is being applied than the one whose lease was to be ended.
    #[error("not generation {named} is being applied, but generation {held}, by {holder}")]
    OtherLock {
        /// The generation that was named.
        named: u64,
        /// The one that is being applied.
        held: u64,
        /// By whom.
        holder: String,
    },
    /// There is no such generation to compare.
    #[error("{}", no_generation(*.generation))]
    NoGeneration {
        /// The generation that was named, if one was.
        generation: Option<u64>,
    },
    /// What would be done now is not what was planned.
    #[error("the plan is stale")]
    StalePlan {
        /// What is different, a line each.
        differences: Vec<String>,
    },
    /// A deploy without any DAG would delete all that are live.
    #[error("there is no DAG to deploy")]
    EmptySet,
    /// Two DAGs want the same file.
    #[error("two DAGs have the same key {key}")]
    DuplicateKey {
        /// The key.
        key: ObjectKey,
    },
    /// A DAG's image is not in the registry.
    #[error("the image {image} is not in the registry")]
    ImageMissing {
        /// `REPOSITORY@DIGEST`, or `REPOSITORY:TAG`.
        image: String,
    },
    /// An image was recorded in another repository than the environment has now.
    #[error(
        "the image {image} is not in this environment's repository, {current}; name its repository with --docker-repository {repository}"
    )]
    ImageElsewhere {
        /// `REPOSITORY@DIGEST`.
        image: String,
        /// Its repository.
        repository: String,
        /// The environment's repository.
        current: String,
    },
    /// Somebody wished that the program stops.
    #[error("{}", stopped(*done, *total, *live))]
    Stopped {
        /// How many changes to the bucket were made.
        done: usize,
        /// How many were to be made.
        total: usize,
        /// What is recorded as live all the same.
        live: Option<u64>,
    },
    /// Somebody wished that pruning stops.
    #[error(
        "it was told to stop after {done} of {total} deletions; nothing that is needed is among them"
    )]
    PruningStopped {
        /// How many were made.
        done: usize,
        /// How many were to be made.
        total: usize,
    },
    /// The deploy stopped after it had begun to change the bucket.
    #[error("interrupted while applying generation {generation}")]
    Interrupted {
        /// What was being applied.
        generation: u64,
        /// What stopped it.
        #[source]
        source: Box<EnvironmentError>,
    },
    /// What the bucket holds after everything was written is not what was to be there.
    #[error("after the upload these objects are not as they were written: {}", keys.join(", "))]
    NotVerified {
        /// Which, sorted.
        keys: Vec<String>,
    },
    /// There is no such generation to return to.
    #[error("{}", no_target(*.generation))]
    NoRollbackTarget {
        /// The generation that was asked for, if one was.
        generation: Option<u64>,
        /// The generations that everything is there for, newest first.
        usable: Vec<u64>,
    },
    /// Something that the rollback target consists of is gone.
    #[error("generation {generation} cannot be restored: {}", missing.join(", "))]
    RollbackUnavailable {
        /// The generation that was asked for.
        generation: u64,
        /// What is gone, in words.
        missing: Vec<String>,
        /// The generations that everything is there for, newest first.
        usable: Vec<u64>,
    },
    /// A record that was written by a newer program.
    #[error("{key} has format {found}; this program knows formats up to {known}")]
    Newer {
        /// The record's key.
        key: String,
        /// Its format.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// A record that is not what the format says.
    #[error("{key} is not valid: {problem}")]
    Malformed {
        /// The record's key.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A record or a DAG's bytes are nowhere to be found.
    #[error("{what} is lost: neither the bucket nor this machine's store has it")]
    LostObject {
        /// What it is, with its digest or key.
        what: String,
    },
    /// All generation numbers that we tried are taken by records of dead deploys.
    #[error("the generation numbers up to {last} are all taken")]
    NumbersTaken {
        /// The last one that was tried.
        last: u64,
    },
    /// The bucket.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// The registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// This machine's store.
    #[error(transparent)]
    Store(#[from] forebay_store::StoreError),
    /// A name that cannot stand in a key.
    #[error(transparent)]
    Key(#[from] InvalidKey),
    /// A name that cannot stand in a tag.
    #[error(transparent)]
    Reference(#[from] ParseReferenceError),
    /// A worker thread ended without an answer.
    #[error("a background task failed")]
    Task(#[source] tokio::task::JoinError),
}

fn count(files: usize) -> String {
    match files {
        1 => "1 file".to_owned(),
        files => format!("{files} files"),
    }
}

fn held(holder: &str, generation: u64, remaining: Duration) -> String {
    match remaining.as_secs() {
        0 => format!("generation {generation} was left unfinished by {holder}"),
        seconds => format!(
            "{holder} is applying generation {generation}, and holds the environment for up to {seconds} s more"
        ),
    }
}

fn no_generation(generation: Option<u64>) -> String {
    match generation {
        Some(generation) => {
            format!("generation {generation} is not in the history of this environment")
        }
        None => "there are no two generations to compare".into(),
    }
}

fn no_target(generation: Option<u64>) -> String {
    match generation {
        Some(_) => no_generation(generation),
        None => "there is no earlier generation with another set of DAGs or another image".into(),
    }
}

fn stopped(done: usize, total: usize, live: Option<u64>) -> String {
    let live = match live {
        Some(generation) => format!("generation {generation} is still what is recorded as live"),
        None => "nothing is recorded as live yet".to_owned(),
    };
    format!("it was told to stop after {done} of {total} changes to dags/; {live}")
}

impl EnvironmentError {
    /// Says that the bucket has begun to change.
    pub(super) fn interrupts(self, generation: u64) -> Self {
        match self {
            // Whoever took over decides what becomes of it.
            Self::Lost { .. } | Self::Interrupted { .. } => self,
            other => Self::Interrupted {
                generation,
                source: Box::new(other),
            },
        }
    }

    pub(super) fn image_missing(repository: &str, digest: &Sha256Digest) -> Self {
        Self::ImageMissing {
            image: format!("{repository}@{digest}"),
        }
    }
}
