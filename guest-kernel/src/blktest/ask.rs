//! Requests as their words, right or wrong: `xen/include/public/io/blkif.h`, 64-bit layout.

use alloc::vec::Vec;

/// Words of a slot.
pub(super) const SLOT_WORDS: usize = 28;

/// The operations of the header.
pub(super) const READ: u8 = 0;
pub(super) const WRITE: u8 = 1;
pub(super) const BARRIER: u8 = 2;
pub(super) const FLUSH: u8 = 3;
pub(super) const DISCARD: u8 = 5;
pub(super) const INDIRECT: u8 = 6;

/// A run of sectors in a granted page: reference, first sector, last sector.
pub(super) type Part = (u32, u8, u8);

/// A request that may make no sense.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) operation: u8,
    /// The number of segments; a discard's flags; the inner operation of an indirect request.
    pub(super) count: u8,
    /// Bytes 2 and 3: the device, or the number of segments of an indirect request.
    pub(super) handle: u16,
    pub(super) id: u64,
    pub(super) sector: u64,
    /// What follows the sector.
    pub(super) tail: Vec<u32>,
}

impl Ask {
    /// An operation at a sector, without segments.
    pub(super) const fn new(operation: u8, id: u64, sector: u64) -> Self {
        Self { operation, count: 0, handle: 0, id, sector, tail: Vec::new() }
    }

    pub(super) const fn read(id: u64, sector: u64) -> Self {
        Self::new(READ, id, sector)
    }

    pub(super) const fn write(id: u64, sector: u64) -> Self {
        Self::new(WRITE, id, sector)
    }

    /// One more segment. Past the eleventh only the count goes up: a slot has no room.
    pub(super) fn part(mut self, part: Part) -> Self {
        self.count = self.count.wrapping_add(1);
        if self.tail.len() < 22 {
            self.tail.extend(part_words(part));
        }
        self
    }

    /// One more segment: a whole page.
    pub(super) fn whole(self, reference: u32) -> Self {
        self.part((reference, 0, 7))
    }

    /// A discard of so many sectors.
    pub(super) fn discard(id: u64, sector: u64, sectors: u64, flags: u8) -> Self {
        let tail = halves(sectors).to_vec();
        Self { count: flags, tail, ..Self::new(DISCARD, id, sector) }
    }

    /// An indirect request: `segments` of them, described in the pages `descriptors`.
    pub(super) fn indirect(
        id: u64,
        sector: u64,
        (inner, segments): (u8, u16),
        descriptors: &[u32],
    ) -> Self {
        let mut tail = alloc::vec![0];
        tail.extend(descriptors.iter().take(8));
        Self { count: inner, handle: segments, tail, ..Self::new(INDIRECT, id, sector) }
    }

    pub(super) fn words(&self) -> Vec<u32> {
        let [low, high] = self.handle.to_le_bytes();
        let mut words = alloc::vec![u32::from_le_bytes([self.operation, self.count, low, high]), 0];
        words.extend(halves(self.id));
        words.extend(halves(self.sector));
        words.extend(&self.tail);
        words
    }
}

/// A segment as a request and an indirect page hold it.
pub(super) fn part_words((reference, first, last): Part) -> [u32; 2] {
    [reference, u32::from_le_bytes([first, last, 0, 0])]
}

/// A 64-bit number as two words, low one first.
fn halves(value: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    [u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])]
}
