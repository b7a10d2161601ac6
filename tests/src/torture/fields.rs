//! Every value of every small field, and every boundary of the large ones, alone and in pairs.

use crate::oracle::Terms;
use crate::torture::counter::Counter;
use crate::torture::wild::{Descriptors, EDGES, halves};
use crate::torture::{Flicker, Slot};

/// The operations that do something.
const OPERATIONS: [u8; 4] = [0, 1, 3, 5];
/// `BLKIF_OP_INDIRECT`.
const INDIRECT: u8 = 6;
/// Ends of segments at which something changes.
const ENDS: [u8; 9] = [0, 1, 3, 4, 6, 7, 8, 128, 255];
/// Numbers of segments at which something changes.
const COUNTS: [u8; 7] = [0, 1, 2, 10, 11, 12, 255];

/// A disk that can do everything.
pub const PLAIN: Terms = Terms {
    wide: true,
    sectors: 1024,
    unit: 1,
    read_only: false,
    flush: true,
    discard: true,
    indirect: 32,
};

/// Both layouts of `terms`.
fn layouts(terms: Terms) -> impl Iterator<Item = Terms> {
    [true, false].into_iter().map(move |wide| Terms { wide, ..terms })
}

/// Every sector size, writable or not, with and without what can be offered.
pub fn all_terms() -> impl Iterator<Item = Terms> {
    (0..32_u32).flat_map(|bits| {
        let bit = |at: u32| bits >> at & 1 == 1;
        let unit = 1 << (bits & 3);
        layouts(Terms { unit, read_only: bit(2), flush: bit(3), discard: bit(4), ..PLAIN })
    })
}

/// A lawful request: 11 whole pages, or a discard of 8 sectors.
fn template(terms: &Terms, operation: u8, count: u8) -> Slot {
    let mut slot = [0; 28];
    let (id_at, sector_at, rest_at) = if terms.wide { (2, 4, 6) } else { (1, 3, 5) };
    slot[0] = u32::from_le_bytes([operation, count, 0, 0]);
    [slot[id_at], slot[id_at + 1]] = halves(0x1122_3344_5566_7788);
    [slot[sector_at], slot[sector_at + 1]] = halves(16);
    for (at, segment) in (8..).zip(slot[rest_at..].chunks_exact_mut(2)) {
        segment.copy_from_slice(&[at, u32::from_le_bytes([0, 7, 0, 0])]);
    }
    if operation == 5 {
        [slot[rest_at], slot[rest_at + 1]] = halves(8);
    }
    slot
}

/// All 256 operations with all 256 numbers of segments; gives how many requests that were.
///
/// # Panics
/// If the code and the oracle differ, here and below.
pub fn operations_and_counts(disks: impl Iterator<Item = Terms>) -> u64 {
    let memory = Flicker::new(2048, 0);
    let mut held = 0;
    for terms in disks {
        let mut counter = Counter::new(&memory, terms, u32::MAX - 77);
        for operation in 0..=u8::MAX {
            for count in 0..=u8::MAX {
                counter.hold(&template(&terms, operation, count));
                held += 1;
            }
        }
    }
    held
}

/// All 256 things that an indirect request can be for with each of `counts` segments.
///
/// # Panics
/// If the code and the oracle differ.
pub fn indirect_operations_and_counts(counts: impl Iterator<Item = u16> + Clone) -> u64 {
    let memory = Flicker::new(2048, 0);
    let mut held = 0;
    for terms in layouts(PLAIN) {
        let mut counter = Counter::new(&memory, terms, u32::MAX - 77);
        counter.describe(&whole_pages());
        for operation in 0..=u8::MAX {
            let mut slot = template(&terms, INDIRECT, operation);
            for count in counts.clone() {
                let [low, high] = count.to_le_bytes();
                slot[0] = u32::from_le_bytes([INDIRECT, operation, low, high]);
                counter.hold(&slot);
                held += 1;
            }
        }
    }
    held
}

