//! A user of a disk who knows what he wrote, and holds everything that he reads against it.
//!
//! Every sector's content is made from a stamp. What a sector may hold is
//! [`Versions`](crate::versions)'s to say; here is who asked for what and how it ended. Operations
//! in flight never overlap, as with any user who wants to know what he wrote.

use std::ops::Range;

use blkfront::{Disk, Tag};
use blkif::{Operation, Status};
use sim::{Domain, Random};

use crate::Platter;
use crate::versions::{SECTOR, Stamp, Versions, content};

/// As many operations are in flight at most.
const FLIGHTS_MAX: usize = 32;
/// Sectors of a long flush, which brings data with it: 11 pages.
const LONG_FLUSH: usize = 88;
/// Sectors of a short one. Most are short, as long ones cost time and tell little more.
const SHORT: usize = 4;

/// An operation without an answer.
struct Flight {
    tag: Tag,
    operation: Operation,
    sectors: Range<usize>,
    stamp: Stamp,
    /// When it was asked for.
    asked: u64,
    /// A flush had failed: nothing that writes may end well.
    hopeless: bool,
}

/// What one user of a disk believes.
pub struct Ledger {
    sectors: Vec<Versions>,
    flights: Vec<Flight>,
    stamps: Stamp,
    /// Counts what was asked and answered.
    now: u64,
    /// Where the last operation ended: some go on there.
    end: usize,
    hopeless: bool,
    /// Memory for what is read.
    read: Vec<u8>,
    /// Operations answered well.
    pub done: usize,
    /// Operations answered with an error.
    pub failed: usize,
}

impl Ledger {
    /// A disk of zeros.
    pub fn new(sectors: usize) -> Self {
        Self::stamped(sectors, 0)
    }

    /// A disk of zeros on which is never written what is written on another one.
    pub(crate) fn apart(sectors: usize) -> Self {
        Self::stamped(sectors, 1 << 32)
    }

    fn stamped(sectors: usize, stamps: Stamp) -> Self {
        let sectors = vec![Versions::new(); sectors];
        let (flights, read, now, end) = (Vec::new(), Vec::new(), 0, 0);
        Self { sectors, flights, stamps, now, end, hopeless: false, read, done: 0, failed: 0 }
    }

    /// The disk has so many more sectors, of zeros; whoever uses it learns of them in time.
    pub fn grow(&mut self, sectors: usize) {
        self.sectors.resize(self.sectors.len() + sectors, Versions::new());
    }

    /// How many operations have no answer.
    pub fn in_flight(&self) -> usize {
        self.flights.len()
    }

    /// Whether from now on nothing that writes may end well, because a flush has failed.
    pub fn set_hopeless(&mut self, hopeless: bool) {
        self.hopeless = hopeless;
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
        let long = match operation {
            Operation::Flush => LONG_FLUSH,
            _ => disk.buffer_bytes_max() / SECTOR,
        };
        let most = if random.below(64) == 0 { long } else { SHORT };
        // Of flushes, some bring data that is to be written after them.
        let none = operation == Operation::Flush && random.below(4) > 0;
        let all = usize::try_from(disk.geometry().sectors).expect("the medium is small");
        let sectors = if none { 0 } else { 1 + random.below(most.min(all)) };
        let places = all - sectors + 1;
        let goes_on = random.below(4) == 0 && self.end < places;
        let sector = if goes_on { self.end } else { random.below(places) };
        self.request(disk, operation, sector, sectors);
    }

    /// Submits one operation, unless there is no room for it or it would overlap with another;
    /// tells whether it did.
    ///
    /// # Panics
    /// If the disk refuses what is lawful.
    pub fn request(
        &mut self,
        disk: &mut Disk<Domain, Domain>,
        operation: Operation,
        sector: usize,
        sectors: usize,
    ) -> bool {
        let end = sector + sectors;
        let taken = |f: &Flight| sector < f.sectors.end && f.sectors.start < end;
        let full = disk.free_slots() == 0 || self.in_flight() >= FLIGHTS_MAX;
        if full || self.flights.iter().any(taken) {
            return false;
        }
        self.stamps += 1;
        let brings = matches!(operation, Operation::Write | Operation::Flush) && sectors > 0;
        let stamp = if brings { self.stamps } else { 0 };
        let Some(tag) = submitted(disk, operation, (sector, sectors), stamp) else { return false };
        self.now += 1;
        self.end = end;
        let (asked, hopeless) = (self.now, self.hopeless && operation != Operation::Read);
        let sectors = sector..end;
        self.flights.push(Flight { tag, operation, sectors, stamp, asked, hopeless });
        true
    }

