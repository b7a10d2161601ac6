//! Requests as a front may write them: three in four nearly lawful, so that what comes behind the
//! first check is reached, and anything at all besides.

use sim::Random;

use crate::oracle::{MAX_INDIRECT, Terms};

/// Words of the larger slot.
pub const SLOT_WORDS: usize = 28;
/// A slot as it is before anybody has looked at it.
pub type Slot = [u32; SLOT_WORDS];

/// The segments in a page of descriptors, as it is before anybody has looked at it.
pub type Descriptors = [u32; 2 * MAX_INDIRECT];

/// Where choices come from: a seed, or the bytes of a fuzzer's input.
pub trait Choose {
    /// A number below `limit`, which is not 0.
    fn below(&mut self, limit: usize) -> usize;
    /// Any byte.
    fn byte(&mut self) -> u8;
    /// Any word.
    fn word(&mut self) -> u32;
    /// Any double word.
    fn double(&mut self) -> u64;
}

impl Choose for Random {
    fn below(&mut self, limit: usize) -> usize {
        self.below(limit)
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[7]
    }

    fn word(&mut self) -> u32 {
        self.word()
    }

    fn double(&mut self) -> u64 {
        self.next()
    }
}

/// What was done to a lawful request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// Nothing.
    None,
    /// Any operation.
    Operation,
    /// Any number of segments.
    Count,
    /// Any ends of one segment.
    Ends,
    /// Any first sector.
    Sector,
    /// Any length of a discard.
    Length,
    /// A grant that is none, or not for this.
    Reference,
    /// One bit anywhere.
    Bit,
    /// Every word is random.
    Rubbish,
}

impl Mutation {
    /// All of them, with their names for reports.
    pub const ALL: [(Self, &'static str); 9] = [
        (Self::None, "none"),
        (Self::Operation, "operation"),
        (Self::Count, "segment count"),
        (Self::Ends, "segment ends"),
        (Self::Sector, "sector"),
        (Self::Length, "discard length"),
        (Self::Reference, "grant"),
        (Self::Bit, "one bit"),
        (Self::Rubbish, "all words"),
    ];

    fn draw(random: &mut impl Choose) -> Self {
        match random.below(16) {
            0 | 1 => Self::Operation,
            2 | 3 => Self::Count,
            4 | 5 => Self::Ends,
            6 | 7 => Self::Sector,
            8 => Self::Length,
            9 | 10 => Self::Reference,
            11..=13 => Self::Bit,
            _ => Self::Rubbish,
        }
    }
}

/// Numbers at which something changes, for sectors and lengths.
pub const EDGES: [u64; 24] = [
    0,
    1,
    7,
    8,
    9,
    11,
    87,
    88,
    89,
    1023,
    1 << 16,
    u32::MAX as u64 - 8,
    u32::MAX as u64,
    1 << 32,
    1 << 53,
    (1 << 54) - 1,
    1 << 54,
    (1 << 54) + 1,
    (1 << 63) - 1,
    1 << 63,
    u64::MAX - 88,
    u64::MAX - 8,
    u64::MAX - 7,
    u64::MAX,
];

/// Writes requests for a disk.
pub struct Wild<'a> {
    /// What the back has published.
    pub terms: &'a Terms,
    /// The first of the front's usable grants, and how many there are.
    pub grants: (u32, u32),
    /// A lawful request has at most this many segments.
    pub segments_max: usize,
    /// The page of descriptors for indirect requests, if there are to be any: its grant, and what is
    /// in it.
    pub descriptors: Option<(u32, &'a Descriptors)>,
}

impl Wild<'_> {
    /// Fills a slot and tells what is wrong with it.
    pub fn fill(&self, random: &mut impl Choose, slot: &mut Slot) -> Mutation {
        let mutation = if random.below(2) == 0 { Mutation::None } else { Mutation::draw(random) };
        if mutation == Mutation::Rubbish {
            for pair in slot.chunks_exact_mut(2) {
                [pair[0], pair[1]] = halves(random.double());
            }
            return mutation;
        }
        self.lawful(random, slot);
        self.mutate(random, slot, mutation);
        mutation
    }

    /// Where the id, the sector, and what follows are, in words.
    const fn places(&self) -> (usize, usize, usize) {
        if self.terms.wide { (2, 4, 6) } else { (1, 3, 5) }
    }

    /// Fills a slot with a request that lies on the disk and uses good grants.
    pub fn lawful(&self, random: &mut impl Choose, slot: &mut Slot) {
        let (id_at, sector_at, rest_at) = self.places();
        let unit = self.terms.unit;
        let operation = [0, 0, 0, 1, 1, 1, 3, 5][random.below(8)];
        if let Some((reference, words)) = self.descriptors
            && operation <= 1
            && random.below(4) == 0
        {
            return self.indirect(random, slot, operation, (reference, words));
        }
        let mut sectors = 0;
        let mut count = 0;
        if operation == 5 {
            sectors = unit * (1 + random.below(8) as u64);
            [slot[rest_at], slot[rest_at + 1]] = halves(sectors);
        } else if operation != 3 || random.below(4) == 0 {
            count = 1 + random.below(self.segments_max);
        }
        for at in 0..count {
            let (first, last) = ends(random, unit);
            sectors += u64::from(last - first) + 1;
            let nth = random.below(self.grants.1 as usize);
            slot[rest_at + at * 2] = self.grants.0 + u32::try_from(nth).unwrap_or(0);
            slot[rest_at + at * 2 + 1] = u32::from_le_bytes([first, last, 0, 0]);
        }
        let count = u8::try_from(count).unwrap_or(0);
        slot[0] = u32::from_le_bytes([operation, count, 0, 0]);
        [slot[id_at], slot[id_at + 1]] = halves(random.double());
        [slot[sector_at], slot[sector_at + 1]] = halves(self.place(random, sectors));
    }