/// All 65,536 pairs of ends in each of the segments `places` of a page of descriptors.
///
/// # Panics
/// If the code and the oracle differ.
pub fn indirect_ends(places: impl Iterator<Item = usize> + Clone, units: &[u64]) -> u64 {
    let memory = Flicker::new(2048, 0);
    let mut held = 0;
    for terms in units.iter().flat_map(|&unit| layouts(Terms { unit, ..PLAIN })) {
        let mut counter = Counter::new(&memory, terms, 5);
        for operation in [0, 1] {
            let mut slot = template(&terms, INDIRECT, operation);
            slot[0] = u32::from_le_bytes([INDIRECT, operation, 32, 0]);
            for place in places.clone() {
                let mut described = whole_pages();
                for pair in 0..=u16::MAX {
                    let [first, last] = pair.to_le_bytes();
                    described[place * 2 + 1] = u32::from_le_bytes([first, last, last, first]);
                    counter.describe(&described);
                    counter.hold(&slot);
                    held += 1;
                }
            }
        }
    }
    held
}

/// A page of descriptors of whole pages.
fn whole_pages() -> Descriptors {
    let mut words = [0; _];
    for (at, segment) in (8..).zip(words.as_chunks_mut().0) {
        *segment = [at, u32::from_le_bytes([0, 7, 0, 0])];
    }
    words
}

/// All 65,536 pairs of ends in each of the segments `places`, for every operation that has some.
///
/// # Panics
/// If the code and the oracle differ.
pub fn ends(places: impl Iterator<Item = usize> + Clone, units: &[u64]) -> u64 {
    let memory = Flicker::new(2048, 0);
    let mut held = 0;
    for terms in units.iter().flat_map(|&unit| layouts(Terms { unit, ..PLAIN })) {
        let rest_at = if terms.wide { 6 } else { 5 };
        let mut counter = Counter::new(&memory, terms, 5);
        for operation in [0, 1, 3] {
            for place in places.clone() {
                let mut slot = template(&terms, operation, 11);
                for pair in 0..=u16::MAX {
                    let [first, last] = pair.to_le_bytes();
                    // The two bytes behind them are padding and may hold anything.
                    slot[rest_at + place * 2 + 1] = u32::from_le_bytes([first, last, last, first]);
                    counter.hold(&slot);
                    held += 1;
                }
            }
        }
    }
    held
}

/// Boundary values of sector, capacity and length, all with all.
///
/// # Panics
/// If the code and the oracle differ.
pub fn sectors_and_capacities(capacities: impl Iterator<Item = u64>) -> u64 {
    let memory = Flicker::new(2048, 0);
    let mut held = 0;
    for capacity in capacities {
        for unit in [1, 8] {
            for terms in layouts(Terms { sectors: capacity, unit, ..PLAIN }) {
                let mut counter = Counter::new(&memory, terms, u32::MAX);
                held += around(&mut counter, &terms);
            }
        }
    }
    held
}

/// Every edge, and every number near the end of the disk, as sector and as length of a discard.
fn around(counter: &mut Counter<'_>, terms: &Terms) -> u64 {
    let near = (0..200_u64).map(|it| terms.sectors.wrapping_sub(100).wrapping_add(it));
    let numbers: Vec<u64> = EDGES.into_iter().chain(near).collect();
    let (sector_at, rest_at) = if terms.wide { (4, 6) } else { (3, 5) };
    let mut held = 0;
    for &sector in &numbers {
        for operation in OPERATIONS {
            for count in [1, 2, 11] {
                let mut slot = template(terms, operation, count);
                [slot[sector_at], slot[sector_at + 1]] = halves(sector);
                counter.hold(&slot);
                held += 1;
            }
        }
        for &length in &numbers {
            let mut slot = template(terms, 5, 0);
            [slot[sector_at], slot[sector_at + 1]] = halves(sector);
            [slot[rest_at], slot[rest_at + 1]] = halves(length);
            counter.hold(&slot);
            held += 1;
        }
    }
    held
}

/// Every capacity at an edge.
pub fn capacities() -> impl Iterator<Item = u64> {
    EDGES.into_iter().filter(|&edge| edge <= blkif::SECTORS_MAX)
}

