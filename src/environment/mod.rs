//! Environments: what is live, how it becomes something else, and how it
//! becomes what it was.
//!
//! HEAD names the live generation and is only ever swapped by comparison; the
//! records of generations are immutable. A deploy is [`Environment::observe`],
//! [`Environment::settle`] (which ends what another deploy left unfinished),
//! [`Environment::plan`] and [`Environment::apply`]; a rollback ends in the
//! same `apply`. The order of writes is stated there.

mod adopt;
mod apply;
mod claim;
mod clear;
mod compare;
mod desired;
mod difference;
mod draft;
mod drain;
mod drift;
mod error;
mod examine;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod head;
mod history;
mod images;
mod key;
mod lease;
mod local;
mod observe;
mod owners;
mod plan;
mod prefix;
mod proof;
mod prune;
mod readable;
mod record;
mod resume;
mod returning;
mod rollback;
mod saved;
mod status;
mod summary;
mod survey;
mod transition;
mod unlock;
mod written;

use std::sync::Arc;
use std::time::Duration;

pub use adopt::{OldFile, OldFiles};
pub use apply::Applied;
pub use desired::{Desired, DesiredDags, DesiredImage};
pub use difference::{Changed, DagDifference, Difference, ImageDifference};
pub use drain::Retire;
pub use drift::{DriftKind, Drifted, drift};
pub use error::EnvironmentError;
pub use examine::BrokenName;
pub use head::{Direction, Head, Intent, LiveGeneration, listing_digest};
pub use key::{DAGS_PREFIX, EnvironmentKey, MONITORING_KEY};
pub use observe::Live;
pub use owners::Owners;
pub use plan::{IsAncestor, Plan};
pub use prefix::{DagsPrefix, InvalidDagsPrefix};
pub use proof::OpenRepository;
pub use prune::{Prunable, Retention};
pub use record::{
    Action, GenerationRecord, RecordReference, RecordedCommit, RecordedDag, RecordedImage,
};
pub use resume::Settled;
pub use returning::{Returning, RollbackStart};
pub use rollback::RollbackTarget;
pub use saved::{SavedDag, SavedPlan, SavedTarget};
pub use status::{State, Status};
pub use summary::PlanSummary;
pub use survey::{Survey, SurveyedImage};
pub use unlock::Unlocked;

use self::local::Local;
use crate::bucket::Bucket;
use crate::clock::Clock;
use crate::http::tidy;
use crate::interruption::Interruption;
use crate::progress::Progress;
use crate::registry::Registry;
use forebay_store::Store;

/// What a user decides about changes.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long nobody else may take over after our last sign of life. `FOREBAY_LEASE_SECONDS`.
    pub lease: Duration,
    /// Who we are, for records and for those who meet our lease: `anna@ci-7`.
    pub holder: String,
    /// Whether objects of ours that somebody changed are written anew.
    pub restore_drift: bool,
    /// Whether an older commit may replace a newer one.
    pub allow_older: bool,
    /// What becomes of files that are no longer wanted.
    pub retire: Retire,
    /// Whether everything else in the folder of DAG files goes.
    pub clear_folder: bool,
    /// Whether somebody has agreed to delete what belongs to others.
    pub confirmed: bool,
    /// Lets a change end before its end.
    pub interruption: Arc<Interruption>,
    /// Where the DAG files lie.
    pub dags_prefix: DagsPrefix,
}

impl Options {
    /// The lease if nobody says otherwise.
    pub const DEFAULT_LEASE: Duration = Duration::from_secs(60);

    /// Everything at its default.
    pub fn new(holder: impl Into<String>) -> Self {
        Self {
            lease: Self::DEFAULT_LEASE,
            holder: holder.into(),
            restore_drift: false,
            allow_older: false,
            retire: Retire::default(),
            clear_folder: false,
            confirmed: false,
            interruption: Arc::default(),
            dags_prefix: DagsPrefix::default(),
        }
    }
}

/// How many objects are read or written at the same time. On a slow line the time of a deploy is
/// the number of such rounds; Google's servers take a hundred requests on one connection.
const PARALLEL: usize = 100;

/// In characters.
const LONGEST_HOLDER: usize = 200;

/// One environment of one project, with the places it lives in.
pub struct Environment {
    key: EnvironmentKey,
    bucket: Arc<dyn Bucket>,
    registry: Arc<dyn Registry>,
    local: Local,
    clock: Arc<dyn Clock>,
    progress: Arc<dyn Progress>,
    options: Options,
    open_repository: Option<OpenRepository>,
}

impl Environment {
    /// Makes no request.
    pub fn new(
        key: EnvironmentKey,
        bucket: Arc<dyn Bucket>,
        registry: Arc<dyn Registry>,
        store: Arc<Store>,
        clock: Arc<dyn Clock>,
        progress: Arc<dyn Progress>,
        options: Options,
    ) -> Self {
        // Records with control characters are refused, so none is written either.
        let options = Options {
            holder: tidy(&options.holder, LONGEST_HOLDER),
            ..options
        };
        Self {
            key,
            bucket,
            registry,
            local: Local::new(store),
            clock,
            progress,
            options,
            open_repository: None,
        }
    }

    /// Lets other repositories be read: the base's layers of an image that the registry has lost
    /// come from where the base is, and [`Self::survey`] sees images that were deployed from elsewhere.
    #[must_use]
    pub fn with_repositories(self, open: OpenRepository) -> Self {
        Self {
            open_repository: Some(open),
            ..self
        }
    }

    /// Which environment this is.
    pub fn key(&self) -> &EnvironmentKey {
        &self.key
    }
}
