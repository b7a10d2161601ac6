//! Points in time.
//!
//! System time is nanoseconds since Xen started, as `xen::abi::TimeInfo` tells it. It is read
//! through `kernel` only; here is what to do with it.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

/// A point in system time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(u64);

impl Instant {
    /// So many nanoseconds after Xen started.
    pub const fn from_nanos(nanoseconds: u64) -> Self {
        Self(nanoseconds)
    }

    /// Nanoseconds since Xen started.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// This much later; the end of time if that is beyond it.
    #[must_use]
    pub fn after(self, delay: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// How long ago `earlier` was; nothing if it was later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0 / 1_000_000_000, self.0 / 1000 % 1_000_000)
    }
}

/// Makes a clock that never goes back out of one that may, by a little, when Xen adjusts it.
#[derive(Debug)]
pub struct Monotonic {
    latest: AtomicU64,
}

impl Monotonic {
    /// Nothing was seen yet.
    pub const fn new() -> Self {
        Self { latest: AtomicU64::new(0) }
    }

    /// The later of `nanoseconds` and everything seen before.
    pub fn advance(&self, nanoseconds: u64) -> Instant {
        Instant(self.latest.fetch_max(nanoseconds, Ordering::Relaxed).max(nanoseconds))
    }
}

impl Default for Monotonic {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::string::ToString;

    use super::*;

    #[test]
    fn time_does_not_go_back() {
        let clock = Monotonic::new();
        assert_eq!(clock.advance(5), Instant::from_nanos(5));
        assert_eq!(clock.advance(3), Instant::from_nanos(5));
        assert_eq!(clock.advance(6), Instant::from_nanos(6));
    }

    #[test]
    fn the_far_future_is_the_end_of_time() {
        let late = Instant::from_nanos(u64::MAX - 1);
        assert_eq!(late.after(Duration::from_secs(1)), Instant::from_nanos(u64::MAX));
        assert_eq!(Instant::from_nanos(7).after(Duration::MAX), Instant::from_nanos(u64::MAX));
        assert_eq!(Instant::from_nanos(7).since(late), Duration::ZERO);
    }

    #[test]
    fn seconds_and_microseconds_are_shown() {
        assert_eq!(Instant::from_nanos(12_000_345_678).to_string(), "12.000345");
    }
}
