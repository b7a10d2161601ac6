//! A swap area in use: its slots, and the requests that carry pages to and from it.
//!
//! A page that goes out is copied into a buffer, so its frame is free at once; the write is waited
//! for only when its slot is read before it is done, or when buffers run out. There is one area
//! at a time.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

use arrayvec::ArrayVec;
use blkfront::{Buffer, Completion, SubmitError, Tag};
use blkif::{DIRECT_SEGMENTS_MAX, Operation};
use ring::PAGE_SIZE;

use super::Slot;
use super::pager::{Backing, WANTED_MAX};
use super::slots::Slots;
use super::swap_header::{self, HEADER_BYTES, Header};
use crate::programs::{Disks, Failure, Machine, Which};
use crate::volumes::{Volume, find_swap};

/// Sectors of 512 bytes in a page.
const SECTORS: u64 = (PAGE_SIZE / 512) as u64;
/// Pages in the longest request: as many as any back takes.
const REQUEST_PAGES: usize = DIRECT_SEGMENTS_MAX;

/// A swap area in use.
#[derive(Debug)]
pub struct Area {
    place: Volume,
    header: Header,
    slots: Slots,
    /// Writes in flight, with their slots.
    writes: Vec<(Tag, Range<u32>)>,
}

/// How much of a swap area is in use, in pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Figures {
    /// Its name.
    pub name: String,
    /// Its label; may be empty.
    pub label: String,
    /// Pages that it can hold.
    pub total: u32,
    /// Pages in it.
    pub used: u32,
}

/// The header of the area at `place`.
///
/// # Errors
/// [`Failure`], with what is wrong with it.
fn inspect<M: Machine>(
    machine: &M,
    disks: &mut Disks<M>,
    place: &Volume,
) -> Result<Header, Failure> {
    let pages = place.sectors / SECTORS;
    if pages == 0 {
        return Err(Failure::failed(format!("{}: too small for swap", place.name)));
    }
    let mut none = None;
    let mut session = Area::with(&mut none, machine, disks);
    let buffer = session.buffer(place.which, PAGE_SIZE)?;
    let buffer = session.request(place.which, Operation::Read, place.first, buffer)?;
    let mut page = [0; HEADER_BYTES];
    buffer.read(0, &mut page);
    swap_header::read(&page, pages)
        .map_err(|unfit| Failure::failed(format!("{}: {unfit}", place.name)))
}

impl Area {
    /// Takes the area at `place` into use.
    ///
    /// # Errors
    /// [`Failure`], with what is wrong with it.
    pub fn open<M: Machine>(
        machine: &M,
        disks: &mut Disks<M>,
        place: Volume,
    ) -> Result<Self, Failure> {
        let header = inspect(machine, disks, &place)?;
        let disk = disks.disk(place.which)?;
        if disk.geometry().read_only() {
            return Err(Failure::failed(format!("{}: read-only", place.name)));
        }
        let slots = Slots::new(header.last_page, &header.bad);
        let slots = slots.ok_or_else(|| Failure::missing("not enough memory for the slots"))?;
        Ok(Self { place, header, slots, writes: Vec::new() })
    }

    /// Whether it is on this disk, or on a partition of it.
    pub fn is_on(&self, which: Which) -> bool {
        self.place.which == which
    }

    /// How much of it is in use.
    pub fn figures(&self) -> Figures {
        let total = self.slots.usable();
        let (name, label) = (self.place.name.clone(), self.header.label.clone());
        Figures { name, label, total, used: total - self.slots.free() }
    }

    /// The area, with the disks to reach it.
    pub fn with<'a, M: Machine>(
        area: &'a mut Option<Self>,
        machine: &'a M,
        disks: &'a mut Disks<M>,
    ) -> Session<'a, M> {
        Session { area, machine, disks }
    }
}

/// The swap while a program runs; without an area nothing goes out.
pub struct Session<'a, M: Machine> {
    area: &'a mut Option<Area>,
    machine: &'a M,
    /// For the program's own requests, too.
    pub disks: &'a mut Disks<M>,
}