/// A field, or half of one: the word it lies in (and by one less in the smaller layout, which
/// lacks the padding before the id), where in the word, and its boundary values.
struct Field {
    word: usize,
    shift: u32,
    mask: u32,
    values: &'static [u32],
}

const WHOLE: u32 = u32::MAX;
const FIELDS: [Field; 8] = [
    Field { word: 0, shift: 0, mask: 255, values: &[0, 1, 2, 3, 4, 5, 6, 7, 255] },
    Field { word: 0, shift: 8, mask: 255, values: &[0, 1, 2, 10, 11, 12, 255] },
    Field { word: 4, shift: 0, mask: WHOLE, values: &[0, 7, 8, 16, 1000, 1023, 1024, WHOLE] },
    Field { word: 5, shift: 0, mask: WHOLE, values: &[0, 1, 1 << 21, 1 << 22, 1 << 31, WHOLE] },
    // The first segment's grant, or the lower half of a discard's length.
    Field { word: 6, shift: 0, mask: WHOLE, values: &[0, 7, 8, 9, 1008, 1009, WHOLE] },
    // Its ends, or the upper half.
    Field { word: 7, shift: 0, mask: WHOLE, values: &[0, 1, 1 << 22, 1 << 31, WHOLE] },
    Field { word: 7, shift: 8, mask: 255, values: &[0, 1, 7, 8, 255] },
    // The last segment's ends.
    Field { word: 27, shift: 0, mask: 0xffff, values: &[0, 0x0700, 0x0707, 0x0008, 0x0800] },
];

impl Field {
    fn set(&self, terms: &Terms, slot: &mut Slot, value: u32) {
        let at = if terms.wide { self.word } else { self.word.saturating_sub(1) };
        slot[at] = (slot[at] & !(self.mask << self.shift)) | (value << self.shift);
    }
}

/// Every pair of boundary values of every pair of fields, on every lawful request.
///
/// # Panics
/// If the code and the oracle differ.
pub fn pairs(disks: impl Iterator<Item = Terms>) -> u64 {
    let memory = Flicker::new(2048, 0);
    let mut held = 0;
    for terms in disks {
        let mut counter = Counter::new(&memory, terms, 0);
        for operation in OPERATIONS {
            for (at, one) in FIELDS.iter().enumerate() {
                for other in &FIELDS[at..] {
                    held +=
                        pair(&mut counter, &terms, &template(&terms, operation, 11), [one, other]);
                }
            }
        }
    }
    held
}

fn pair(counter: &mut Counter<'_>, terms: &Terms, base: &Slot, [one, other]: [&Field; 2]) -> u64 {
    for &first in one.values {
        for &second in other.values {
            let mut slot = *base;
            one.set(terms, &mut slot, first);
            other.set(terms, &mut slot, second);
            counter.hold(&slot);
        }
    }
    (one.values.len() * other.values.len()) as u64
}

/// Every pair of ends in one segment with every pair in another, of those at which something
/// changes, and with every such number of segments.
///
/// # Panics
/// If the code and the oracle differ.
pub fn ends_in_pairs() -> u64 {
    let memory = Flicker::new(2048, 0);
    let mut held = 0;
    let all: Vec<[u8; 2]> = ENDS.iter().flat_map(|&first| ENDS.map(|last| [first, last])).collect();
    for terms in [1, 8].into_iter().flat_map(|unit| layouts(Terms { unit, ..PLAIN })) {
        let rest_at = if terms.wide { 6 } else { 5 };
        let mut counter = Counter::new(&memory, terms, 9);
        for count in COUNTS {
            for [first, last] in &all {
                for [other_first, other_last] in &all {
                    let mut slot = template(&terms, 1, count);
                    slot[rest_at + 1] = u32::from_le_bytes([*first, *last, 0, 0]);
                    slot[rest_at + 21] = u32::from_le_bytes([*other_first, *other_last, 0, 0]);
                    counter.hold(&slot);
                    held += 1;
                }
            }
        }
    }
    held
}
