//! Virtual time: it goes on with every call and whenever somebody moves it, and never by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The time of one simulated machine, in ticks: each call of a domain takes one. Clones are the
/// same clock.
#[derive(Clone, Debug, Default)]
pub struct Clock(Arc<AtomicU64>);

impl Clock {
    /// A clock that begins at 0.
    pub fn new() -> Self {
        Self::default()
    }

    /// The time now.
    pub fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Lets so many ticks pass.
    pub fn pass(&self, ticks: u64) {
        // One at a time: whoever moves it holds the machine's lock or is alone.
        self.0.store(self.now() + ticks, Ordering::Relaxed);
    }

    /// Lets time pass until `time`, unless that is past.
    pub fn reach(&self, time: u64) {
        self.0.store(self.now().max(time), Ordering::Relaxed);
    }
}
