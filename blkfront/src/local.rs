//! A disk without a back: what serves it is in this kernel, and does so in the call that submits.
//!
//! It has the verbs of a [`Disk`](crate::Disk) as far as they mean anything here: a request is over
//! when `submit` returns, and its completion waits for `poll`. So nothing waits, nothing overtakes,
//! there is nothing for an elevator to sort, and no kick.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use core::fmt;

use blkif::{Geometry, Operation, Reason, SECTOR_SIZE, Status};
use ring::PAGE_SIZE;
use xen::Grants;

use crate::counters::Counters;
use crate::elevator::Time;
use crate::pool::{Buffer, Pool};
use crate::slots::{Slots, Stage, Work};
use crate::{Completion, Refused, SubmitError, Tag};

/// Requests whose completions were not polled, at most.
pub const LOCAL_SLOTS: u16 = 64;

/// What serves a local disk: a module, or memory in a test. It is asked for what lies on the disk
/// only, and is never asked to write a disk that is read only.
pub trait Medium {
    /// Reads the sectors of 512 bytes from `sector` on: 1 to 8. What is in `out` after an error is
    /// not looked at.
    fn read(&mut self, sector: u64, out: &mut [u8]) -> Status;

    /// Writes as many.
    fn write(&mut self, sector: u64, data: &[u8]) -> Status;

    /// Makes durable what was written.
    fn flush(&mut self) -> Status;
}

/// A disk without a back.
pub struct Local<G: Grants> {
    name: String,
    geometry: Geometry,
    medium: Box<dyn Medium>,
    pool: Pool<G>,
    slots: Slots<G>,
    /// What is over, and how it ended.
    done: VecDeque<(u16, Status)>,
    /// What is on its way between a buffer, which is in pages that any disk's may be in, and the
    /// medium, which takes plain memory.
    scratch: Box<[u8; PAGE_SIZE]>,
    counters: Counters,
}

impl<G: Grants> Local<G> {
    /// A disk of this name and size, with so many pages for its data; `None` if memory is short.
    pub fn new(
        grants: &G,
        pool_pages: usize,
        (name, geometry): (String, Geometry),
        medium: Box<dyn Medium>,
    ) -> Option<Self> {
        Some(Self {
            name,
            geometry,
            medium,
            pool: Pool::own(grants, pool_pages)?,
            slots: Slots::new(LOCAL_SLOTS),
            done: VecDeque::with_capacity(usize::from(LOCAL_SLOTS)),
            scratch: Box::new([0; PAGE_SIZE]),
            counters: Counters::default(),
        })
    }

    /// What the disk is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A buffer, as of [`Disk::buffer`](crate::Disk::buffer).
    // Where a program may have either kind of disk, the other one's path is the short one.
    #[inline(never)]
    pub fn buffer(&self, length_bytes: usize) -> Option<Buffer<G>> {
        self.pool.buffer(length_bytes)
    }

    /// Does a read or a write of the whole buffer at `sector`, in units of 512 bytes. How it ended
    /// is in its completion.
    ///
    /// # Errors
    /// [`Refused`], with the buffer.
    #[inline(never)]
    pub fn submit(
        &mut self,
        operation: Operation,
        sector: u64,
        buffer: Buffer<G>,
    ) -> Result<Tag, Refused<G>> {
        let sectors = (buffer.length_bytes() / SECTOR_SIZE) as u64;
        if let Err(error) = self.allowed((operation, sector, sectors), &buffer) {
            return Err(Refused { error, buffer: Some(buffer) });
        }
        let status = self.transfer(operation, sector, &buffer);
        match operation {
            Operation::Write => self.counters.written_sectors += sectors,
            _ => self.counters.read_sectors += sectors,
        }
        Ok(self.end((operation, sector, sectors), status, Some(buffer)))
    }

    /// Does a flush.
    ///
    /// # Errors
    /// [`SubmitError::Busy`].
    pub fn flush(&mut self) -> Result<Tag, SubmitError> {
        if self.slots.free() == 0 {
            return Err(SubmitError::Busy);
        }
        let status = self.medium.flush();
        Ok(self.end((Operation::Flush, 0, 0), status, None))
    }

    /// Takes the next completion, if there is one.
    pub fn poll(&mut self) -> Option<Completion<G>> {
        let (place, status) = self.done.pop_front()?;
        let (tag, work) = self.slots.end(place);
        Some(Completion { tag, operation: work.operation, status, buffer: work.buffer })
    }

    /// Size and nature of the disk.
    pub const fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// What was counted so far. There are no batches and no notifications here.
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// How many requests were not polled.
    pub fn in_flight(&self) -> usize {
        self.done.len()
    }

    /// How many requests can be submitted before completions must be polled.
    pub fn free_slots(&self) -> u32 {
        u32::try_from(self.slots.free()).unwrap_or(u32::MAX)
    }

    /// As of [`Disk::capacity`](crate::Disk::capacity).
    pub fn capacity(&self) -> usize {
        self.slots.capacity()
    }

    /// How many pages there are for buffers now.
    pub fn free_pages(&self) -> usize {
        self.pool.free_pages()
    }

    fn allowed(
        &self,
        (operation, sector, sectors): (Operation, u64, u64),
        buffer: &Buffer<G>,
    ) -> Result<(), SubmitError> {
        if !self.pool.owns(buffer) {
            return Err(SubmitError::Foreign);
        }
        if self.slots.free() == 0 {
            return Err(SubmitError::Busy);
        }
        let allowed = match operation {
            Operation::Read | Operation::Write => self.geometry.allow(operation, sector, sectors),
            Operation::Flush | Operation::Discard => Err(Reason::NotAgreed),
        };
        allowed.map_err(SubmitError::Unlawful)
    }

    /// Carries data, a page at a time, up to the first error.
    fn transfer(&mut self, operation: Operation, first: u64, buffer: &Buffer<G>) -> Status {
        for offset in (0..buffer.length_bytes()).step_by(PAGE_SIZE) {
            let part = &mut self.scratch[..PAGE_SIZE.min(buffer.length_bytes() - offset)];
            let sector = first + (offset / SECTOR_SIZE) as u64;
            let status = match operation {
                Operation::Write => {
                    buffer.read(offset, part);
                    self.medium.write(sector, part)
                }
                _ => self.medium.read(sector, part),
            };
            if status != Status::Okay {
                return status;
            }
            if operation != Operation::Write {
                buffer.write(offset, part);
            }
        }
        Status::Okay
    }

    fn end(
        &mut self,
        (operation, sector, sectors): (Operation, u64, u64),
        status: Status,
        buffer: Option<Buffer<G>>,
    ) -> Tag {
        let (stage, next) = (Stage::Sent, None);
        let arrived = Time::default();
        let work = Work { operation, sector, sectors, buffer, arrived, arrival: 0, stage, next };
        let (place, tag) = self.slots.begin(work);
        self.done.push_back((place, status));
        self.counters.requests += 1;
        self.counters.responses += 1;
        self.counters.errors += u64::from(status != Status::Okay);
        tag
    }
}

impl<G: Grants> fmt::Debug for Local<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Local").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