    /// Where so many sectors lie on the disk, if they do.
    fn place(&self, random: &mut impl Choose, sectors: u64) -> u64 {
        let unit = self.terms.unit;
        let room = (self.terms.sectors.saturating_sub(sectors) / unit).min(1 << 40);
        random.below(usize::try_from(room).unwrap_or(0) + 1) as u64 * unit
    }

    /// Fills a slot with an indirect request that lies on the disk, if its descriptors are good.
    fn indirect(
        &self,
        random: &mut impl Choose,
        slot: &mut Slot,
        operation: u8,
        (reference, words): (u32, &Descriptors),
    ) {
        let (id_at, sector_at, rest_at) = self.places();
        let count = 1 + random.below(usize::from(self.terms.indirect).max(1));
        let (pairs, _) = words.as_chunks::<2>();
        let length = |[_, ends]: &[u32; 2]| {
            let [first, last, _, _] = ends.to_le_bytes();
            u64::from(last.wrapping_sub(first)) + 1
        };
        let sectors = pairs.iter().take(count).map(length).sum();
        let [low, high] = u16::try_from(count).unwrap_or(0).to_le_bytes();
        slot[0] = u32::from_le_bytes([6, operation, low, high]);
        [slot[id_at], slot[id_at + 1]] = halves(random.double());
        [slot[sector_at], slot[sector_at + 1]] = halves(self.place(random, sectors));
        [slot[rest_at], slot[rest_at + 1]] = [random.word(), reference];
    }

    /// Segments for a page of descriptors: all good, or one that is not.
    pub fn describe(&self, random: &mut impl Choose) -> Descriptors {
        let mut words = [0; 2 * MAX_INDIRECT];
        for at in 0..MAX_INDIRECT {
            let (first, last) = ends(random, self.terms.unit);
            let nth = random.below(self.grants.1 as usize);
            words[2 * at] = self.grants.0 + u32::try_from(nth).unwrap_or(0);
            words[2 * at + 1] = u32::from_le_bytes([first, last, 0, 0]);
        }
        match random.below(8) {
            0 => words[random.below(words.len())] = random.word(),
            1 => words[random.below(words.len())] ^= 1 << random.below(32),
            _ => {}
        }
        words
    }

    fn mutate<C: Choose>(&self, random: &mut C, slot: &mut Slot, mutation: Mutation) {
        let (_, sector_at, rest_at) = self.places();
        let [operation, count, low, high] = slot[0].to_le_bytes();
        match mutation {
            Mutation::None | Mutation::Rubbish => {}
            Mutation::Operation => {
                slot[0] = u32::from_le_bytes([random.byte(), count, low, high]);
            }
            Mutation::Count => {
                let count = if random.below(2) == 0 { random.byte() } else { random.byte() % 14 };
                slot[0] = u32::from_le_bytes([operation, count, low, high]);
            }
            Mutation::Ends => {
                let at = rest_at + 1 + random.below(usize::from(count).max(1)) * 2;
                let edge = |from: &mut C| match from.below(2) {
                    0 => [0, 6, 7, 8, 9, 255][from.below(6)],
                    _ => from.byte(),
                };
                let [_, _, third, fourth] = slot[at].to_le_bytes();
                slot[at] = u32::from_le_bytes([edge(random), edge(random), third, fourth]);
            }
            Mutation::Sector => {
                [slot[sector_at], slot[sector_at + 1]] = halves(self.number(random));
            }
            Mutation::Length => {
                slot[0] = u32::from_le_bytes([5, count, low, high]);
                [slot[rest_at], slot[rest_at + 1]] = halves(self.number(random));
            }
            Mutation::Reference => {
                let at = rest_at + random.below(usize::from(count).max(1)) * 2;
                slot[at] = if random.below(2) == 0 {
                    random.word()
                } else {
                    self.grants.0 + self.grants.1
                };
            }
            Mutation::Bit => slot[random.below(SLOT_WORDS)] ^= 1 << random.below(32),
        }
    }

    /// Any number, most of them near an edge of something.
    fn number(&self, random: &mut impl Choose) -> u64 {
        let near = random.below(12) as u64;
        match random.below(4) {
            0 => EDGES[random.below(EDGES.len())],
            1 => random.double(),
            2 => self.terms.sectors.wrapping_sub(near),
            _ => self.terms.sectors.wrapping_add(near).wrapping_sub(90),
        }
    }
}

/// First and last sector of a lawful segment.
fn ends(random: &mut impl Choose, unit: u64) -> (u8, u8) {
    let (unit, units) = (u8::try_from(unit).unwrap_or(8), usize::try_from(8 / unit).unwrap_or(1));
    let first = random.below(units);
    let last = first + random.below(units - first);
    let sector = |at: usize| u8::try_from(at).unwrap_or(0) * unit;
    (sector(first), sector(last) + unit - 1)
}

/// A 64-bit number as two words, low one first.
pub const fn halves(value: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    [u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])]
}
