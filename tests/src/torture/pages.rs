//! Whole ring pages against a whole session: every request gets its one lawful answer, or the ring
//! is given up, and either way a turn costs no more than a ring full of the longest requests.
//!
//! The ring lies in [`Flicker`] memory, so each word of a slot is fetched at most once; what the
//! oracle makes of a frozen copy is what must be answered and what must reach the disk.

mod strike;
mod watch;

use std::sync::atomic::Ordering;

use blkback::{Lent, Link, Past, Session};
use sim::Random;
use xen::{DomainId, Events, Port};

use crate::oracle::{ERROR, MAX_INDIRECT, Terms, Work, judge};
use crate::torture::bench::BenchDisk;
use crate::torture::counter::{HEADER, REQ_PROD, RSP_PROD, agreed};
use crate::torture::wild::{Slot, Wild};
use crate::torture::yard::{DESCRIPTORS, Yard};
use crate::torture::{Attack, Flicker, Tally};

/// Words of the largest ring.
pub const WORDS: usize = 16 * 1024;
/// Pages that a hostile front has granted.
const GRANTS: usize = 24;
/// A session meets so many pages before it is closed.
const PAGES_MAX: usize = 64;
/// Segments of a lawful request here: fewer than there may be, so that a page is quick.
const SEGMENTS_MAX: usize = 3;

/// A request that waits for its answer: id, operation, and the status if only one is lawful.
type Expected = (u64, u8, Option<i16>);

/// A hostile front with the session that serves it.
struct Front<'a> {
    memory: &'a Flicker,
    yard: Yard,
    terms: Terms,
    session: Session<Yard, BenchDisk, Yard, Lent<&'a Flicker>>,
    slots: u32,
    slot_words: usize,
    /// The index behind the last request.
    index: u32,
    persistent: bool,
    /// Whether jobs fail now and then.
    failing: bool,
    expected: Vec<Expected>,
    found: Vec<(u64, u8, i16)>,
    slot: Slot,
    /// What is in the page of descriptors.
    descriptors: [u8; 8 * MAX_INDIRECT],
    /// Sectors that the lawful requests of this page read, write and discard.
    moved: [u64; 3],
}

/// Plays one session's worth of pages, at most `pages`.
///
/// # Panics
/// If the session does anything that no back may do.
pub fn play(memory: &Flicker, random: &mut Random, pages: u64, tally: &mut Tally) {
    let mut front = Front::new(memory, random);
    let yard = front.yard.clone();
    tally.sessions += 1;
    for _ in (0..pages).take(PAGES_MAX) {
        let attack = Attack::draw(random);
        tally.attack(attack);
        tally.pages += 1;
        if !front.page(random, attack, tally) {
            break;
        }
    }
    drop(front);
    let left = [&yard.asked.mapped, &yard.asked.ports].map(|it| it.load(Ordering::Relaxed));
    assert_eq!(left, [0, 0], "mapped pages and open ports of a closed session");
}

/// What a back publishes, as bits choose it.
fn terms(random: &mut Random) -> Terms {
    let bits = random.next();
    let offered = |at: u32| bits >> at & 7 != 0;
    Terms {
        wide: bits & 1 == 0,
        unit: if bits & 2 == 0 { 1 } else { 1 << (bits >> 8 & 3) },
        sectors: [64, 1024, 1 << 20, (1 << 54) - 8][random.below(4)],
        read_only: !offered(16),
        flush: offered(20),
        discard: offered(24),
        indirect: if offered(28) { 0 } else { 32 },
    }
}