impl<M: Machine> Session<'_, M> {
    /// Whether there is an area.
    pub fn is_on(&self) -> bool {
        self.area.is_some()
    }

    /// Waits for what is in flight, whatever becomes of it: the program has ended.
    pub fn settle(&mut self) {
        self.disks.settle(self.machine);
        if let Some(area) = self.area.as_mut() {
            area.writes.clear();
        }
    }

    /// Takes one completion, or waits; gives it if it is the `wanted` one.
    fn reap(
        &mut self,
        which: Which,
        wanted: Option<Tag>,
    ) -> Result<Option<Completion<M::Grants>>, Failure> {
        Ok(self.reap_any(which)?.filter(|done| wanted == Some(done.tag)))
    }

    /// Takes one completion, or waits; a write of the swap is done with it.
    fn reap_any(&mut self, which: Which) -> Result<Option<Completion<M::Grants>>, Failure> {
        let Some(done) = self.disks.poll(self.machine, which)? else {
            self.disks.wait(self.machine, which)?;
            return Ok(None);
        };
        if let Some(area) = self.area.as_mut().filter(|area| area.place.which == which) {
            area.writes.retain(|(tag, _)| *tag != done.tag);
        }
        Ok(Some(done))
    }

    /// Puts one request; waits for room. Nobody sees it before the next kick.
    fn put(
        &mut self,
        which: Which,
        operation: Operation,
        sector: u64,
        buffer: Buffer<M::Grants>,
    ) -> Result<Tag, Failure> {
        let mut waiting = buffer;
        loop {
            let mut disk = self.disks.disk(which)?;
            match disk.submit(operation, sector, waiting) {
                Ok(tag) => return Ok(tag),
                Err(refused) => match (refused.error, refused.buffer) {
                    (SubmitError::Busy, Some(buffer)) => waiting = buffer,
                    (error, _) => return Err(Failure::failed(error)),
                },
            }
            disk.kick();
            self.reap(which, None)?;
        }
    }

    /// Waits for one request.
    fn complete(&mut self, which: Which, tag: Tag) -> Result<Option<Buffer<M::Grants>>, Failure> {
        self.disks.disk(which)?.kick();
        loop {
            if let Some(done) = self.reap(which, Some(tag))? {
                return Ok(done.buffer);
            }
        }
    }

    /// Reads or writes and waits for it; gives the buffer back.
    ///
    /// # Errors
    /// [`Failure`], of this request or of a write of the swap that was in flight.
    pub fn request(
        &mut self,
        which: Which,
        operation: Operation,
        sector: u64,
        buffer: Buffer<M::Grants>,
    ) -> Result<Buffer<M::Grants>, Failure> {
        let tag = self.put(which, operation, sector, buffer)?;
        let buffer = self.complete(which, tag)?;
        buffer.ok_or_else(|| Failure::failed("a request lost its buffer"))
    }

    /// Makes what was written durable; tells whether the disk can.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn flush(&mut self, which: Which) -> Result<bool, Failure> {
        let mut disk = self.disks.disk(which)?;
        if !disk.has_flush() {
            return Ok(false);
        }
        let tag = disk.flush().map_err(Failure::failed)?;
        self.complete(which, tag).map(|_| true)
    }

    /// A buffer of so many bytes; waits until the swap's writes have given theirs back.
    ///
    /// # Errors
    /// [`Failure::missing`] if there is no room for it at all.
    pub fn buffer(
        &mut self,
        which: Which,
        length_bytes: usize,
    ) -> Result<Buffer<M::Grants>, Failure> {
        loop {
            let mut disk = self.disks.disk(which)?;
            if let Some(buffer) = disk.buffer(length_bytes) {
                return Ok(buffer);
            }
            if disk.in_flight() == 0 {
                return Err(Failure::missing("not enough memory for one request"));
            }
            disk.kick();
            self.reap(which, None)?;
        }
    }

    /// The disk of the area, and the sector where a slot begins.
    fn locate(&self, slot: Slot) -> Result<(Which, u64), Failure> {
        let area = self.area.as_ref();
        let place = area.map(|area| &area.place).ok_or_else(|| Failure::missing("no swap"))?;
        Ok((place.which, place.first + u64::from(slot.0) * SECTORS))
    }

    /// A failure of the area; that the user wants an end is none of its own.
    fn named(&self, failure: Failure) -> Failure {
        if failure == Failure::interrupted() {
            return failure;
        }
        let name = self.area.as_ref().map_or("none", |area| &area.place.name);
        Failure { text: format!("swap on {name}: {failure}"), status: failure.status }
    }

    fn write_out<F: AsRef<ring::Page>>(&mut self, pages: &[(Slot, &F)]) -> Result<(), Failure> {
        let mut rest = pages;
        while let Some((first, _)) = rest.first() {
            let (which, sector) = self.locate(*first)?;
            // Half of the pool at most, so that a read finds room.
            let room = self.disks.disk(which)?.free_pages() / 2;
            let length = row(rest.iter().map(|page| page.0), room.clamp(1, REQUEST_PAGES));
            let (run, later) = rest.split_at(length);
            let buffer = self.buffer(which, length * PAGE_SIZE)?;
            for (page, (_, frame)) in buffer.pages().zip(run) {
                page.copy_from(frame.as_ref());
            }
            let tag = self.put(which, Operation::Write, sector, buffer)?;
            let slots = first.0..first.0.saturating_add(u32::try_from(length).unwrap_or(u32::MAX));
            if let Some(area) = self.area.as_mut() {
                area.writes.push((tag, slots));
            }
            rest = later;
            if rest.is_empty() {
                self.disks.disk(which)?.kick();
            }
        }
        Ok(())
    }

    fn read_in<F: AsRef<ring::Page>>(&mut self, pages: &[(Slot, &F)]) -> Result<(), Failure> {
        // The back may do what is in flight in any order.
        while pages.iter().any(|page| self.is_being_written(page.0)) {
            let (which, _) = self.locate(Slot(0))?;
            self.reap(which, None)?;
        }
        let mut rest = pages;
        while !rest.is_empty() {
            // As many at once as there are buffers for.
            let mut reads = ArrayVec::<(Tag, usize), WANTED_MAX>::new();
            let (which, _) = self.locate(Slot(0))?;
            for (at, (slot, _)) in rest.iter().enumerate().take(WANTED_MAX) {
                let none = at > 0 && self.disks.disk(which)?.free_pages() == 0;
                if none || self.disks.disk(which)?.free_slots() == 0 && at > 0 {
                    break;
                }
                let (_, sector) = self.locate(*slot)?;
                let buffer = self.buffer(which, PAGE_SIZE)?;
                reads.push((self.put(which, Operation::Read, sector, buffer)?, at));
            }
            let count = reads.len();
            self.disks.disk(which)?.kick();
            while !reads.is_empty() {
                let Some(done) = self.reap_any(which)? else { continue };
                let Some(at) = reads.iter().position(|read| read.0 == done.tag) else { continue };
                let (_, frame) = rest[reads.swap_remove(at).1];
                let buffer =
                    done.buffer.ok_or_else(|| Failure::failed("a read lost its buffer"))?;
                buffer.pages().for_each(|page| frame.as_ref().copy_from(page));
            }
            rest = &rest[count..];
        }
        Ok(())
    }

    fn is_being_written(&self, Slot(slot): Slot) -> bool {
        let mut writes = self.area.iter().flat_map(|area| &area.writes);
        writes.any(|(_, slots)| slots.contains(&slot))
    }
}

