//! Reading and writing a run of sectors with many requests in flight.
//!
//! What is longer than a request of the disk goes as several. A [`Reader`] hands out the
//! buffers in the order of the disk, whatever the order of their completion; a [`Writer`] takes
//! them as they come.

use alloc::collections::VecDeque;
use alloc::format;
#[cfg(any(target_os = "none", test))]
use alloc::vec::Vec;

use blkfront::{Buffer, SubmitError, Tag};
use blkif::Operation;

use super::disks::{AnyDisk, Which};
use super::{Disks, Failure, Machine};

/// The most requests that a stream has in flight.
const WINDOW_MAX: usize = 32;
/// How many writes a writer sends together.
const BATCH: usize = 8;
/// Each stream leaves this part of the pool to others: the pages of its buffers are at most a
/// quarter of the pool.
const SHARE: usize = 4;

/// Sectors of 512 bytes, in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) first: u64,
    pub(crate) sectors: u64,
}

impl Span {
    /// From `first` on, `sectors` long or to the end of the disk, which it must not pass.
    pub(crate) fn on_disk<M: Machine>(
        disks: &mut Disks<M>,
        which: Which,
        first: u64,
        sectors: Option<u64>,
    ) -> Result<Self, Failure> {
        let size = disks.disk(which)?.geometry().sectors;
        let rest = size.checked_sub(first);
        match (rest, sectors) {
            (Some(rest), None) => Ok(Self { first, sectors: rest }),
            (Some(rest), Some(sectors)) if sectors <= rest => Ok(Self { first, sectors }),
            _ => {
                let name = disks.name(which);
                Err(Failure::usage(format!("{name}: it ends after {size} sectors of 512 bytes")))
            }
        }
    }
}

/// Sectors that were read, from `sector` on.
pub(crate) struct Chunk<M: Machine> {
    pub(crate) sector: u64,
    pub(crate) data: Buffer<M::Grants>,
}

/// A request of a reader, and its data when it is there.
struct Slot<M: Machine> {
    sector: u64,
    tag: Tag,
    data: Option<Buffer<M::Grants>>,
}

/// Reads a span ahead of its consumer.
pub(crate) struct Reader<M: Machine> {
    which: Which,
    left: Span,
    chunk_bytes: usize,
    window: VecDeque<Slot<M>>,
    /// How many requests the window held when it was filled last.
    filled: usize,
}

impl<M: Machine> Reader<M> {
    /// Nothing is read before [`next`](Self::next).
    pub(crate) fn new(disks: &mut Disks<M>, which: Which, span: Span) -> Result<Self, Failure> {
        let chunk_bytes = chunk_bytes(&disks.disk(which)?);
        let window = VecDeque::with_capacity(WINDOW_MAX);
        Ok(Self { which, left: span, chunk_bytes, window, filled: 0 })
    }

    /// The next chunk of the span; `None` at the end.
    pub(crate) fn next(
        &mut self,
        machine: &M,
        disks: &mut Disks<M>,
    ) -> Result<Option<Chunk<M>>, Failure> {
        loop {
            self.read_ahead(disks)?;
            while let Some(done) = disks.poll(machine, self.which)? {
                if let Some(slot) = self.window.iter_mut().find(|slot| slot.tag == done.tag) {
                    slot.data = done.buffer;
                }
            }
            match self.window.front_mut() {
                None if self.left.sectors == 0 => return Ok(None),
                None => return Err(no_memory(disks, self.which)),
                Some(slot) => {
                    if let Some(data) = slot.data.take() {
                        let sector = slot.sector;
                        self.window.pop_front();
                        return Ok(Some(Chunk { sector, data }));
                    }
                }
            }
            disks.wait(machine, self.which)?;
        }
    }

    /// Fills the window when it is half empty, so that requests go in batches.
    fn read_ahead(&mut self, disks: &mut Disks<M>) -> Result<(), Failure> {
        if self.window.len() > self.filled / 2 {
            return Ok(());
        }
        let mut disk = disks.disk(self.which)?;
        while self.left.sectors > 0 && self.window.len() < WINDOW_MAX {
            let Some(buffer) = disk.buffer(length(self.left, self.chunk_bytes)) else { break };
            let (sector, sectors) = (self.left.first, (buffer.length_bytes() / 512) as u64);
            match disk.submit(Operation::Read, sector, buffer) {
                Ok(tag) => self.window.push_back(Slot { sector, tag, data: None }),
                Err(refused) if refused.error == SubmitError::Busy => break,
                Err(refused) => {
                    let name = disks.name(self.which);
                    return Err(Failure::failed(format!("{name}: read: {}", refused.error)));
                }
            }
            self.left.first += sectors;
            self.left.sectors -= sectors;
        }
        disk.kick();
        self.filled = self.window.len();
        Ok(())
    }
}

/// Writes buffers and waits for them at the end.
pub(crate) struct Writer {
    which: Which,
    in_flight: usize,
}

