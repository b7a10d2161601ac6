//! Requests one by one, as many as can be.

use sim::Random;

use crate::oracle::Terms;
use crate::torture::counter::Counter;
use crate::torture::wild::{Choose, EDGES, Wild};
use crate::torture::{Flicker, Tally};

/// So many requests meet one disk.
const BATCH: u64 = 256;

/// Holds `count` requests against the oracle.
///
/// # Panics
/// If the code and the oracle differ, or anything was fetched twice.
pub fn play(memory: &Flicker, random: &mut Random, count: u64, tally: &mut Tally) {
    let mut left = count;
    let mut slot = [0; 28];
    while left > 0 {
        let terms = terms(random);
        let mut wild =
            Wild { terms: &terms, grants: (8, 1000), segments_max: 11, descriptors: None };
        let described = wild.describe(random);
        wild.descriptors = (terms.indirect > 0).then_some((7, &described));
        let mut counter = Counter::new(memory, terms, random.word());
        counter.describe(&described);
        for _ in 0..BATCH.min(left) {
            tally.mutation(wild.fill(random, &mut slot));
            let verdict = counter.hold(&slot);
            tally.status(verdict.work.err().unwrap_or(0));
        }
        tally.requests += BATCH.min(left);
        left = left.saturating_sub(BATCH);
    }
}

/// Any disk of any back.
pub(crate) fn terms(random: &mut impl Choose) -> Terms {
    let bits = random.double();
    let bit = |at: u32| bits >> at & 1 == 1;
    let edge = EDGES[random.below(EDGES.len())].min(blkif::SECTORS_MAX);
    let sectors = if bit(0) { 1024 } else { edge };
    let unit = if bit(1) { 1 } else { 1 << (bits >> 8 & 3) };
    let offered = |at: u32| bits >> at & 7 != 0;
    Terms {
        wide: bit(2),
        sectors,
        unit,
        read_only: !offered(16),
        flush: offered(20),
        discard: offered(24),
        indirect: if offered(28) { [1, 11, 12, 32][(bits >> 32 & 3) as usize] } else { 0 },
    }
}
