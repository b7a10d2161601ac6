//! The programs that use disks, and the machine that they need for it.
//!
//! A program is a function over a [`Machine`] and its [`Disks`]: it never waits but through them,
//! prints lines, and ends well or with a [`Failure`] of one line. The kernel is one machine; the
//! tests here have another one, on the simulator.

use alloc::format;
use alloc::string::String;
use core::fmt;
use core::time::Duration;

use xen::{Events, Grants, Port, Store};

use crate::cpu::CpuTimes;
use crate::time::Instant;

pub mod arguments;
pub mod bench;
mod bench_report;
pub mod copy;
pub mod digest;
mod disks;
pub mod filing;
pub mod histogram;
pub mod hostile;
pub mod list;
pub mod observe;
mod observe_report;
mod random;
pub mod root;
pub mod scheduler;
pub mod stamp;
pub(crate) mod stream;
pub mod touch;
pub mod watch;

#[cfg(test)]
pub(crate) mod plate;
#[cfg(test)]
pub(crate) mod play;
#[cfg(test)]
mod tests;

pub use disks::{AnyDisk, CONNECT_PATIENCE, DISKS_MAX, Disks, Which};

/// What a program asks of the kernel.
pub trait Machine {
    /// The grant table.
    type Grants: Grants;
    /// Event channels, by a handle that can be copied.
    type Events: Events + Clone;
    /// Xenstore.
    type Store: Store;

    /// A handle of the grant table and one of the event channels.
    fn ends(&self) -> (Self::Grants, Self::Events);

    /// Xenstore, where there is one.
    fn store(&self) -> Option<&Self::Store>;

    /// The time.
    fn now(&self) -> Instant;

    /// The time since the begin of 1970, as good as the host knows it.
    fn wall_clock(&self) -> Duration;

    /// Waits until an event comes on any port, or until `until`, and tells the ports that had
    /// one. Returns at once if one came since the last call.
    fn wait(&self, until: Option<Instant>, note: &mut dyn FnMut(Port));

    /// How many hypercalls were made so far; what costs one here is counted by a machine without
    /// Xen, too.
    fn hypercalls(&self) -> u64;

    /// The same while requests are in flight: the time counts as waiting for a disk.
    fn wait_for_disks(&self, until: Option<Instant>, note: &mut dyn FnMut(Port));

    /// Where the processor's time went since the start.
    fn cpu_times(&self) -> CpuTimes;

    /// The next key that was typed, without waiting.
    fn key(&self) -> Option<u8>;

    /// Whether the user wants the program to end.
    fn interrupted(&self) -> bool;

    /// How many pages of memory are free.
    fn free_pages(&self) -> u64;

    /// Notes that something was reached for the first time.
    fn mark(&self, name: &'static str);

    /// Prints a line.
    fn print(&self, line: fmt::Arguments<'_>);
}

/// A program: it gets the words behind its name.
pub type Program<M> = fn(&M, &mut Disks<M>, &[String]) -> Result<(), Failure>;

/// Why a program ended badly: one line, and the exit status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What went wrong and with what.
    pub text: String,
    /// 1: it failed; 2: wrong usage; 3: something is missing; 130: interrupted.
    pub status: u8,
}

impl Failure {
    /// It did not work.
    pub fn failed(text: impl fmt::Display) -> Self {
        Self { text: format!("{text}"), status: 1 }
    }

    /// It was asked wrongly.
    pub fn usage(text: impl fmt::Display) -> Self {
        Self { text: format!("{text}"), status: 2 }
    }

    /// Something that it needs is not there.
    pub fn missing(text: impl fmt::Display) -> Self {
        Self { text: format!("{text}"), status: 3 }
    }

    /// The user wanted it to end.
    pub fn interrupted() -> Self {
        Self { text: String::from("interrupted"), status: 130 }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl core::error::Error for Failure {}

/// An amount and the time it took, as `2.00 MiB in 0.500 s, 4.00 MiB/s`.
pub(crate) struct Speed {
    pub(crate) bytes: u64,
    pub(crate) time: Duration,
}

/// Hundredths of something per second.
pub(crate) fn per_second(amount: u64, time: Duration) -> u64 {
    let rate = u128::from(amount) * 100_000_000_000 / time.as_nanos().max(1);
    u64::try_from(rate).unwrap_or(u64::MAX)
}

/// Hundredths, as a number with two digits behind the point.
pub(crate) struct Hundredths(pub(crate) u64);

impl fmt::Display for Hundredths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02}", self.0 / 100, self.0 % 100)
    }
}

/// Bytes per mebibyte.
const MEBIBYTE: u64 = 1 << 20;

impl Speed {
    /// Mebibytes per second.
    pub(crate) fn mebibytes(&self) -> Hundredths {
        Hundredths(per_second(self.bytes, self.time) / MEBIBYTE)
    }
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let amount = Hundredths(self.bytes * 100 / MEBIBYTE);
        let (seconds, ms) = (self.time.as_secs(), self.time.subsec_millis());
        write!(f, "{amount} MiB in {seconds}.{ms:03} s, {} MiB/s", self.mebibytes())
    }
}