impl Writer {
    /// Nothing is written yet.
    pub(crate) const fn new(which: Which) -> Self {
        Self { which, in_flight: 0 }
    }

    /// A buffer to be written, as soon as there is one.
    pub(crate) fn buffer<M: Machine>(
        &mut self,
        machine: &M,
        disks: &mut Disks<M>,
        length_bytes: usize,
    ) -> Result<Buffer<M::Grants>, Failure> {
        loop {
            if self.in_flight < WINDOW_MAX
                && let Some(buffer) = disks.disk(self.which)?.buffer(length_bytes)
            {
                return Ok(buffer);
            }
            if self.in_flight == 0 {
                return Err(no_memory(disks, self.which));
            }
            self.reap(machine, disks)?;
        }
    }

    /// Writes a buffer, sooner or later.
    pub(crate) fn put<M: Machine>(
        &mut self,
        machine: &M,
        disks: &mut Disks<M>,
        sector: u64,
        buffer: Buffer<M::Grants>,
    ) -> Result<(), Failure> {
        let mut waiting = buffer;
        loop {
            let mut disk = disks.disk(self.which)?;
            match disk.submit(Operation::Write, sector, waiting) {
                Ok(_) => {
                    self.in_flight += 1;
                    if self.in_flight.is_multiple_of(BATCH) {
                        disk.kick();
                    }
                    return Ok(());
                }
                Err(refused) => match (refused.error, refused.buffer) {
                    (SubmitError::Busy, Some(buffer)) => waiting = buffer,
                    (error, _) => {
                        let name = disks.name(self.which);
                        return Err(Failure::failed(format!("{name}: write: {error}")));
                    }
                },
            }
            self.reap(machine, disks)?;
        }
    }

    /// Waits for every write.
    pub(crate) fn drain<M: Machine>(
        &mut self,
        machine: &M,
        disks: &mut Disks<M>,
    ) -> Result<(), Failure> {
        while self.in_flight > 0 {
            self.reap(machine, disks)?;
        }
        Ok(())
    }

    /// Waits for every write and makes them durable, where the back offers that; tells whether it
    /// does.
    pub(crate) fn finish<M: Machine>(
        mut self,
        machine: &M,
        disks: &mut Disks<M>,
    ) -> Result<bool, Failure> {
        self.drain(machine, disks)?;
        let mut disk = disks.disk(self.which)?;
        if !disk.has_flush() {
            return Ok(false);
        }
        let flushed = disk.flush();
        flushed.map_err(|error| {
            Failure::failed(format!("{}: flush: {error}", disks.name(self.which)))
        })?;
        self.in_flight = 1;
        self.reap(machine, disks)?;
        Ok(true)
    }

    /// Sends what was put, and waits until at least one request is done.
    fn reap<M: Machine>(&mut self, machine: &M, disks: &mut Disks<M>) -> Result<(), Failure> {
        disks.disk(self.which)?.kick();
        loop {
            let before = self.in_flight;
            while disks.poll(machine, self.which)?.is_some() {
                self.in_flight -= 1;
            }
            if self.in_flight < before {
                return Ok(());
            }
            disks.wait(machine, self.which)?;
        }
    }
}

/// All bytes of a disk, or the first `limit_bytes` of it.
#[cfg(any(target_os = "none", test))]
pub(crate) fn whole<M: Machine>(
    machine: &M,
    disks: &mut Disks<M>,
    name: &str,
    limit_bytes: usize,
) -> Result<Vec<u8>, Failure> {
    let which = disks.find(name)?;
    let sectors = disks.disk(which)?.geometry().sectors.min(limit_bytes as u64 / 512);
    let mut bytes = Vec::new();
    let length = usize::try_from(sectors * 512).unwrap_or(usize::MAX);
    let room = bytes.try_reserve_exact(length);
    room.map_err(|_| Failure::missing(format!("{name}: not enough memory for {length} bytes")))?;
    let mut reader = Reader::new(disks, which, Span { first: 0, sectors })?;
    while let Some(Chunk { data, .. }) = reader.next(machine, disks)? {
        let at = bytes.len();
        bytes.resize(at + data.length_bytes(), 0);
        data.read(0, &mut bytes[at..]);
    }
    Ok(bytes)
}

/// How much one request of a stream carries.
pub(crate) fn chunk_bytes<M: Machine>(disk: &AnyDisk<'_, M>) -> usize {
    (disk.free_pages() / SHARE * 4096).clamp(4096, disk.buffer_bytes_max())
}

/// The next chunk of a span, in bytes.
pub(crate) fn length(left: Span, chunk_bytes: usize) -> usize {
    usize::try_from(left.sectors.saturating_mul(512)).unwrap_or(usize::MAX).min(chunk_bytes)
}

fn no_memory<M: Machine>(disks: &Disks<M>, which: Which) -> Failure {
    Failure::missing(format!("{}: not enough memory for one request", disks.name(which)))
}
