//! The reference model: what may stand on a disk, sector by sector, and a user who checks it.
//!
//! Every sector's content is made from a stamp. A write that was answered well leaves one stamp
//! possible; one that failed, or was never answered, leaves the old and the new. Operations in
//! flight never overlap, as with any user who wants to know what he wrote.

use std::collections::BTreeMap;

use blkfront::{Disk, Tag};
use blkif::{Operation, Status};
use sim::{Domain, Random};

const SECTOR: usize = 512;

/// What a sector holds: 0 stands for zeros, anything else for a pattern of its own.
type Stamp = u64;

/// The content of a sector with a stamp.
fn content(sector: usize, stamp: Stamp) -> [u8; SECTOR] {
    let mut bytes = [0; SECTOR];
    if stamp != 0 {
        let mut random = Random::new(stamp ^ (sector as u64) << 32);
        for word in bytes.chunks_exact_mut(8) {
            word.copy_from_slice(&random.next().to_le_bytes());
        }
    }
    bytes
}

/// An operation without an answer.
struct Flight {
    operation: Operation,
    sector: usize,
    sectors: usize,
    stamp: Stamp,
}

/// What one user of a disk believes.
pub struct Ledger {
    /// For each sector the stamps that it may have.
    possible: Vec<Vec<Stamp>>,
    flights: BTreeMap<usize, (Tag, Flight)>,
    stamps: Stamp,
    /// Operations answered well.
    pub done: usize,
    /// Operations answered with an error.
    pub failed: usize,
}

impl Ledger {
    /// A disk of zeros.
    pub fn new(sectors: usize) -> Self {
        let possible = vec![vec![0]; sectors];
        Self { possible, flights: BTreeMap::new(), stamps: 0, done: 0, failed: 0 }
    }

    /// How many operations have no answer.
    pub fn in_flight(&self) -> usize {
        self.flights.len()
    }

    /// Submits one operation that `random` chooses, unless there is no room for it.
    ///
    /// # Panics
    /// If the disk refuses what is lawful.
    pub fn submit(&mut self, disk: &mut Disk<Domain, Domain>, random: &mut Random) {
        let operation = match random.below(20) {
            0 => Operation::Flush,
            1 if disk.agreed().discard() => Operation::Discard,
            2..10 => Operation::Write,
            _ => Operation::Read,
        };
        self.ask(disk, random, operation);
    }

    /// The same, but never a flush: one that fails ends all writing.
    ///
    /// # Panics
    /// If the disk refuses what is lawful.
    pub fn submit_without_flush(&mut self, disk: &mut Disk<Domain, Domain>, random: &mut Random) {
        let reads = random.below(2) == 0;
        self.ask(disk, random, if reads { Operation::Read } else { Operation::Write });
    }

    fn ask(&mut self, disk: &mut Disk<Domain, Domain>, random: &mut Random, operation: Operation) {
        if disk.free_slots() == 0 || self.in_flight() >= 32 {
            return;
        }
        // Mostly small, as long ones cost time and tell little more.
        let most = if random.below(8) == 0 { 88 } else { 12 };
        let sectors = if operation == Operation::Flush { 0 } else { 1 + random.below(most) };
        let sector = random.below(self.possible.len() - sectors + 1);
        let taken =
            |(_, f): &(Tag, Flight)| sector < f.sector + f.sectors && f.sector < sector + sectors;
        if self.flights.values().any(taken) {
            return;
        }
        self.stamps += 1;
        let stamp = if operation == Operation::Write { self.stamps } else { 0 };
        let flight = Flight { operation, sector, sectors, stamp };
        let tag = match operation {
            Operation::Flush => disk.flush().expect("offered"),
            Operation::Discard => disk.discard(sector as u64, sectors as u64).expect("offered"),
            _ => {
                let Some(buffer) = disk.buffer(sectors * SECTOR) else { return };
                if operation == Operation::Write {
                    for at in 0..sectors {
                        buffer.write(at * SECTOR, &content(sector + at, stamp));
                    }
                }
                let submitted = disk.submit(operation, sector as u64, buffer);
                submitted.map_err(|refused| refused.error).expect("lawful")
            }
        };
        self.flights.insert(tag.place(), (tag, flight));
    }

    /// Takes every completion that is there and checks it.
    ///
    /// # Panics
    /// If a completion is none of ours, or read what cannot be, or the back broke the ring.
    pub fn poll(&mut self, disk: &mut Disk<Domain, Domain>) -> usize {
        let mut taken = 0;
        while let Some(completion) = disk.poll().expect("an honest back") {
            taken += 1;
            let (tag, flight) = self.flights.remove(&completion.tag.place()).expect("in flight");
            assert_eq!((tag, flight.operation), (completion.tag, completion.operation));
            if completion.status != Status::Okay {
                self.failed += 1;
                self.doubt(&flight);
                continue;
            }
            self.done += 1;
            match flight.operation {
                Operation::Read => {
                    let mut bytes = vec![0; flight.sectors * SECTOR];
                    completion.buffer.expect("its buffer").read(0, &mut bytes);
                    self.check(flight.sector, &bytes);
                }
                _ => self.settle(&flight),
            }
        }
        taken
    }

    /// The connection is gone: what was in flight may have happened or not.
    pub fn lose(&mut self) {
        for (_, (_, flight)) in std::mem::take(&mut self.flights) {
            self.doubt(&flight);
        }
    }

    /// Holds what is on the disk against what may be.
    ///
    /// # Panics
    /// If a sector holds what it cannot.
    pub fn check(&mut self, first: usize, bytes: &[u8]) {
        for (at, found) in bytes.chunks_exact(SECTOR).enumerate() {
            let sector = first + at;
            let possible = &mut self.possible[sector];
            possible.retain(|&stamp| found == content(sector, stamp));
            assert!(!possible.is_empty(), "sector {sector} holds what was never written there");
        }
    }

    fn settle(&mut self, flight: &Flight) {
        for possible in &mut self.possible[flight.sector..flight.sector + flight.sectors] {
            *possible = vec![flight.stamp];
        }
    }

    fn doubt(&mut self, flight: &Flight) {
        if !matches!(flight.operation, Operation::Write | Operation::Discard) {
            return;
        }
        for possible in &mut self.possible[flight.sector..flight.sector + flight.sectors] {
            if !possible.contains(&flight.stamp) {
                possible.push(flight.stamp);
            }
        }
    }
}
