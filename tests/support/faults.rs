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

/// When a fault strikes: with nothing sent, with the half of a body sent (which every server
/// throws away, while what else is on its way goes on), or applied and the answer lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    Before,
    Within,
    After,
}

impl Moment {
    pub(crate) const ALL: [Self; 3] = [Self::Before, Self::Within, Self::After];
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
    /// What is on its way, and the most of any beginning that were at once.
    running: Mutex<(Vec<String>, Vec<Vec<String>>)>,
    fault: Mutex<Option<(usize, Moment, Fault)>>,
    killed: Notify,
    upload_seconds: AtomicU64,
    /// Dies at the first call that starts so.
    deadly: Mutex<Option<String>>,
    /// Decides how long each call takes, in turns of the others.
    order: AtomicU64,
}

impl Calls {
    /// Strikes at the call number `at`, counted from now on, the first being 0.
    pub(crate) fn strike(&self, at: usize, moment: Moment, fault: Fault) {
        self.log.lock().unwrap().clear();
        *self.fault.lock().unwrap() = Some((at, moment, fault));
    }

    /// The most calls that were on their way at once.
    pub(crate) fn widest(&self) -> usize {
        self.widest_of("")
    }

    /// The same of calls that start so.
    pub(crate) fn widest_of(&self, start: &str) -> usize {
        let running = self.running.lock().unwrap();
        let moments = running.1.iter();
        let widths =
            moments.map(|calls| calls.iter().filter(|call| call.starts_with(start)).count());
        widths.max().unwrap_or_default()
    }

    /// Forgets log and fault.
    pub(crate) fn reset(&self) {
        *self.running.lock().unwrap() = Default::default();
        self.log.lock().unwrap().clear();
        *self.fault.lock().unwrap() = None;
        *self.deadly.lock().unwrap() = None;
    }

    /// Dies once the first call that starts so is applied.
    pub(crate) fn die_at(&self, what: &str) {
        *self.deadly.lock().unwrap() = Some(what.to_owned());
    }

    /// Another order of calls that run at once for every other `seed`.
    pub(crate) fn shuffle(&self, seed: u64) {
        self.order.store(seed, Ordering::SeqCst);
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
            let number = log.len();
            let mut deadly = self.deadly.lock().unwrap();
            if deadly
                .take_if(|start| what.starts_with(start.as_str()))
                .is_some()
            {
                *self.fault.lock().unwrap() = Some((number, Moment::After, Fault::Die));
            }
            let mut running = self.running.lock().unwrap();
            running.0.push(what.clone());
            let moment = running.0.clone();
            running.1.push(moment);
            log.push(Call { what, effect });
            number
        };
        self.check(number, Moment::Before).await?;
        // Others get a turn, so that concurrent calls really interleave.
        let order = self.order.load(Ordering::SeqCst);
        // Some bits of a multiplicative hash: any number below 32 for any call.
        let odd = number as u64 * 2 + 1;
        let turns = order.wrapping_mul(odd).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 59;
        for _ in 0..=turns {
            tokio::task::yield_now().await;
        }
        self.check(number, Moment::Within).await?;
        let seconds = self.upload_seconds.load(Ordering::SeqCst);
        if uploads && seconds > 0 {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
        }
        Ok(number)
    }

    pub(crate) async fn after(&self, number: usize) -> Result<(), Injected> {
        if let Some(call) = self.log.lock().unwrap().get(number) {
            let mut running = self.running.lock().unwrap();
            if let Some(at) = running.0.iter().position(|what| *what == call.what) {
                running.0.swap_remove(at);
            }
        }
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
