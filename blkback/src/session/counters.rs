//! What a session has done, in numbers: how batches, notifications and grants work out.

use std::fmt;

use blkif::Reason;

/// Why a request was answered with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The front broke a rule.
    Rejected(Reason),
    /// A grant could not be mapped or copied.
    Grant,
    /// The disk failed.
    Disk,
    /// A flush failed before: nothing that writes is done any more.
    FailedFlush,
}

impl Fault {
    /// How many kinds there are: the index of each is below this.
    pub const COUNT: usize = Reason::COUNT + 3;

    /// The kind as a number, for tables.
    pub const fn index(self) -> usize {
        match self {
            Self::Rejected(reason) => reason as usize,
            Self::Grant => Reason::COUNT,
            Self::Disk => Reason::COUNT + 1,
            Self::FailedFlush => Reason::COUNT + 2,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rejected(reason) => reason.fmt(f),
            Self::Grant => f.write_str("a grant that cannot be used"),
            Self::Disk => f.write_str("the disk failed"),
            Self::FailedFlush => {
                f.write_str("a flush failed before; detach and attach the disk to write again")
            }
        }
    }
}

/// What the sessions on one open disk leave to the next.
///
/// A guest can connect as often as it likes: what it did once before is not said again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Past {
    /// A flush failed: nothing that writes is done until the disk is attached anew.
    pub failed_flush: bool,
    /// The kinds of faults that were said, by [`Fault::index`].
    said: u32,
}

impl Past {
    /// Notes a fault and tells whether it is the first of its kind.
    pub(super) const fn is_new(&mut self, fault: Fault) -> bool {
        let bit = 1 << fault.index();
        let new = self.said & bit == 0;
        self.said |= bit;
        new
    }

    /// As one word, for the way to another process and back.
    pub(crate) fn word(self) -> u64 {
        (u64::from(self.failed_flush) << 32) | u64::from(self.said)
    }

    /// From a word, whoever wrote it.
    pub(crate) fn from_word(word: u64) -> Self {
        let [low, high] = [word & u64::from(u32::MAX), word >> 32];
        Self { failed_flush: high != 0, said: u32::try_from(low).unwrap_or(u32::MAX) }
    }

    /// All that one of both knows.
    pub(crate) const fn union(self, other: Self) -> Self {
        Self { failed_flush: self.failed_flush | other.failed_flush, said: self.said | other.said }
    }
}

/// Counts since the connection was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests taken off the ring.
    pub requests: u64,
    /// Turns that took at least one request.
    pub batches: u64,
    /// Events sent to the front.
    pub notifications: u64,
    /// Jobs given to the disk.
    pub jobs: u64,
    /// Requests that shared the job of the request before them.
    pub merged: u64,
    /// Pages mapped, and the calls that did it.
    pub pages_mapped: u64,
    /// Calls that mapped pages.
    pub map_calls: u64,
    /// Pages or parts of pages copied.
    pub copies: u64,
    /// Calls that copied.
    pub copy_calls: u64,
    /// Errors answered, by [`Fault::index`].
    pub errors: [u64; Fault::COUNT],
}

impl Counters {
    pub(super) const fn error(&mut self, fault: Fault) {
        self.errors[fault.index()] += 1;
    }
}

impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "requests={} batches={} notifications={} jobs={} merged={} mapped={}/{} copied={}/{} \
             errors={}",
            self.requests,
            self.batches,
            self.notifications,
            self.jobs,
            self.merged,
            self.pages_mapped,
            self.map_calls,
            self.copies,
            self.copy_calls,
            self.errors.iter().sum::<u64>(),
        )
    }
}
