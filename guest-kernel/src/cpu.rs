//! Where the processor's time went: what Xen and the kernel count, as Linux names it.
//!
//! Xen knows when our one processor ran, waited for an event, and could have run and did not. The
//! kernel knows which of its waits were for a disk, and how long programs of users ran. Pure
//! arithmetic.

use crate::sysctl::Number;

/// Nanoseconds since the guest started, by where they went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuTimes {
    /// In programs of users (us).
    pub user: u64,
    /// In the kernel and the programs that are part of it (sy).
    pub system: u64,
    /// Waiting, with nothing asked of a disk (id).
    pub idle: u64,
    /// Waiting for a disk (wa).
    pub wait: u64,
    /// Ready to run while somebody else did, or paused (st).
    pub steal: u64,
}

impl CpuTimes {
    /// Divides what Xen counted (running, runnable, blocked, offline) by what the kernel did:
    /// `user_ns` of the running and `wait_ns` of the blocked time.
    pub fn new(
        [running, runnable, blocked, offline]: [u64; 4],
        user_ns: u64,
        wait_ns: u64,
    ) -> Self {
        let (user, wait) = (user_ns.min(running), wait_ns.min(blocked));
        Self {
            user,
            system: running - user,
            idle: blocked - wait,
            wait,
            steal: runnable.saturating_add(offline),
        }
    }

    /// What was added since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            user: self.user.saturating_sub(earlier.user),
            system: self.system.saturating_sub(earlier.system),
            idle: self.idle.saturating_sub(earlier.idle),
            wait: self.wait.saturating_sub(earlier.wait),
            steal: self.steal.saturating_sub(earlier.steal),
        }
    }

    /// All of it.
    pub fn total(&self) -> u64 {
        let parts = [self.user, self.system, self.idle, self.wait, self.steal];
        parts.into_iter().fold(0, u64::saturating_add)
    }

    /// A part, in tenths of a percent of all, rounded to the nearest; 0 of nothing.
    pub fn tenths(&self, part: u64) -> u64 {
        let total = u128::from(self.total());
        let tenths = (u128::from(part) * 1000 + total / 2).checked_div(total).unwrap_or(0);
        u64::try_from(tenths).unwrap_or(1000)
    }
}

/// How much of the time others may take before it is told, in percent.
pub static STEAL_WARN: Number = Number::new(5, (0, 100));

/// How many looks in a row must find too much steal before it is told.
pub const STEAL_LOOKS: u32 = 3;

/// Notices when others take our time for long.
#[derive(Clone, Copy, Debug, Default)]
pub struct StealWatch {
    before: CpuTimes,
    /// Looks in a row that found too much.
    high: u32,
}

impl StealWatch {
    /// Nothing was seen yet.
    pub const fn new() -> Self {
        let before = CpuTimes { user: 0, system: 0, idle: 0, wait: 0, steal: 0 };
        Self { before, high: 0 }
    }

    /// Looks again, a while after the last time. Tells the percentage when it was above
    /// `threshold` percent [`STEAL_LOOKS`] times in a row: once, until it has been below.
    pub fn look(&mut self, now: CpuTimes, threshold: u64) -> Option<u64> {
        let spent = now.since(&self.before);
        self.before = now;
        let tenths = spent.tenths(spent.steal);
        self.high =
            if tenths > threshold.saturating_mul(10) { self.high.saturating_add(1) } else { 0 };
        (self.high == STEAL_LOOKS).then_some(tenths.div_ceil(10))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn each_nanosecond_is_in_one_place() {
        let times = CpuTimes::new([500, 50, 400, 7], 100, 150);
        assert_eq!(times, CpuTimes { user: 100, system: 400, idle: 250, wait: 150, steal: 57 });
        assert_eq!(times.total(), 957);
        let inconsistent = CpuTimes::new([10, 0, 10, 0], 11, 12);
        assert_eq!((inconsistent.system, inconsistent.idle), (0, 0));
        assert_eq!(CpuTimes::default().since(&times), CpuTimes::default());
    }

    #[test]
    fn tenths_are_rounded_and_nothing_has_none() {
        let times = CpuTimes { system: 2, steal: 1, ..CpuTimes::default() };
        assert_eq!((times.tenths(times.steal), times.tenths(times.system)), (333, 667));
        assert_eq!(CpuTimes::default().tenths(0), 0);
        let large = CpuTimes { idle: u64::MAX, steal: u64::MAX, ..CpuTimes::default() };
        assert_eq!(large.tenths(large.idle), 1000);
    }

    #[test]
    fn steal_is_told_once_when_it_lasts() {
        let mut watch = StealWatch::default();
        let mut now = CpuTimes::default();
        let mut second = |steal_percent: u64| {
            now.steal += steal_percent * 10 * MS;
            now.idle += (100 - steal_percent) * 10 * MS;
            watch.look(now, 5)
        };
        let told = [50, 6, 6, 6, 50, 5, 6, 6, 5, 6, 6, 7, 7].map(&mut second);
        let mut expected = [None; 13];
        (expected[2], expected[11]) = (Some(6), Some(7));
        assert_eq!(told, expected);
    }
}
