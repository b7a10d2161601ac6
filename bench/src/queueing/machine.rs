//! The machine: guests, rings, the back, the host's queue and the disk, moved from completion to
//! completion.
//!
//! One thing happens at a time, in the order of the events' times and, at the same time, of their
//! making; nothing here depends on addresses or on a hash.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, VecDeque};

use blkfront::elevator::{Batch, Deadline, Direction, Elevator, Noop, Time, Waiting};
use sim::Random;

use super::disks::{DISK_SECTORS, Disk};
use super::study::{Case, Order, Pattern, Setting};

/// Sectors of a write.
const WRITE_SECTORS: u16 = 8;
/// Sectors of a request of a ring, at most: 11 segments of a page.
const REQUEST_SECTORS_MAX: u64 = 88;
/// Writes that a disk of a guest takes in for each slot of its ring: as many as `blkfront` does, and as
/// Linux does where it has an elevator (`blk_mq_init_sched`).
const INSIDE_PER_SLOT: usize = 2;
/// Sectors that the host makes one write of, at most: 512 KiB.
const MERGED_SECTORS_MAX: u64 = 1024;
/// Sectors of a guest's image: 16 GiB.
const IMAGE_SECTORS: u64 = 16 << 21;
/// Of 1000 writes in [`Pattern::Runs`], how many go on where the last one ended.
const RUNS_PER_MILLE: u16 = 800;
/// Writes of each writer that are not counted, and those that are.
const WARM_UP: usize = 4;
const COUNTED: usize = 24;

/// What a run has measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Waits {
    /// The mean wait, in nanoseconds.
    pub mean_ns: f64,
    /// What 99 of 100 writes do not wait for longer than, in nanoseconds.
    pub p99_ns: f64,
    /// Writes that were counted.
    pub writes: usize,
    /// How long that took, in nanoseconds of the model.
    pub time_ns: u64,
}

/// A write that waits or is on its way, by its writer's number.
#[derive(Clone, Copy, Debug)]
struct Write {
    sector: u64,
    begun_ns: u64,
}

struct Guest {
    /// Writers that do not fit into the elevator yet, in the order in which they came.
    outside: VecDeque<u16>,
    elevator: Box<dyn Elevator>,
    /// Writes in the elevator, in the ring, and beyond.
    inside: usize,
    writes: Vec<Write>,
    /// Where its image begins on the disk.
    base: u64,
    /// What it writes to now: no two writers to the same place.
    busy: BTreeSet<u64>,
    cursor: u64,
    free_slots: usize,
}

/// A request of a ring, in the host.
#[derive(Clone, Debug)]
struct Request {
    guest: usize,
    writers: Vec<u16>,
    sector: u64,
    sectors: u64,
}

/// What goes down as one: places, the first sector, and how many.
type Joined = (Vec<u16>, u64, u64);

/// What goes down together.
struct Going<F> {
    room: usize,
    sectors_max: u64,
    /// What waits in a place: its first sector and how many.
    extent: F,
    out: Vec<Joined>,
}

impl<F: Fn(u16) -> (u64, u64)> Batch for Going<F> {
    fn join(&mut self, place: u16) -> bool {
        let (sector, sectors) = (self.extent)(place);
        match self.out.last_mut() {
            Some((places, first, long))
                if *first + *long == sector && *long + sectors <= self.sectors_max =>
            {
                places.push(place);
                *long += sectors;
                true
            }
            _ => false,
        }
    }

    fn begin(&mut self, place: u16) -> bool {
        if self.room == 0 {
            return false;
        }
        self.room -= 1;
        let (sector, sectors) = (self.extent)(place);
        self.out.push((vec![place], sector, sectors));
        true
    }
}

struct Machine {
    case: Case,
    now_ns: u64,
    random: Random,
    guests: Vec<Guest>,
    host: Box<dyn Elevator>,
    /// By their place in the host's elevator.
    requests: Vec<Option<Request>>,
    free: Vec<u16>,
    disk: Disk,
    at_disk: usize,
    /// When which requests are done; the number keeps the order of those at the same time.
    done: BinaryHeap<Reverse<(u64, u64, Vec<u16>)>>,
    begun: u64,
    waits_ns: Vec<u64>,
}

/// Runs a case.
pub fn run(case: &Case, setting: Setting, seed: u64) -> Waits {
    let mut machine = Machine::new(*case, setting, seed);
    machine.begin();
    let writers = case.guests * case.backlog;
    machine.go_on(WARM_UP * writers);
    machine.waits_ns.clear();
    let start_ns = machine.now_ns;
    machine.go_on(COUNTED * writers);
    machine.measured(start_ns)
}

