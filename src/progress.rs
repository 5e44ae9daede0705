//! What long work tells about itself. The library never prints: it reports
//! events, and whoever called it decides how a person sees them.

/// One step of a command that may take long enough to be watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// Reading and hashing the project's sources.
    Scan,
    /// Running the project's Python to find its workflows.
    Probe,
    /// Running the project's tests.
    Tests,
    /// Resolving and downloading the wheels of the requirements.
    Wheels,
    /// Running lines of the Dockerfile in a container engine.
    Engine,
    /// Making layers, configuration and manifest.
    Image,
    /// Sending blobs and manifests to the registry.
    Push,
    /// Writing DAG files and records to the bucket.
    Upload,
    /// Taking from, and bringing to, a shared cache.
    Cache,
    /// Listing the bucket again to prove what is live.
    Verify,
    /// Reading what is recorded of an environment.
    Survey,
}

/// How a phase's amount is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Things: files, wheels, workflows.
    Items,
}

/// Something that a watcher may want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A phase begins; `total` is its amount where it is known beforehand.
    Started {
        /// Which phase.
        phase: Phase,
        /// The whole amount, in `unit`.
        total: Option<u64>,
        /// What is counted.
        unit: Unit,
    },
    /// `amount` more of the phase is done.
    Advanced {
        /// Which phase.
        phase: Phase,
        /// How much more, in the unit the phase started with.
        amount: u64,
    },
    /// The phase is over; `summary` says in a few words what was done and what was skipped.
    Finished {
        /// Which phase.
        phase: Phase,
        /// For people, for example `2 of 14 layers sent, 3.1 MB`.
        summary: String,
    },
    /// A line that a program of the user's has printed.
    Output {
        /// In which phase.
        phase: Phase,
        /// The line, without its end.
        line: String,
    },
    /// Something that the user should know although the work goes on.
    Warning(String),
}

/// Receives events. Implementations must be quick: they run in the middle of the work.
pub trait Progress: Send + Sync {
    /// Takes one event.
    fn report(&self, event: Event);
}

/// Watches nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn report(&self, _event: Event) {}
}
