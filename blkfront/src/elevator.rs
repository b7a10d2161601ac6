//! Elevators: in which order requests that wait go down to the ring.
//!
//! A disk has one elevator at a time, chosen by name out of [`Elevators`]; [`noop`](Noop) and
//! [`deadline`](Deadline) are built in. An elevator holds the places of requests that wait and
//! hands them to a [`Batch`] in the order that it wants. It never sees data, never waits, and is
//! told the time.
//!
//! The [`Disk`](crate::Disk) keeps order where order has a meaning, for every elevator alike: of
//! requests that overlap, one of them a write, the later one is not given to the elevator before
//! the earlier one has gone down; and a flush or a discard goes down when everything before it
//! has, before anything behind it.

use alloc::borrow::Cow;
use core::fmt;

mod choices;
mod deadline;
mod noop;
mod sorted;

pub use choices::{Choice, Elevators, Make, NameTaken};
pub use deadline::Deadline;
pub use noop::Noop;
pub(crate) use sorted::{Key, Sorted};

/// Nanoseconds since any fixed point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub u64);

impl Time {
    /// So many milliseconds later; the end of time if that is beyond it.
    #[must_use]
    pub const fn after_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms.saturating_mul(1_000_000)))
    }
}

/// Which way data goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the disk.
    Read,
    /// To the disk.
    Write,
}

/// A read or a write that waits, as an elevator sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Its name while it waits: below the capacity that the elevator was made for, and no other
    /// request's.
    pub place: u16,
    /// Which way.
    pub direction: Direction,
    /// Its first sector of 512 bytes.
    pub sector: u64,
    /// How many: 1 to 256.
    pub sectors: u16,
    /// When it was submitted.
    pub arrived: Time,
}

impl Waiting {
    /// The sector behind its last one.
    pub const fn end(&self) -> u64 {
        self.sector.saturating_add(self.sectors as u64)
    }
}

/// What became of a request that an elevator handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is a request of its own on the ring.
    Began,
    /// It became a part of the request before it.
    Joined,
    /// There is no room: the elevator still has it, and ends the batch.
    Full,
}

/// Where an elevator hands requests out to, one after another. What it handed out is the
/// elevator's no more.
pub trait Batch {
    /// Makes the request in `place` a part of the one handed out before it, if both go the same
    /// way, it begins where that one ends, and together they have no more segments than one
    /// request of this disk can: 11 (44 KiB, if the pages are full) to 32 (128 KiB). Tells whether it
    /// was taken.
    ///
    /// # Panics
    /// If no request of this elevator waits in `place`.
    fn join(&mut self, place: u16) -> bool;

    /// Hands out the request in `place` as one of its own, if there is room for one more in the
    /// ring. Tells whether it was taken; if not, the batch is over.
    ///
    /// # Panics
    /// If no request of this elevator waits in `place`.
    fn begin(&mut self, place: u16) -> bool;

    /// Joins, or else begins.
    fn push(&mut self, place: u16) -> Taken {
        if self.join(place) {
            Taken::Joined
        } else if self.begin(place) {
            Taken::Began
        } else {
            Taken::Full
        }
    }
}

/// A number that an elevator can be tuned with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// What it is called: one word.
    pub name: Cow<'static, str>,
    /// What it is for, in one line, with its unit.
    pub about: Cow<'static, str>,
    /// Its least value.
    pub least: u64,
    /// Its greatest value.
    pub most: u64,
}

/// An order of requests.
pub trait Elevator: Send {
    /// What it is called: one word.
    fn name(&self) -> &str;

    /// Takes a request. It overlaps with no other one that waits here, unless both are reads.
    fn insert(&mut self, request: Waiting);

    /// Hands requests out until the batch is full, none is left, or those that are left had
    /// better wait.
    fn take_batch(&mut self, batch: &mut dyn Batch, now: Time);

    /// Whether it hands requests out in the order of their arrival and never looks at the time:
    /// then nothing needs to be held back from it, and nobody reads a clock for it.
    fn is_plain(&self) -> bool {
        false
    }

    /// When it wants to be asked again though nothing happens, if it holds requests back.
    fn due(&self) -> Option<Time> {
        None
    }

    /// What it can be tuned with.
    fn parameters(&self) -> &[Parameter] {
        &[]
    }

    /// The value of a parameter, by its index.
    fn value(&self, _index: usize) -> u64 {
        0
    }

    /// Gives a parameter a value within its bounds.
    fn set(&mut self, _index: usize, _value: u64) {}
}

impl fmt::Debug for dyn Elevator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
