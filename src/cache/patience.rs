//! How long a run waits for a cache: each time, and in all.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a cache is waited for, at most. After one wait in vain it is not asked again.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For an entry, or anything else that is small.
    pub answer: Duration,
    /// For a part of an object, which has at most 16 MiB.
    pub part: Duration,
    /// For all of a run together, beside what the bytes take that come or go.
    pub run: Duration,
}

impl Patience {
    /// Bytes a second that a cache must carry at least: as many as a part in its own time.
    const RATE: u64 = 256 << 10;

    /// That of a build, which goes on without the cache: `answer` for a small answer, six times
    /// as long for a part, three times as long in all.
    pub fn of_build(answer: Duration) -> Self {
        Self {
            answer,
            part: answer.saturating_mul(6),
            run: answer.saturating_mul(3),
        }
    }

    /// That of a command which is about the cache, and has nothing else to do: it waits as long
    /// as answers come.
    #[must_use]
    pub fn without_end(self) -> Self {
        Self {
            run: Duration::MAX,
            ..self
        }
    }
}

impl Default for Patience {
    fn default() -> Self {
        Self::of_build(Duration::from_secs(10))
    }
}

/// What a run has waited for one cache. Waits at the same time count once.
#[derive(Debug, Default)]
pub(super) struct Waits(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    waiting: u32,
    since: Option<Instant>,
    spent: Duration,
    bytes: u64,
}

impl Waits {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A wait begins; it may take so long.
    pub(super) fn begin(&self, patience: &Patience) -> Duration {
        let mut state = self.state();
        let now = Instant::now();
        let since = *state.since.get_or_insert(now);
        state.waiting += 1;
        let for_bytes = Duration::from_millis(state.bytes.saturating_mul(1000) / Patience::RATE);
        let allowed = patience.run.saturating_add(for_bytes);
        allowed.saturating_sub(state.spent.saturating_add(now.duration_since(since)))
    }

    /// A wait is over.
    pub(super) fn end(&self) {
        let mut state = self.state();
        state.waiting = state.waiting.saturating_sub(1);
        if state.waiting == 0
            && let Some(since) = state.since.take()
        {
            state.spent += since.elapsed();
        }
    }

    /// So many bytes came or went.
    pub(super) fn carried(&self, bytes: usize) {
        self.state().bytes += bytes as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_add_up_and_bytes_earn_time() {
        let patience = Patience::of_build(Duration::from_secs(10));
        let waits = Waits::default();
        assert!(waits.begin(&patience) <= patience.run);
        waits.state().spent = Duration::from_secs(29);
        assert!(waits.begin(&patience) <= Duration::from_secs(1));
        waits.end();
        waits.end();
        assert!(waits.state().since.is_none());
        waits.state().spent = Duration::from_secs(31);
        assert_eq!(waits.begin(&patience), Duration::ZERO);
        waits.carried(1 << 20);
        assert!(waits.begin(&patience) > Duration::from_secs(2));
        assert!(waits.begin(&patience.without_end()) > patience.run);
    }
}
