//! The ring as a weapon: any words, words that change, indexes that cannot be, events for nothing.

use alloc::format;
use alloc::vec::Vec;
use core::time::Duration;

use super::ask::{Ask, READ, SLOT_WORDS, WRITE};
use super::wire::{REQ_EVENT, REQ_PROD, RSP_EVENT, RSP_PROD, SLOTS, Wire};
use super::{Outcome, Place, Trouble};
use crate::programs::Machine;

/// Ring fulls of random words.
const ROUNDS: u64 = 64;
/// Requests that change after they were published.
const CHANGES: u64 = 256;
/// Events without a request.
const EVENTS: u32 = 20_000;
/// How long a back gets to do what it should not.
const WHILE: Duration = Duration::from_millis(200);

/// `SplitMix64` (Steele, Lea, Flood, 2014): the same numbers in each run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The low word of the next.
    fn word(&mut self) -> u32 {
        let [a, b, c, d, ..] = self.next().to_le_bytes();
        u32::from_le_bytes([a, b, c, d])
    }
}

/// A request that is good but for one word in four of these, and random from end to end in one.
fn wild(numbers: &mut Numbers, page: u32, id: u64) -> Vec<u32> {
    let operation = if numbers.next() & 1 == 0 { READ } else { WRITE };
    let mut words = Ask::new(operation, id, numbers.next() % 128).whole(page).words();
    words.resize(SLOT_WORDS, 0);
    match numbers.next() % 4 {
        0 => words.iter_mut().for_each(|word| *word = numbers.word()),
        _ => {
            let at = usize::try_from(numbers.next() % SLOT_WORDS as u64).unwrap_or(0);
            words[at] = numbers.word();
        }
    }
    // The id says which one is answered.
    let [a, b, c, d, e, f, g, h] = id.to_le_bytes();
    words[2] = u32::from_le_bytes([a, b, c, d]);
    words[3] = u32::from_le_bytes([e, f, g, h]);
    words
}

pub(super) fn any_words<M: Machine>(machine: &M, place: &Place) -> Outcome {
    let mut wire = Wire::open(machine, place)?;
    let page = wire.page()?;
    let mut numbers = Numbers(1);
    for round in 0..ROUNDS {
        let first = round * u64::from(SLOTS);
        let ids = first..first + u64::from(SLOTS);
        ids.clone().for_each(|id| wire.put(&wild(&mut numbers, page, id)));
        wire.publish();
        let mut answered: Vec<u64> = wire.answers()?.iter().map(|answer| answer.id).collect();
        answered.sort_unstable();
        if !answered.iter().copied().eq(ids) {
            return Err(Trouble::failure(format!("round {round}: answered were {answered:?}")));
        }
    }
    wire.close()
}

pub(super) fn changing<M: Machine>(machine: &M, place: &Place) -> Outcome {
    let mut wire = Wire::open(machine, place)?;
    let page = wire.page()?;
    let mut numbers = Numbers(2);
    for id in 0..CHANGES {
        let slot = wire.next_slot();
        wire.put(&Ask::read(id, 0).whole(page).words());
        wire.publish();
        // The count, the sector and the segment become anything while the back looks at them.
        while wire.peek(RSP_PROD) != wire.producer() && !numbers.next().is_multiple_of(4096) {
            let at = [0, 4, 5, 6, 7][usize::try_from(numbers.next() % 5).unwrap_or(0)];
            let old = wire.peek(slot + at);
            wire.poke(slot + at, if at == 0 { old ^ 0xff00 } else { numbers.word() });
        }
        wire.answers()?;
    }
    wire.close()
}

/// Everything that a producer index can be, held against where it stood.
const JUMPS: [u32; 5] = [SLOTS + 1, 1 << 16, 1 << 31, u32::MAX, u32::MAX - SLOTS];

pub(super) fn wild_producer<M: Machine>(machine: &M, place: &Place) -> Outcome {
    for jump in JUMPS {
        let mut wire = Wire::open(machine, place)?;
        let page = wire.page()?;
        wire.expect_done(&Ask::read(1, 0).whole(page))?;
        let before = wire.peek(RSP_PROD);
        wire.poke(REQ_PROD, wire.producer().wrapping_add(jump));
        wire.notify();
        let until = machine.now().after(WHILE);
        while machine.now() < until {
            machine.wait(Some(until), &mut |_| {});
        }
        let answers = wire.peek(RSP_PROD).wrapping_sub(before);
        if answers > 0 {
            let what = format!("{answers} answers to an index {jump:#x} ahead");
            return Err(Trouble::failure(what));
        }
        wire.close()?;
    }
    Ok(())
}

pub(super) fn wild_consumer<M: Machine>(machine: &M, place: &Place) -> Outcome {
    let mut wire = Wire::open(machine, place)?;
    let page = wire.page()?;
    for wild in [0, SLOTS, 1 << 31, u32::MAX] {
        // These are written by the back, which has its own copies.
        wire.poke(RSP_PROD, wild);
        wire.poke(REQ_EVENT, wild);
        // An event may be left out: the front asked for none that will come.
        wire.poke(RSP_EVENT, wire.producer().wrapping_add(1));
        wire.put(&Ask::read(9, 0).whole(page).words());
        wire.publish();
        let until = machine.now().after(super::wire::PATIENCE);
        while wire.peek(RSP_PROD) != wire.producer() {
            if machine.now() >= until {
                let there = wire.peek(RSP_PROD);
                let what = format!("after index {wild:#x} the back's stands at {there:#x}");
                return Err(Trouble::failure(what));
            }
            machine.wait(Some(machine.now().after(super::place::TICK)), &mut |_| {});
        }
        wire.answers()?;
    }
    wire.close()
}

pub(super) fn storm<M: Machine>(machine: &M, place: &Place) -> Outcome {
    let mut wire = Wire::open(machine, place)?;
    let page = wire.page()?;
    for at in 0..EVENTS {
        wire.notify();
        if at.is_multiple_of(2000) {
            wire.expect_done(&Ask::read(u64::from(at), 0).whole(page))?;
        }
    }
    wire.close()
}
