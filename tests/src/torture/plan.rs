//! What a run of the torture does, cut into jobs that need nothing of each other.
//!
//! A job is known by its number alone, so that any thread can do it and a failed one can be done
//! again.

use sim::Random;

use crate::torture::indexes::{Position, positions};
use crate::torture::orders::{ORDERS, Order, Speaker, Stage};
use crate::torture::{Flicker, Tally, answers, fields, pages, requests};

/// Requests of one round.
pub const ROUND_REQUESTS: u64 = 100_000;
/// Steps of hostile backs in one round.
const ROUND_STEPS: u64 = 10_000;
/// Orders of states in one round, for each speaker.
const ROUND_ORDERS: u64 = 5;
/// Orders in one job of the exhaustive part.
const JOB_ORDERS: u64 = 1000;
/// All indexes are cut into so many jobs.
const INDEX_JOBS: u32 = 64;

/// A part of the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    /// One set of fields.
    Fields(usize),
    /// Some orders of states, from this one on.
    Orders(Speaker, u64),
    /// One part of all indexes.
    Indexes(Position, u32),
    /// Random requests, pages, answers and orders, all from this seed.
    Round {
        /// The seed.
        seed: u64,
        /// How many requests.
        requests: u64,
        /// How many pages.
        pages: u64,
    },
}

/// What is exhaustive, the longest jobs first.
pub fn exhaustive(ring_positions: usize) -> Vec<Job> {
    let orders = |speaker| {
        (0..ORDERS.div_ceil(JOB_ORDERS)).map(move |job| Job::Orders(speaker, job * JOB_ORDERS))
    };
    let indexes = positions(ring_positions)
        .flat_map(|position| (0..INDEX_JOBS).map(move |part| Job::Indexes(position, part)));
    let fields = (0..FIELDS.len()).map(Job::Fields);
    fields.chain(orders(Speaker::Front)).chain(orders(Speaker::Back)).chain(indexes).collect()
}

/// The exhaustive sets of fields.
const FIELDS: [fn() -> u64; 7] = [
    || fields::ends(0..11, &[1, 2, 4, 8]),
    || fields::operations_and_counts(fields::all_terms()),
    || fields::indirect_operations_and_counts(0..=u16::MAX),
    || fields::indirect_ends(0..32, &[1, 8]),
    || fields::sectors_and_capacities(fields::capacities()),
    || fields::pairs(fields::all_terms()),
    || fields::ends_in_pairs(),
];

impl Job {
    /// Does it.
    ///
    /// # Panics
    /// If anything is not as it must be.
    pub fn run(self, tally: &mut Tally) {
        match self {
            Self::Fields(at) => tally.fields += FIELDS[at](),
            Self::Orders(speaker, first) => {
                let mut stage = Stage::new();
                for number in first..ORDERS.min(first + JOB_ORDERS) {
                    stage.play(speaker, &Order::new(speaker, number, number));
                    tally.orders += 1;
                }
            }
            Self::Indexes(position, part) => {
                let length = u32::MAX / INDEX_JOBS + 1;
                let first = part * length;
                tally.believed += position.try_all(first..=first + (length - 1));
                tally.indexes += u64::from(length);
            }
            Self::Round { seed, requests, pages } => round(seed, requests, pages, tally),
        }
    }

    /// The options of the program that do it again.
    pub fn again(self) -> String {
        match self {
            Self::Round { seed, requests, pages } => {
                format!("--random-only --seed {seed} --requests {requests} --pages {pages}")
            }
            _ => "--requests 0 --pages 0".to_owned(),
        }
    }
}

/// Each kind has a stream of its own, so that one can change without the others.
fn round(seed: u64, requests: u64, pages: u64, tally: &mut Tally) {
    let stream = |kind: u64| Random::new(seed.wrapping_mul(4).wrapping_add(kind));
    requests::play(&Flicker::new(2048, 0), &mut stream(0), requests, tally);
    let memory = Flicker::new(pages::WORDS, 16);
    let (mut random, end) = (stream(1), tally.pages + pages);
    while tally.pages < end {
        pages::play(&memory, &mut random, end - tally.pages, tally);
    }
    let (mut random, house) = (stream(2), answers::House::new());
    let end = tally.steps + ROUND_STEPS;
    while tally.steps < end {
        answers::play(&house, &mut random, tally);
    }
    let mut random = stream(3);
    for speaker in [Speaker::Front, Speaker::Back] {
        let mut stage = Stage::new();
        for _ in 0..ROUND_ORDERS {
            let number = random.next() % ORDERS;
            stage.play(speaker, &Order::new(speaker, number, random.next()));
            tally.orders += 1;
        }
    }
}
