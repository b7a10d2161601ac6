//! What was submitted and is not yet with its owner again: a bounded table.
//!
//! A slot holds a request from `submit` to `poll`: while it waits in the elevator, and while it is
//! in flight. Requests that go down as one are chained through their slots.

use alloc::boxed::Box;
use alloc::vec::Vec;

use blkif::Operation;
use xen::Grants;

use crate::elevator::{Direction, Key, Time, Waiting};
use crate::inflight::Tag;
use crate::pool::Buffer;

/// Where a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Behind something that it must not overtake.
    Held,
    /// In the elevator.
    Sorting,
    /// On the ring, or answered.
    Sent,
}

/// A request in its slot.
pub(crate) struct Work<G: Grants> {
    pub(crate) operation: Operation,
    pub(crate) sector: u64,
    pub(crate) sectors: u64,
    pub(crate) buffer: Option<Buffer<G>>,
    pub(crate) arrived: Time,
    /// How many were submitted before it.
    pub(crate) arrival: u64,
    pub(crate) stage: Stage,
    /// The next part of what went down as one.
    pub(crate) next: Option<u16>,
}

impl<G: Grants> Work<G> {
    /// Where it is among others on the disk.
    pub(crate) const fn key(&self, place: u16) -> Key {
        Key { sector: self.sector, arrival: self.arrival, place }
    }

    /// The request as an elevator sees it; `None` for what is neither a read nor a write.
    pub(crate) fn waiting(&self, place: u16) -> Option<Waiting> {
        let direction = match self.operation {
            Operation::Read => Direction::Read,
            Operation::Write => Direction::Write,
            Operation::Flush | Operation::Discard => return None,
        };
        let sectors = u16::try_from(self.sectors).ok()?;
        Some(Waiting { place, direction, sector: self.sector, sectors, arrived: self.arrived })
    }
}

struct Slot<G: Grants> {
    generation: u64,
    work: Option<Work<G>>,
}

/// A table of requests.
pub(crate) struct Slots<G: Grants> {
    slots: Box<[Slot<G>]>,
    free: Vec<u16>,
}

impl<G: Grants> Slots<G> {
    /// An empty table for `capacity` requests.
    pub(crate) fn new(capacity: u16) -> Self {
        let slot = |_| Slot { generation: 0, work: None };
        Self { slots: (0..capacity).map(slot).collect(), free: (0..capacity).rev().collect() }
    }

    pub(crate) fn capacity(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn free(&self) -> usize {
        self.free.len()
    }

    /// Puts a request into a slot.
    ///
    /// # Panics
    /// If none is free.
    #[inline]
    pub(crate) fn begin(&mut self, work: Work<G>) -> (u16, Tag) {
        let place = self.free.pop().expect("a slot is free");
        let slot = &mut self.slots[usize::from(place)];
        slot.work = Some(work);
        (place, Tag::new(place, slot.generation))
    }

    /// The request in a slot.
    ///
    /// # Panics
    /// If there is none.
    #[inline]
    pub(crate) fn work(&mut self, place: u16) -> &mut Work<G> {
        let slot = self.slots.get_mut(usize::from(place));
        slot.and_then(|slot| slot.work.as_mut()).expect("a request is in the slot")
    }

    /// Takes a request out of its slot.
    ///
    /// # Panics
    /// If there is none.
    #[inline]
    pub(crate) fn end(&mut self, place: u16) -> (Tag, Work<G>) {
        let slot = &mut self.slots[usize::from(place)];
        let work = slot.work.take().expect("a request is in the slot");
        let tag = Tag::new(place, slot.generation);
        slot.generation = Tag::next_generation(slot.generation);
        self.free.push(place);
        (tag, work)
    }

    /// Every request that did not go down, in the order of arrival.
    pub(crate) fn unsent(&self) -> Vec<u16> {
        let all = (0..).zip(&self.slots).filter_map(|(place, slot)| {
            let work = slot.work.as_ref().filter(|work| work.stage != Stage::Sent)?;
            Some((work.arrival, place))
        });
        let mut all: Vec<(u64, u16)> = all.collect();
        all.sort_unstable();
        all.into_iter().map(|(_, place)| place).collect()
    }
}
