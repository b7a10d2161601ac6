//! Which pages of a swap area are in use: one bit each.
//!
//! Slots are given out in rising order from where the last one was, so that pages that go out
//! together lie together and go in few requests.

use alloc::vec::Vec;

use super::Slot;

const BITS: u32 = u64::BITS;

/// The slots of a swap area.
#[derive(Debug)]
pub struct Slots {
    /// A set bit is a slot that cannot be had.
    words: Vec<u64>,
    total: u32,
    free: u32,
    usable: u32,
    next: u32,
}

impl Slots {
    /// Slots `1..=last`, all free but those in `bad`. `None` if there is no memory for the bits.
    pub fn new(last: u32, bad: &[u32]) -> Option<Self> {
        let total = last.checked_add(1)?;
        let length = total.div_ceil(BITS) as usize;
        let mut words = Vec::new();
        words.try_reserve_exact(length).ok()?;
        words.resize(length, 0);
        let mut slots = Self { words, total, free: last, usable: last, next: 1 };
        slots.words[0] |= 1;
        for &slot in bad.iter().filter(|slot| (1..total).contains(slot)) {
            if !slots.is_used(slot) {
                slots.set(slot);
            }
        }
        slots.usable = slots.free;
        Some(slots)
    }

    /// How many can be had in all.
    pub const fn usable(&self) -> u32 {
        self.usable
    }

    /// How many are free.
    pub const fn free(&self) -> u32 {
        self.free
    }

    /// Takes a slot: the one behind the last that was taken, or else the next that is free.
    pub fn take(&mut self) -> Option<Slot> {
        if self.free == 0 {
            return None;
        }
        let found = self.find(self.next, self.total).or_else(|| self.find(1, self.next))?;
        self.set(found);
        self.next = if found + 1 < self.total { found + 1 } else { 1 };
        Some(Slot(found))
    }

    /// Gives a slot back.
    ///
    /// # Panics
    /// If it is not in use: it would be given to two pages.
    pub fn give(&mut self, Slot(slot): Slot) {
        assert!(slot > 0 && slot < self.total && self.is_used(slot), "slot {slot} is not in use");
        self.words[(slot / BITS) as usize] &= !(1 << (slot % BITS));
        self.free += 1;
    }

    fn set(&mut self, slot: u32) {
        self.words[(slot / BITS) as usize] |= 1 << (slot % BITS);
        self.free -= 1;
    }

    fn is_used(&self, slot: u32) -> bool {
        self.words[(slot / BITS) as usize] & 1 << (slot % BITS) != 0
    }

    fn find(&self, from: u32, end: u32) -> Option<u32> {
        let mut slot = from;
        while slot < end {
            let word = self.words[(slot / BITS) as usize] | ((1 << (slot % BITS)) - 1);
            if word != u64::MAX {
                let found = slot / BITS * BITS + word.trailing_ones();
                return (found < end).then_some(found);
            }
            slot = (slot / BITS + 1) * BITS;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::collections::BTreeSet;
    use std::vec::Vec;

    use super::*;

    #[test]
    fn the_header_and_bad_pages_are_never_given_out() {
        let mut slots = Slots::new(130, &[3, 64, 64, 999]).expect("memory");
        assert_eq!((slots.usable(), slots.free()), (128, 128));
        let taken: Vec<u32> = core::iter::from_fn(|| slots.take()).map(|slot| slot.0).collect();
        assert_eq!(taken.len(), 128);
        assert!(!taken.iter().any(|slot| [0, 3, 64, 131].contains(slot)));
        assert_eq!((taken[0], taken.last()), (1, Some(&130)));
        assert_eq!(slots.take(), None);
    }

    #[test]
    fn slots_come_in_a_row_and_go_round() {
        let mut slots = Slots::new(4, &[]).expect("memory");
        let first: Vec<_> = (0..3).filter_map(|_| slots.take()).collect();
        assert_eq!(first, [Slot(1), Slot(2), Slot(3)]);
        slots.give(Slot(1));
        assert_eq!(slots.take(), Some(Slot(4)), "forward before back");
        assert_eq!(slots.take(), Some(Slot(1)));
    }

    #[test]
    #[should_panic(expected = "not in use")]
    fn giving_twice_is_our_mistake() {
        let mut slots = Slots::new(4, &[]).expect("memory");
        let slot = slots.take().expect("a slot");
        slots.give(slot);
        slots.give(slot);
    }

    #[test]
    fn no_slot_is_given_to_two() {
        let mut slots = Slots::new(200, &[7]).expect("memory");
        let mut held = BTreeSet::new();
        let mut seed = 1_u64;
        for _ in 0..20_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            if seed >> 63 == 0 {
                match slots.take() {
                    Some(slot) => assert!(held.insert(slot), "{slot} twice"),
                    None => assert_eq!(held.len(), 199),
                }
            } else if let Some(&slot) = held.iter().nth((seed >> 40) as usize % held.len().max(1)) {
                held.remove(&slot);
                slots.give(slot);
            }
            assert_eq!(slots.free() as usize + held.len(), 199);
        }
    }
}