    /// Takes every completion that is there and checks it.
    ///
    /// # Panics
    /// If a completion is none of ours, or read what cannot be, or the back broke the ring.
    pub fn poll(&mut self, disk: &mut Disk<Domain, Domain>) -> usize {
        let mut taken = 0;
        while let Some(completion) = disk.poll().expect("an honest back") {
            taken += 1;
            self.now += 1;
            let flight = self.flights.iter().position(|it| it.tag == completion.tag);
            let flight = self.flights.swap_remove(flight.expect("in flight"));
            assert_eq!(flight.operation, completion.operation);
            if completion.status != Status::Okay {
                self.failed += 1;
                self.doubt(&flight);
                continue;
            }
            assert!(!flight.hopeless, "{:?} ended well after a failed flush", flight.operation);
            self.done += 1;
            if flight.operation != Operation::Read {
                self.settle(&flight);
                continue;
            }
            let mut bytes = std::mem::take(&mut self.read);
            bytes.resize(flight.sectors.len() * SECTOR, 0);
            completion.buffer.expect("its buffer").read(0, &mut bytes);
            self.check(flight.sectors.start, &bytes);
            self.read = bytes;
        }
        taken
    }

    /// The connection is gone: what was in flight may have happened or not.
    pub fn lose(&mut self) {
        for flight in std::mem::take(&mut self.flights) {
            self.doubt(&flight);
        }
    }

    /// Holds what was read against what may be.
    ///
    /// # Panics
    /// If a sector holds what it cannot.
    pub fn check(&mut self, first: usize, bytes: &[u8]) {
        for (sector, found) in (first..).zip(bytes.chunks_exact(SECTOR)) {
            let seen = self.sectors[sector].seen(sector, found);
            assert!(seen, "sector {sector} holds what was never written there, or too old");
        }
    }

    /// Holds what a power cut has left against what it may leave. Who was connected is gone.
    ///
    /// # Panics
    /// If a sector lost what was flushed, or holds what was never written there.
    pub fn check_after_power_cut(&mut self, platter: &Platter) {
        self.lose();
        platter.look(0, self.sectors.len(), |bytes| {
            for (sector, found) in bytes.chunks_exact(SECTOR).enumerate() {
                let fine = self.sectors[sector].survived(sector, found);
                assert!(fine, "sector {sector} after a power cut holds what it cannot");
            }
        });
    }

    /// Holds everything that a power cut might leave now against what it may leave; tells how many
    /// different disks those are, torn sectors aside.
    ///
    /// # Panics
    /// As [`check_after_power_cut`](Self::check_after_power_cut).
    pub fn check_if_power_failed(&self, platter: &Platter) -> usize {
        let mut versions = vec![0; self.sectors.len()];
        platter.versions(|sector, bytes| {
            versions[sector] += 1;
            let unanswered = self
                .flights
                .iter()
                .filter(|it| writes(it))
                .any(|it| it.sectors.contains(&sector) && bytes == content(sector, it.stamp));
            let fine = unanswered || self.sectors[sector].may_survive(sector, bytes);
            assert!(fine, "sector {sector} would hold what it cannot, if power failed now");
        });
        versions.iter().product()
    }

    fn settle(&mut self, flight: &Flight) {
        if flight.operation == Operation::Flush {
            self.sectors.iter_mut().for_each(|versions| versions.flushed(flight.asked));
        }
        for versions in &mut self.sectors[flight.sectors.clone()] {
            versions.written(flight.stamp, self.now);
        }
    }

    fn doubt(&mut self, flight: &Flight) {
        if flight.operation == Operation::Flush {
            self.sectors.iter_mut().for_each(Versions::not_flushed);
        }
        if writes(flight) {
            for versions in &mut self.sectors[flight.sectors.clone()] {
                versions.doubted(flight.stamp);
            }
        }
    }
}

/// Whether it changes sectors.
fn writes(flight: &Flight) -> bool {
    flight.operation != Operation::Read && !flight.sectors.is_empty()
}

/// Gives an operation to the disk; `None` if there are too few pages for it.
fn submitted(
    disk: &mut Disk<Domain, Domain>,
    operation: Operation,
    (sector, sectors): (usize, usize),
    stamp: Stamp,
) -> Option<Tag> {
    let lawful = "lawful and offered";
    match operation {
        Operation::Flush if sectors == 0 => return Some(disk.flush().expect(lawful)),
        Operation::Discard => {
            return Some(disk.discard(sector as u64, sectors as u64).expect(lawful));
        }
        _ => {}
    }
    let buffer = disk.buffer(sectors * SECTOR)?;
    if operation != Operation::Read {
        for at in 0..sectors {
            buffer.write(at * SECTOR, &content(sector + at, stamp));
        }
    }
    let submitted = disk.submit(operation, sector as u64, buffer);
    Some(submitted.map_err(|refused| refused.error).expect(lawful))
}