impl<'a> Front<'a> {
    fn new(memory: &'a Flicker, random: &mut Random) -> Self {
        let terms = terms(random);
        let order = [0, 0, 0, 1, 2, 4][random.below(6)];
        let [persistent, failing] = [random.below(2) == 0, random.below(8) == 0];
        let (geometry, agreed) = agreed(&terms, order, persistent);
        let layout = agreed.abi.layout(order);
        let index = if random.below(2) == 0 { random.word() } else { u32::MAX - 40 };
        (0..WORDS).for_each(|word| memory.poke(word, 0));
        memory.poke(RSP_PROD, index);
        memory.poke(REQ_PROD, index);
        let yard = Yard::new(GRANTS);
        let peer = DomainId(5);
        let port = yard.bind(peer, Port(9)).expect("a port");
        let past = Past::default();
        let link = Link { peer, ring: memory, port, agreed, geometry, past };
        let mut disk = BenchDisk::new(&terms, random.next());
        disk.failures = if failing { 100 } else { 0 };
        Self {
            memory,
            session: Session::new(yard.clone(), yard.clone(), disk, link),
            yard,
            terms,
            slots: layout.slots(),
            slot_words: layout.slot_words(),
            index,
            persistent,
            failing,
            expected: Vec::new(),
            found: Vec::new(),
            slot: [0; 28],
            descriptors: [0; _],
            moved: [0; 3],
        }
    }

    /// One page; tells whether the session lives on.
    fn page(&mut self, random: &mut Random, attack: Attack, tally: &mut Tally) -> bool {
        self.memory.begin();
        self.expected.clear();
        self.moved = [0; 3];
        let before = self.figures();
        // Mostly as many as fit into one page.
        let most = if random.below(4) == 0 { self.slots } else { 32 };
        let count = 1 + below(random, most);
        self.ask(random, count, tally);
        let lives = self.strike(random, attack, tally);
        if lives {
            self.assert_answered(tally);
            self.assert_moved(before);
        }
        lives
    }

    /// Writes `count` requests into the slots that follow and shows them.
    fn ask(&mut self, random: &mut Random, count: u32, tally: &mut Tally) {
        let (terms, grants) = (self.terms, self.yard.grants());
        let mut wild =
            Wild { terms: &terms, grants, segments_max: SEGMENTS_MAX, descriptors: None };
        let described = wild.describe(random);
        if terms.indirect > 0 {
            self.yard.describe(&described);
            wild.descriptors = Some((DESCRIPTORS, &described));
        }
        for (bytes, word) in self.descriptors.chunks_exact_mut(4).zip(described) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        for _ in 0..count {
            let mut slot = self.slot;
            tally.mutation(wild.fill(random, &mut slot));
            self.put(&slot);
            self.slot = slot;
        }
        tally.page_requests += u64::from(count);
        self.memory.poke(REQ_PROD, self.index);
    }

    fn put(&mut self, slot: &Slot) {
        let place = self.place(self.index);
        let mut bytes = [0; 112];
        for (at, word) in slot.iter().enumerate().take(self.slot_words) {
            self.memory.poke(place + at, *word);
            bytes[at * 4..at * 4 + 4].copy_from_slice(&word.to_le_bytes());
        }
        self.index = self.index.wrapping_add(1);
        let page = |it| (it == DESCRIPTORS).then_some(&self.descriptors[..]);
        let verdict = judge(&bytes[..self.slot_words * 4], &self.terms, page);
        let status = match verdict.work {
            Err(status) => Some(status),
            Ok(work) => self.grants_permit(verdict.operation, &work),
        };
        self.expected.push((verdict.id, verdict.operation, status));
    }

    /// The status of a lawful request, which its grants decide; `None` if the disk has a say too.
    fn grants_permit(&mut self, operation: u8, work: &Work) -> Option<i16> {
        let good = work.segments[..work.count].iter().all(|segment| self.yard.has(segment.0));
        if !good {
            return Some(ERROR);
        }
        let way = match operation {
            0 => 0,
            5 => 2,
            _ => 1,
        };
        self.moved[way] += work.sectors;
        (!self.failing).then_some(0)
    }

    /// The first word of the slot that `index` falls into.
    fn place(&self, index: u32) -> usize {
        HEADER + (index & (self.slots - 1)) as usize * self.slot_words
    }

    /// How many requests of this page were put.
    fn asked(&self) -> u32 {
        u32::try_from(self.expected.len()).unwrap_or(u32::MAX)
    }

    /// The index of this page's first request.
    fn first(&self) -> u32 {
        self.index.wrapping_sub(self.asked())
    }
}

/// A number below `limit`.
fn below(random: &mut Random, limit: u32) -> u32 {
    u32::try_from(random.below(limit as usize)).unwrap_or(0)
}