fn elevator(order: Order, capacity: usize) -> Box<dyn Elevator> {
    match order {
        Order::Noop => Box::new(Noop::new(capacity)),
        Order::Deadline => Box::new(Deadline::new(capacity)),
    }
}

impl Machine {
    fn new(case: Case, setting: Setting, seed: u64) -> Self {
        let apart = DISK_SECTORS / case.guests as u64;
        let guest = |at: usize| Guest {
            outside: VecDeque::new(),
            elevator: elevator(setting.guest, case.backlog),
            inside: 0,
            writes: vec![Write { sector: 0, begun_ns: 0 }; case.backlog],
            base: at as u64 * apart,
            busy: BTreeSet::new(),
            cursor: 0,
            free_slots: case.slots,
        };
        let places = case.guests * case.slots;
        Self {
            case,
            now_ns: 0,
            random: Random::new(seed),
            guests: (0..case.guests).map(guest).collect(),
            host: elevator(setting.host, places),
            requests: vec![None; places],
            free: (0..u16::try_from(places).expect("few slots")).rev().collect(),
            disk: Disk::new(case.disk),
            at_disk: 0,
            done: BinaryHeap::new(),
            begun: 0,
            waits_ns: Vec::new(),
        }
    }

    /// Every writer begins.
    fn begin(&mut self) {
        let backlog = u16::try_from(self.case.backlog).expect("few writers");
        for guest in 0..self.case.guests {
            (0..backlog).for_each(|writer| self.write(guest, writer));
            self.send(guest);
        }
        self.dispatch();
    }

    /// Goes on until so many more writes are done.
    fn go_on(&mut self, writes: usize) {
        let end = self.waits_ns.len() + writes;
        while self.waits_ns.len() < end {
            let Some(Reverse((time_ns, _, places))) = self.done.pop() else {
                unreachable!("a writer always has a write on its way")
            };
            self.now_ns = time_ns;
            self.at_disk -= 1;
            for place in places {
                self.complete(place);
            }
            self.dispatch();
        }
    }

    /// A request is done: its writers begin their next writes.
    fn complete(&mut self, place: u16) {
        let request = self.requests[usize::from(place)].take().expect("it was at the disk");
        self.free.push(place);
        let at = request.guest;
        self.guests[at].free_slots += 1;
        self.guests[at].inside -= request.writers.len();
        for writer in request.writers {
            let Write { sector, begun_ns } = self.guests[at].writes[usize::from(writer)];
            self.waits_ns.push(self.now_ns - begun_ns);
            self.guests[at].busy.remove(&sector);
            self.write(at, writer);
        }
        self.send(at);
    }

    /// A writer begins a write.
    fn write(&mut self, guest: usize, writer: u16) {
        let sector = self.place(guest);
        let guest = &mut self.guests[guest];
        guest.writes[usize::from(writer)] = Write { sector, begun_ns: self.now_ns };
        guest.outside.push_back(writer);
    }

    /// Where the next write goes.
    fn place(&mut self, guest: usize) -> u64 {
        let guest = &mut self.guests[guest];
        let long = u64::from(WRITE_SECTORS);
        let runs = self.case.pattern == Pattern::Runs && self.random.chance(RUNS_PER_MILLE);
        let mut next = (guest.cursor + long) % IMAGE_SECTORS;
        if !runs || guest.busy.contains(&next) {
            let blocks = usize::try_from(IMAGE_SECTORS / long).expect("few blocks");
            loop {
                next = self.random.below(blocks) as u64 * long;
                if !guest.busy.contains(&next) {
                    break;
                }
            }
        }
        guest.cursor = next;
        guest.busy.insert(next);
        next
    }