// By hand: a derive would ask that `M` be `Debug` too.
impl<M: Machine> core::fmt::Debug for Session<'_, M> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Session").field("area", &self.area).finish_non_exhaustive()
    }
}

impl<F: AsRef<ring::Page>, M: Machine> Backing<F> for Session<'_, M> {
    type Error = Failure;

    fn take(&mut self) -> Option<Slot> {
        self.area.as_mut()?.slots.take()
    }

    fn give(&mut self, slot: Slot) {
        if let Some(area) = self.area.as_mut() {
            area.slots.give(slot);
        }
    }

    fn scarce(&self) -> bool {
        self.area.as_ref().is_none_or(|area| area.slots.free() < area.slots.usable() / 8)
    }

    fn write(&mut self, pages: &[(Slot, &F)]) -> Result<(), Failure> {
        self.write_out(pages).map_err(|failure| self.named(failure))
    }

    fn read(&mut self, pages: &[(Slot, &F)]) -> Result<(), Failure> {
        self.read_in(pages).map_err(|failure| self.named(failure))
    }
}

/// How many of the first slots follow one another, at most `limit`.
fn row(slots: impl Iterator<Item = Slot>, limit: usize) -> usize {
    let mut count = 0;
    let mut next = None;
    for slot in slots.take(limit) {
        if next.is_some_and(|next| next != slot.0) {
            break;
        }
        next = slot.0.checked_add(1);
        count += 1;
    }
    count
}

/// `swapon`: takes an area into use, or lists what is in use.
///
/// # Errors
/// [`Failure`].
pub fn on<M: Machine>(
    machine: &M,
    disks: &mut Disks<M>,
    area: &mut Option<Area>,
    words: &[String],
) -> Result<(), Failure> {
    let [word] = words else {
        return Err(Failure::usage("usage: swapon -s|LABEL=…|UUID=…|/dev/DISK"));
    };
    if word == "-s" {
        machine.print(format_args!("{:<12} {:<16} {:>12} {:>12}", "Name", "Label", "KiB", "Used"));
        if let Some(Figures { name, label, total, used }) = area.as_ref().map(Area::figures) {
            let [total, used] = [total, used].map(|pages| u64::from(pages) * 4);
            machine.print(format_args!("{name:<12} {label:<16} {total:>12} {used:>12}"));
        }
        return Ok(());
    }
    if let Some(area) = area {
        return Err(Failure::failed(format!("{} is in use: one at a time", area.place.name)));
    }
    let place = find_swap(machine, disks, word)?;
    let opened = Area::open(machine, disks, place)?;
    let Figures { name, label, total, .. } = opened.figures();
    machine.print(format_args!("swap on {name} (label {label:?}): {} KiB", u64::from(total) * 4));
    *area = Some(opened);
    Ok(())
}

/// `swapoff`: takes the area out of use. No program runs meanwhile, so it is empty.
///
/// # Errors
/// [`Failure::missing`] if there is none.
pub fn off<M: Machine>(machine: &M, area: &mut Option<Area>) -> Result<(), Failure> {
    let area = area.take().ok_or_else(|| Failure::missing("no swap is in use"))?;
    machine.print(format_args!("swap off {}", area.place.name));
    Ok(())
}
