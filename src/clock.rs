//! What time it is, behind a trait, so that tests decide.

use jiff::Timestamp;

/// Tells the time of this machine.
///
/// Leases are not judged by it but by the bucket server's clock (see
/// [`crate::bucket::Listing::server_time`]).
pub trait Clock: Send + Sync {
    /// The current moment.
    fn now(&self) -> Timestamp;
}

/// The operating system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}
