//! An elevator that takes the nearest request first, as a kernel module.
//!
//! Shortest seek first: of all that waits, the request goes to the disk that starts nearest to
//! where the last one ended. It makes the way of the head shorter than any fixed order does, and
//! it is not fair: a request far away waits as long as near ones keep coming. That is what a
//! comparison with `deadline` is to show; it is not for a disk that somebody waits for.
//!
//! The command `sstf` tells what it has done. Must never lose an entry or give one back twice.
#![no_std]

extern crate alloc;

use alloc::collections::BTreeMap;
use core::sync::atomic::{AtomicU64, Ordering};

use module_abi::{Elevator, Entry};

#[cfg(target_os = "none")]
mod plugin;

/// Entries that went to a disk, of all disks.
static PASSED: AtomicU64 = AtomicU64::new(0);
/// Sectors between the end of one entry and the start of the next, of all disks together.
static TRAVELLED: AtomicU64 = AtomicU64::new(0);

/// The entries of one disk by where they start; by the order they came in for the same place.
#[derive(Debug)]
pub struct Sstf {
    waiting: BTreeMap<(u64, u64), Entry>,
    /// How many came so far.
    came: u64,
    /// Where the last one ended.
    head: u64,
}

impl Elevator for Sstf {
    const NAME: &'static str = "sstf";

    fn new() -> Self {
        Self { waiting: BTreeMap::new(), came: 0, head: 0 }
    }

    fn add(&mut self, entry: Entry) {
        self.waiting.insert((entry.sector, self.came), entry);
        self.came = self.came.wrapping_add(1);
    }

    fn next(&mut self, _now_ns: u64) -> Option<Entry> {
        let above = self.waiting.range((self.head, 0)..).next().map(|(key, _)| *key);
        let below = self.waiting.range(..(self.head, 0)).next_back().map(|(key, _)| *key);
        let distance = |key: (u64, u64)| key.0.abs_diff(self.head);
        // Upwards when both are as near.
        let nearest = match (above, below) {
            (Some(above), Some(below)) if distance(below) < distance(above) => below,
            (Some(above), _) => above,
            (None, below) => below?,
        };
        // From above, the first that is met at a place is the youngest.
        let oldest = *self.waiting.range((nearest.0, 0)..).next()?.0;
        let entry = self.waiting.remove(&oldest)?;
        PASSED.fetch_add(1, Ordering::Relaxed);
        TRAVELLED.fetch_add(distance(nearest), Ordering::Relaxed);
        self.head = entry.sector.saturating_add(entry.sectors);
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use module_abi::READ;

    use super::*;

    fn entry(key: u64, sector: u64, sectors: u64) -> Entry {
        Entry { key, sector, sectors, operation: READ, reserved: 0, arrived_ns: 0 }
    }

    fn order(sectors: &[u64]) -> Vec<u64> {
        let mut elevator = Sstf::new();
        for (key, &sector) in (0..).zip(sectors) {
            elevator.add(entry(key, sector, 8));
        }
        core::iter::from_fn(|| elevator.next(0)).map(|entry| entry.key).collect()
    }

    #[test]
    fn the_nearest_goes_first_in_both_directions() {
        // From 0: to 10, ending at 18; 16 is 2 away, 30 is 12; from 24, 30 is 6 away.
        assert_eq!(order(&[30, 10, 16]), [1, 2, 0]);
        assert_eq!(order(&[100, 90, 1000]), [1, 0, 2]);
    }

    #[test]
    fn entries_of_one_place_go_in_the_order_they_came_from_either_side() {
        assert_eq!(order(&[50, 50, 50]), [0, 1, 2]);
        // The last two are met from above, after 200.
        let mut elevator = Sstf::new();
        elevator.add(entry(0, 200, 8));
        assert_eq!(elevator.next(0).map(|entry| entry.key), Some(0));
        (1..4).for_each(|key| elevator.add(entry(key, 100, 8)));
        let keys: Vec<u64> =
            core::iter::from_fn(|| elevator.next(0)).map(|entry| entry.key).collect();
        assert_eq!(keys, [1, 2, 3]);
    }

    #[test]
    fn every_entry_comes_back_once_and_the_nearest_is_taken_each_time() {
        let mut seed = 1_u64;
        let mut random = move |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % below
        };
        let mut elevator = Sstf::new();
        let mut model: Vec<Entry> = Vec::new();
        let (mut head, mut came, mut went) = (0_u64, 0_u64, 0_u64);
        for _ in 0..20_000 {
            if random(2) == 0 {
                let new = entry(came, random(1000) * 8, 8);
                came += 1;
                model.push(new);
                elevator.add(new);
            } else if let Some(next) = elevator.next(0) {
                let nearest = model.iter().map(|it| it.sector.abs_diff(head)).min();
                assert_eq!(Some(next.sector.abs_diff(head)), nearest);
                let at = model.iter().position(|it| it.key == next.key).expect("it waits");
                assert!(model[..at].iter().all(|it| it.sector != next.sector), "the oldest first");
                model.remove(at);
                head = next.sector + next.sectors;
                went += 1;
            } else {
                assert!(model.is_empty());
            }
        }
        assert_eq!(came - went, model.len() as u64);
    }

    #[test]
    fn the_last_sector_of_all_does_not_overflow() {
        let mut elevator = Sstf::new();
        elevator.add(entry(0, u64::MAX, u64::MAX));
        assert!(elevator.next(0).is_some());
        elevator.add(entry(1, 0, 1));
        assert_eq!(elevator.next(0).map(|entry| entry.key), Some(1));
        assert_eq!(elevator.next(0), None);
    }
}
