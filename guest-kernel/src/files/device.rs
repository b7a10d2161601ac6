//! A volume as the file system sees it: reads through a small cache, writes that are sent at once
//! and waited for when it matters.
//!
//! A write is in the cache before it is on its way, so what was written is what is read. Before
//! anything is read from the disk all writes are done, because a back may take requests in any
//! order; for the same reason no two writes of one block are on their way. A flush waits for all and then makes them durable. An error stays: everything after it
//! fails too, so that the file system's journal never goes on over a hole.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec;
use core::cell::RefCell;

use files::{Lost, Sizes};

use crate::programs::stream::Writer;
use crate::programs::{Disks, Failure, Machine};
use crate::volumes::{self, Volume};

/// Bytes of a cached block.
const BLOCK_BYTES: usize = 4096;
/// Sectors of 512 bytes in it.
const BLOCK_SECTORS: u64 = 8;
/// How many blocks are read together when one is missing: a request's worth.
const AHEAD: u64 = 11;
/// A read of this many bytes is file data in bulk, which the cache would only be flooded with.
const BULK_BYTES: usize = 8 * BLOCK_BYTES;
/// Cached blocks: at most 1 MiB, less in a small guest.
const CACHE_BLOCKS: core::ops::RangeInclusive<u64> = 16..=256;

/// The machine and its disks, while file systems on them are open.
pub(super) struct Shared<'a, M: Machine> {
    pub(super) machine: &'a M,
    pub(super) disks: RefCell<&'a mut Disks<M>>,
    /// The first thing that went wrong on a disk: more than a file system's error can say.
    failure: RefCell<Option<Failure>>,
}

impl<'a, M: Machine> Shared<'a, M> {
    pub(super) fn new(machine: &'a M, disks: &'a mut Disks<M>) -> Self {
        Self { machine, disks: RefCell::new(disks), failure: RefCell::new(None) }
    }

    /// What went wrong: on the disk, if something did there.
    pub(super) fn explain(&self, otherwise: impl FnOnce() -> Failure) -> Failure {
        self.failure.borrow().clone().unwrap_or_else(otherwise)
    }

    fn note(&self, failure: Failure) -> Lost {
        self.failure.borrow_mut().get_or_insert(failure);
        Lost
    }

    fn check(&self) -> Result<(), Lost> {
        if self.failure.borrow().is_some() { Err(Lost) } else { Ok(()) }
    }
}

type Block = Box<[u8; BLOCK_BYTES]>;

/// Blocks by their number; the one that came first goes first.
struct Cache {
    blocks: BTreeMap<u64, Block>,
    order: VecDeque<u64>,
    limit: usize,
}

impl Cache {
    fn put(&mut self, number: u64, block: Block) {
        if self.blocks.insert(number, block).is_none() {
            self.order.push_back(number);
        }
        if self.blocks.len() > self.limit
            && let Some(oldest) = self.order.pop_front()
        {
            self.blocks.remove(&oldest);
        }
    }
}

/// An open volume.
pub(super) struct Device<'s, 'a, M: Machine> {
    shared: &'s Shared<'a, M>,
    volume: Volume,
    sizes: Sizes,
    durable: bool,
    writer: Writer,
    /// Blocks with writes on their way.
    writing: BTreeSet<u64>,
    cache: Cache,
}

impl<'s, 'a, M: Machine> Device<'s, 'a, M> {
    /// Opens a volume.
    pub(super) fn new(shared: &'s Shared<'a, M>, volume: Volume) -> Result<Self, Failure> {
        let mut disks = shared.disks.borrow_mut();
        let disk = disks.disk(volume.which)?;
        let geometry = disk.geometry();
        let sector_bytes = geometry.sector_size;
        let sectors = volume.sectors / u64::from(sector_bytes.max(512) / 512);
        let sizes = Sizes { sector_bytes, sectors, read_only: geometry.read_only() };
        let durable = disk.has_flush();
        let limit = shared.machine.free_pages() / 8;
        let limit = limit.clamp(*CACHE_BLOCKS.start(), *CACHE_BLOCKS.end());
        let limit = usize::try_from(limit).unwrap_or(16);
        let cache = Cache { blocks: BTreeMap::new(), order: VecDeque::new(), limit };
        let writer = Writer::new(volume.which);
        let writing = BTreeSet::new();
        Ok(Self { shared, volume, sizes, durable, writer, writing, cache })
    }

    /// A place in sectors of 512 bytes.
    fn sector(&self, sector: u64) -> u64 {
        sector.saturating_mul(u64::from(self.sizes.sector_bytes / 512))
    }

