//! A wish to stop, from a person or the operating system.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Shared by whoever hears the wish and the work that heeds it.
///
/// Most work may be dropped at any moment. Work that must not be ended by itself soon after the
/// wish: it holds a [`Heeding`] meanwhile.
#[derive(Debug, Default)]
pub struct Interruption {
    raised: AtomicBool,
    heeding: AtomicUsize,
}

impl Interruption {
    /// Somebody wishes that the program stops.
    pub fn raise(&self) {
        self.raised.store(true, Ordering::SeqCst);
    }

    /// Whether somebody has.
    pub fn is_raised(&self) -> bool {
        self.raised.load(Ordering::SeqCst)
    }

    /// Begins work that looks at [`Self::is_raised`] and ends soon when it is.
    ///
    /// Whoever begins such work looks at it first of all then, and whoever hears the wish
    /// raises it before asking [`Self::is_heeded`]: so one of the two always sees the other.
    pub fn heed(self: &Arc<Self>) -> Heeding {
        self.heeding.fetch_add(1, Ordering::SeqCst);
        Heeding(Arc::clone(self))
    }

    /// Whether such work is under way, so that the program will end by itself.
    pub fn is_heeded(&self) -> bool {
        self.heeding.load(Ordering::SeqCst) > 0
    }
}

/// Work that heeds an [`Interruption`], until this is dropped.
#[derive(Debug)]
pub struct Heeding(Arc<Interruption>);

impl Drop for Heeding {
    fn drop(&mut self) {
        self.0.heeding.fetch_sub(1, Ordering::SeqCst);
    }
}
