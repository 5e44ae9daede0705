//! Numbers every call that leaves the program, and fails or kills at a chosen one.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

/// What a call does to the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    Reads,
    Writes,
}

/// When a fault strikes: with the call not yet applied, or applied and the answer lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    Before,
    After,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The process dies: the call never returns, and [`Calls::killed`] fires.
    Die,
    /// The call fails; the program goes on.
    Fail,
}

#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) what: String,
    pub(crate) effect: Effect,
}

/// The call was failed on purpose.
#[derive(Debug)]
pub(crate) struct Injected;

/// Shared by the fakes of one test, so that their calls have one numbering.
#[derive(Default)]
pub(crate) struct Calls {
    log: Mutex<Vec<Call>>,
    fault: Mutex<Option<(usize, Moment, Fault)>>,
    killed: Notify,
    upload_seconds: AtomicU64,
}

impl Calls {
    /// Strikes at the call number `at`, counted from now on, the first being 0.
    pub(crate) fn strike(&self, at: usize, moment: Moment, fault: Fault) {
        self.log.lock().unwrap().clear();
        *self.fault.lock().unwrap() = Some((at, moment, fault));
    }

    /// Forgets log and fault.
    pub(crate) fn reset(&self) {
        self.log.lock().unwrap().clear();
        *self.fault.lock().unwrap() = None;
    }

    pub(crate) fn log(&self) -> Vec<Call> {
        self.log.lock().unwrap().clone()
    }

    pub(crate) fn writes(&self) -> Vec<String> {
        let log = self.log();
        let writes = log.into_iter().filter(|call| call.effect == Effect::Writes);
        writes.map(|call| call.what).collect()
    }

    /// Makes every write to `dags/` take that long, in the test's time.
    pub(crate) fn slow_uploads(&self, seconds: u64) {
        self.upload_seconds.store(seconds, Ordering::SeqCst);
    }

    pub(crate) async fn killed(&self) {
        self.killed.notified().await;
    }

    /// Around every call: `number = before(…)`, then apply it, then `after(number)`.
    pub(crate) async fn before(&self, effect: Effect, what: String) -> Result<usize, Injected> {
        let uploads = what.starts_with("write dags/");
        let number = {
            let mut log = self.log.lock().unwrap();
            log.push(Call { what, effect });
            log.len() - 1
        };
        self.check(number, Moment::Before).await?;
        // Others get a turn, so that concurrent calls really interleave.
        tokio::task::yield_now().await;
        let seconds = self.upload_seconds.load(Ordering::SeqCst);
        if uploads && seconds > 0 {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
        }
        Ok(number)
    }

    pub(crate) async fn after(&self, number: usize) -> Result<(), Injected> {
        self.check(number, Moment::After).await
    }

    async fn check(&self, number: usize, moment: Moment) -> Result<(), Injected> {
        let fault = *self.fault.lock().unwrap();
        match fault {
            Some((at, when, fault)) if at == number && when == moment => match fault {
                Fault::Fail => Err(Injected),
                Fault::Die => {
                    self.killed.notify_one();
                    std::future::pending().await
                }
            },
            _ => Ok(()),
        }
    }
}