    /// A guest fills its elevator and its ring, and the back passes on what it finds there.
    fn send(&mut self, at: usize) {
        let guest = &mut self.guests[at];
        while guest.inside < INSIDE_PER_SLOT * self.case.slots
            && let Some(writer) = guest.outside.pop_front()
        {
            guest.inside += 1;
            guest.elevator.insert(Waiting {
                place: writer,
                direction: Direction::Write,
                sector: guest.writes[usize::from(writer)].sector,
                sectors: WRITE_SECTORS,
                arrived: Time(self.now_ns),
            });
        }
        let writes = &guest.writes;
        let mut batch = Going {
            room: guest.free_slots,
            sectors_max: REQUEST_SECTORS_MAX,
            extent: |writer| (writes[usize::from(writer)].sector, u64::from(WRITE_SECTORS)),
            out: Vec::new(),
        };
        guest.elevator.take_batch(&mut batch, Time(self.now_ns));
        let out = batch.out;
        guest.free_slots -= out.len();
        for (writers, sector, sectors) in out {
            let place = self.free.pop().expect("a place for each slot of each ring");
            let sector = guest.base + sector;
            self.requests[usize::from(place)] =
                Some(Request { guest: at, writers, sector, sectors });
            self.host.insert(Waiting {
                place,
                direction: Direction::Write,
                sector,
                sectors: u16::try_from(sectors).expect("bounded above"),
                arrived: Time(self.now_ns),
            });
        }
    }

    /// The host gives the disk what it has room for.
    fn dispatch(&mut self) {
        let requests = &self.requests;
        let mut batch = Going {
            room: self.case.disk.depth() - self.at_disk,
            sectors_max: MERGED_SECTORS_MAX,
            extent: |place| {
                let request = requests[usize::from(place)].as_ref().expect("it waits");
                (request.sector, request.sectors)
            },
            out: Vec::new(),
        };
        self.host.take_batch(&mut batch, Time(self.now_ns));
        for (places, sector, sectors) in batch.out {
            self.at_disk += 1;
            self.begun += 1;
            let end_ns = self.disk.write(self.now_ns, sector, sectors, &mut self.random);
            self.done.push(Reverse((end_ns, self.begun, places)));
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of some minutes")]
    fn measured(mut self, start_ns: u64) -> Waits {
        self.waits_ns.sort_unstable();
        let writes = self.waits_ns.len();
        let sum: u64 = self.waits_ns.iter().sum();
        Waits {
            mean_ns: sum as f64 / writes as f64,
            p99_ns: self.waits_ns[writes * 99 / 100] as f64,
            writes,
            time_ns: self.now_ns - start_ns,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::disks::Model;
    use super::*;

    const CASE: Case =
        Case { disk: Model::Sas15k, guests: 2, slots: 32, backlog: 64, pattern: Pattern::Random };

    fn all() -> impl Iterator<Item = Setting> {
        Setting::OTHERS.into_iter().chain([Setting::BOTH])
    }

    #[test]
    fn a_seed_gives_the_same_figures_again_and_another_seed_others() {
        let once = run(&CASE, Setting::BOTH, 7);
        assert_eq!(once, run(&CASE, Setting::BOTH, 7));
        assert_ne!(once, run(&CASE, Setting::BOTH, 8));
    }

    #[test]
    fn writers_writes_and_time_agree_with_littles_law() {
        for disk in Model::ALL {
            for setting in all() {
                let case = Case { disk, ..CASE };
                let waits = run(&case, setting, 3);
                #[expect(clippy::cast_precision_loss, reason = "some thousands, some seconds")]
                let on_the_way = waits.mean_ns * waits.writes as f64 / waits.time_ns as f64;
                assert!(
                    (on_the_way / 128.0 - 1.0).abs() < 0.1,
                    "{disk:?} {setting:?} {on_the_way}"
                );
            }
        }
    }

    #[test]
    fn who_sorts_makes_no_difference_to_a_writer_that_is_alone() {
        let case = Case { guests: 1, backlog: 1, ..CASE };
        let both = run(&case, Setting::BOTH, 5);
        assert!(all().all(|setting| run(&case, setting, 5) == both));
    }

    #[test]
    fn whoever_has_the_backlog_saves_the_heads_their_ways_by_sorting() {
        let mean = |slots, setting| {
            let case = Case { guests: 1, slots, backlog: 256, ..CASE };
            run(&case, setting, 5).mean_ns
        };
        let [guest_noop, host_noop, neither] = Setting::OTHERS;
        // The ring holds it all.
        assert!(mean(256, guest_noop) < mean(256, neither) * 0.9);
        assert!(mean(256, host_noop) > mean(256, neither) * 0.98);
        // Most of it waits in the guest.
        assert!(mean(16, host_noop) < mean(16, neither) * 0.9);
    }

    #[test]
    fn runs_become_large_writes() {
        let runs = Case { pattern: Pattern::Runs, ..CASE };
        let [few, many] = [runs, CASE].map(|case| run(&case, Setting::BOTH, 5).mean_ns);
        assert!(few < many / 2.0, "{few} {many}");
    }
}