    /// Waits for the writes on their way.
    fn drain(&mut self) -> Result<(), Lost> {
        self.writing.clear();
        let disks = &mut *self.shared.disks.borrow_mut();
        let done = self.writer.drain(self.shared.machine, disks);
        done.map_err(|failure| self.shared.note(failure))
    }

    /// Reads from the disk itself.
    fn fetch(&mut self, sector: u64, out: &mut [u8]) -> Result<(), Lost> {
        self.drain()?;
        let disks = &mut *self.shared.disks.borrow_mut();
        let read = volumes::read(self.shared.machine, disks, &self.volume, sector, out);
        read.map_err(|failure| self.shared.note(failure))
    }

    /// Brings a block into the cache, and those behind it up to the first one that is there.
    fn load(&mut self, number: u64) -> Result<(), Lost> {
        let first = number * BLOCK_SECTORS;
        let left = (self.volume.sectors - first).min(AHEAD * BLOCK_SECTORS);
        let missing = |at: &u64| !self.cache.blocks.contains_key(&(number + at));
        let run = (1..left.div_ceil(BLOCK_SECTORS)).take_while(missing).count() as u64 + 1;
        let sectors = left.min(run * BLOCK_SECTORS);
        let mut bytes = vec![0; usize::try_from(sectors * 512).map_err(|_| Lost)?];
        self.fetch(first, &mut bytes)?;
        // The last first: what was asked for stays, however small the cache is.
        for (at, part) in bytes.chunks(BLOCK_BYTES).enumerate().rev() {
            let mut block = Box::new([0; BLOCK_BYTES]);
            block[..part.len()].copy_from_slice(part);
            self.cache.put(number + at as u64, block);
        }
        Ok(())
    }

    /// Keeps the cache as the disk will be.
    fn update(&mut self, first: u64, buffer: &[u8]) {
        for (sector, bytes) in (first..).zip(buffer.chunks_exact(512)) {
            if let Some(block) = self.cache.blocks.get_mut(&(sector / BLOCK_SECTORS)) {
                let at = place(sector);
                block[at..at + 512].copy_from_slice(bytes);
            }
        }
    }
}

/// Where a sector begins in its block.
fn place(sector: u64) -> usize {
    usize::try_from(sector % BLOCK_SECTORS).unwrap_or(0) * 512
}

impl<M: Machine> files::Volume for Device<'_, '_, M> {
    fn write(&mut self, sector: u64, buffer: &[u8]) -> Result<(), Lost> {
        let first = self.sector(sector);
        self.shared.check()?;
        let end = first + (buffer.len() / 512) as u64;
        let blocks = first / BLOCK_SECTORS..end.div_ceil(BLOCK_SECTORS);
        if blocks.clone().any(|block| self.writing.contains(&block)) {
            self.drain()?;
        }
        self.writing.extend(blocks);
        self.update(first, buffer);
        let disks = &mut *self.shared.disks.borrow_mut();
        let mut sector = self.volume.first + first;
        let mut send = |part: &[u8]| {
            let copy = self.writer.buffer(self.shared.machine, disks, part.len())?;
            copy.write(0, part);
            self.writer.put(self.shared.machine, disks, sector, copy)?;
            sector += (part.len() / 512) as u64;
            Ok(())
        };
        let sent = buffer.chunks(BLOCK_BYTES).try_for_each(&mut send);
        sent.map_err(|failure| self.shared.note(failure))
    }

    fn read(&mut self, sector: u64, buffer: &mut [u8]) -> Result<(), Lost> {
        let first = self.sector(sector);
        self.shared.check()?;
        if buffer.len() >= BULK_BYTES {
            return self.fetch(first, buffer);
        }
        for (sector, out) in (first..).zip(buffer.chunks_exact_mut(512)) {
            let number = sector / BLOCK_SECTORS;
            if !self.cache.blocks.contains_key(&number) {
                self.load(number)?;
            }
            let block = self.cache.blocks.get(&number).ok_or(Lost)?;
            let at = place(sector);
            out.copy_from_slice(&block[at..at + 512]);
        }
        Ok(())
    }

    fn sizes(&self) -> Sizes {
        self.sizes
    }

    fn flush(&mut self) -> Result<(), Lost> {
        self.shared.check()?;
        self.drain()?;
        if self.sizes.read_only || !self.durable {
            return Ok(());
        }
        let disks = &mut *self.shared.disks.borrow_mut();
        let writer = core::mem::replace(&mut self.writer, Writer::new(self.volume.which));
        let flushed = writer.finish(self.shared.machine, disks);
        flushed.map(drop).map_err(|failure| self.shared.note(failure))
    }
}
