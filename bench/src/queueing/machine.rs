//! The machine: guests, rings, the back, the host's queue and the disk, moved from completion to
//! completion.
//!
//! One thing happens at a time, in the order of the events' times and, at the same time, of their
//! making; nothing here depends on addresses or on a hash.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, VecDeque};

use blkfront::elevator::{Batch, Deadline, Direction, Elevator, Noop, Time, Waiting};
use sim::Random;

use super::disks::{DISK_SECTORS, Disk, Model};
use super::study::{Order, Setting};

/// Sectors of a request of a ring, at most: 11 segments of a page.
const REQUEST_SECTORS_MAX: u64 = 88;
/// Requests that a disk of a guest takes in for each slot of its ring: as many as `blkfront` does, and as
/// Linux does where it has an elevator (`blk_mq_init_sched`).
const INSIDE_PER_SLOT: usize = 2;
/// Sectors that the host makes one request of, at most: 512 KiB.
const MERGED_SECTORS_MAX: u64 = 1024;
/// Sectors of a guest's image, if the disk has as much for each: 16 GiB.
const IMAGE_SECTORS: u64 = 16 << 21;
/// Of 1000 I/Os in [`Pattern::Runs`], how many go on where the last one ended.
const RUNS_PER_MILLE: u16 = 800;

/// Where the I/Os of a guest go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// Anywhere.
    Random,
    /// Four of five behind the one before, the fifth anywhere.
    Runs,
}

/// What a guest does without end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Whether it reads or writes.
    pub direction: Direction,
    /// Sectors of an I/O; a long one goes as several requests.
    pub sectors: u64,
    /// Workers, each of which begins its next I/O when its last has ended.
    pub depth: usize,
    /// Where the I/Os go.
    pub pattern: Pattern,
}

/// Who does what with a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scene {
    /// The disk.
    pub disk: Model,
    /// Requests that a ring holds.
    pub slots: usize,
    /// Who sorts.
    pub setting: Setting,
    /// What each guest does; each has a part of the disk.
    pub loads: Vec<Load>,
}

/// An I/O that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Whose it was.
    pub guest: usize,
    /// From its beginning in the guest to its end, in nanoseconds.
    pub wait_ns: u64,
}

/// What was seen of a scene.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// I/Os, in the order in which they ended.
    pub ended: Vec<Ended>,
    /// How long that took, in nanoseconds of the model.
    pub time_ns: u64,
}

/// An I/O that waits or is on its way, by its worker's number.
#[derive(Clone, Copy, Debug, Default)]
struct Io {
    sector: u64,
    begun_ns: u64,
    /// Requests of it that are not done.
    left: usize,
}

struct Guest {
    load: Load,
    /// Requests that do not fit into the elevator yet, in the order in which they came.
    outside: VecDeque<u16>,
    elevator: Box<dyn Elevator>,
    /// Requests in the elevator, in the ring, and beyond.
    inside: usize,
    ios: Vec<Io>,
    /// Where its image begins on the disk, and how long it is.
    base: u64,
    image_sectors: u64,
    /// What it uses now: no two workers the same place.
    busy: BTreeSet<u64>,
    cursor: u64,
    free_slots: usize,
}

impl Load {
    /// Requests of an I/O.
    fn parts(self) -> usize {
        usize::try_from(self.sectors.div_ceil(REQUEST_SECTORS_MAX)).expect("few parts")
    }

    /// The worker, and the part of its I/O, that has this place in the guest's elevator.
    fn worker(self, place: u16) -> (usize, usize) {
        let (place, parts) = (usize::from(place), self.parts());
        (place / parts, place % parts)
    }

    /// The places of a worker's I/O, part by part.
    fn places(self, worker: usize) -> impl Iterator<Item = u16> {
        let places = worker * self.parts()..(worker + 1) * self.parts();
        places.map(|place| u16::try_from(place).expect("few places"))
    }

    /// The request in a place: its first sector in the image and how many.
    fn extent(self, ios: &[Io], place: u16) -> (u64, u64) {
        let (worker, part) = self.worker(place);
        let before = part as u64 * REQUEST_SECTORS_MAX;
        (ios[worker].sector + before, REQUEST_SECTORS_MAX.min(self.sectors - before))
    }
}

/// A request of a ring, in the host.
#[derive(Clone, Debug)]
struct Request {
    guest: usize,
    /// In the guest's elevator.
    places: Vec<u16>,
    extent: Extent,
}

/// Which way, the first sector, and how many.
type Extent = (Direction, u64, u64);
/// What goes down as one, and its places.
type Joined = (Vec<u16>, Extent);

/// What goes down together.
struct Going<F> {
    room: usize,
    sectors_max: u64,
    /// What waits in a place.
    extent: F,
    out: Vec<Joined>,
}

impl<F: Fn(u16) -> Extent> Batch for Going<F> {
    fn join(&mut self, place: u16) -> bool {
        let (direction, sector, sectors) = (self.extent)(place);
        match self.out.last_mut() {
            Some((places, (way, first, long)))
                if *way == direction
                    && *first + *long == sector
                    && *long + sectors <= self.sectors_max =>
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
        self.out.push((vec![place], (self.extent)(place)));
        true
    }
}

struct Machine {
    /// Requests that a ring holds.
    slots: usize,
    now_ns: u64,
    random: Random,
    guests: Vec<Guest>,
    host: Box<dyn Elevator>,
    /// By their place in the host's elevator.
    requests: Vec<Option<Request>>,
    free: Vec<u16>,
    disk: Disk,
    disk_depth: usize,
    at_disk: usize,
    /// When which requests are done; the number keeps the order of those at the same time.
    done: BinaryHeap<Reverse<(u64, u64, Vec<u16>)>>,
    begun: u64,
    ended: Vec<Ended>,
}

/// Plays a scene until so many I/Os have ended that are not looked at, and then so many, or a few more,
/// that are.
pub fn run(scene: &Scene, seed: u64, warm_up: usize, counted: usize) -> Seen {
    let mut machine = Machine::new(scene, seed);
    machine.begin();
    machine.go_on(warm_up);
    machine.ended.clear();
    let start_ns = machine.now_ns;
    machine.go_on(counted);
    Seen { ended: machine.ended, time_ns: machine.now_ns - start_ns }
}

fn elevator(order: Order, capacity: usize) -> Box<dyn Elevator> {
    match order {
        Order::Noop => Box::new(Noop::new(capacity)),
        Order::Deadline => Box::new(Deadline::new(capacity)),
    }
}

impl Machine {
    fn new(scene: &Scene, seed: u64) -> Self {
        let Scene { disk, slots, setting, ref loads } = *scene;
        let apart = DISK_SECTORS / loads.len() as u64;
        let guest = |(at, &load): (usize, &Load)| Guest {
            load,
            outside: VecDeque::new(),
            elevator: elevator(setting.guest, load.depth * load.parts()),
            inside: 0,
            ios: vec![Io::default(); load.depth],
            base: at as u64 * apart,
            image_sectors: IMAGE_SECTORS.min(apart),
            busy: BTreeSet::new(),
            cursor: 0,
            free_slots: slots,
        };
        let places = loads.len() * slots;
        Self {
            slots,
            now_ns: 0,
            random: Random::new(seed),
            guests: loads.iter().enumerate().map(guest).collect(),
            host: elevator(setting.host, places),
            requests: vec![None; places],
            free: (0..u16::try_from(places).expect("few slots")).rev().collect(),
            disk: Disk::new(disk),
            disk_depth: disk.depth(),
            at_disk: 0,
            done: BinaryHeap::new(),
            begun: 0,
            ended: Vec::new(),
        }
    }

    /// Every worker begins.
    fn begin(&mut self) {
        for guest in 0..self.guests.len() {
            (0..self.guests[guest].load.depth).for_each(|worker| self.work(guest, worker));
            self.send(guest);
        }
        self.dispatch();
    }

    /// Goes on until so many more I/Os have ended.
    fn go_on(&mut self, ios: usize) {
        let end = self.ended.len() + ios;
        while self.ended.len() < end {
            let Some(Reverse((time_ns, _, places))) = self.done.pop() else {
                unreachable!("a worker always has an I/O on its way")
            };
            self.now_ns = time_ns;
            self.at_disk -= 1;
            for place in places {
                self.complete(place);
            }
            self.dispatch();
        }
    }

    /// A request is done: workers whose I/Os have ended with it begin their next ones.
    fn complete(&mut self, place: u16) {
        let request = self.requests[usize::from(place)].take().expect("it was at the disk");
        self.free.push(place);
        let at = request.guest;
        self.guests[at].free_slots += 1;
        self.guests[at].inside -= request.places.len();
        for place in request.places {
            let guest = &mut self.guests[at];
            let (worker, _) = guest.load.worker(place);
            let io = &mut guest.ios[worker];
            io.left -= 1;
            if io.left == 0 {
                self.ended.push(Ended { guest: at, wait_ns: self.now_ns - io.begun_ns });
                guest.busy.remove(&io.sector);
                self.work(at, worker);
            }
        }
        self.send(at);
    }

    /// A worker begins an I/O.
    fn work(&mut self, guest: usize, worker: usize) {
        let sector = self.place(guest);
        let guest = &mut self.guests[guest];
        guest.ios[worker] = Io { sector, begun_ns: self.now_ns, left: guest.load.parts() };
        guest.outside.extend(guest.load.places(worker));
    }

    /// Where the next I/O goes.
    fn place(&mut self, guest: usize) -> u64 {
        let guest = &mut self.guests[guest];
        let Load { sectors: long, pattern, .. } = guest.load;
        let runs = pattern == Pattern::Runs && self.random.chance(RUNS_PER_MILLE);
        let mut next = (guest.cursor + long) % guest.image_sectors;
        if !runs || guest.busy.contains(&next) {
            let blocks = usize::try_from(guest.image_sectors / long).expect("few blocks");
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
        let Load { direction, .. } = guest.load;
        let waiting = |place, sector, sectors| Waiting {
            place,
            direction,
            sector,
            sectors: u16::try_from(sectors).expect("at most a request's"),
            arrived: Time(self.now_ns),
        };
        while guest.inside < INSIDE_PER_SLOT * self.slots
            && let Some(place) = guest.outside.pop_front()
        {
            guest.inside += 1;
            let (sector, sectors) = guest.load.extent(&guest.ios, place);
            guest.elevator.insert(waiting(place, sector, sectors));
        }
        let mut batch = Going {
            room: guest.free_slots,
            sectors_max: REQUEST_SECTORS_MAX,
            extent: |place| {
                let (sector, sectors) = guest.load.extent(&guest.ios, place);
                (direction, sector, sectors)
            },
            out: Vec::new(),
        };
        guest.elevator.take_batch(&mut batch, Time(self.now_ns));
        let out = batch.out;
        guest.free_slots -= out.len();
        for (places, (_, sector, sectors)) in out {
            let place = self.free.pop().expect("a place for each slot of each ring");
            let sector = guest.base + sector;
            let extent = (direction, sector, sectors);
            self.requests[usize::from(place)] = Some(Request { guest: at, places, extent });
            self.host.insert(waiting(place, sector, sectors));
        }
    }

    /// The host gives the disk what it has room for.
    fn dispatch(&mut self) {
        let requests = &self.requests;
        let mut batch = Going {
            room: self.disk_depth - self.at_disk,
            sectors_max: MERGED_SECTORS_MAX,
            extent: |place| requests[usize::from(place)].as_ref().expect("it waits").extent,
            out: Vec::new(),
        };
        self.host.take_batch(&mut batch, Time(self.now_ns));
        for (places, (_, sector, sectors)) in batch.out {
            self.at_disk += 1;
            self.begun += 1;
            let end_ns = self.disk.serve(self.now_ns, sector, sectors, &mut self.random);
            self.done.push(Reverse((end_ns, self.begun, places)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::study::{Case, waits};
    use super::*;

    const CASE: Case =
        Case { disk: Model::Sas15k, guests: 2, slots: 32, backlog: 64, pattern: Pattern::Random };

    fn all() -> impl Iterator<Item = Setting> {
        Setting::OTHERS.into_iter().chain([Setting::BOTH])
    }

    #[test]
    fn a_seed_gives_the_same_figures_again_and_another_seed_others() {
        let once = waits(&CASE, Setting::BOTH, 7);
        assert_eq!(once, waits(&CASE, Setting::BOTH, 7));
        assert_ne!(once, waits(&CASE, Setting::BOTH, 8));
    }

    #[test]
    fn writers_writes_and_time_agree_with_littles_law() {
        for disk in Model::ALL {
            for setting in all() {
                let case = Case { disk, ..CASE };
                let waits = waits(&case, setting, 3);
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
        let both = waits(&case, Setting::BOTH, 5);
        assert!(all().all(|setting| waits(&case, setting, 5) == both));
    }

    #[test]
    fn whoever_has_the_backlog_saves_the_heads_their_ways_by_sorting() {
        let mean = |slots, setting| {
            let case = Case { guests: 1, slots, backlog: 256, ..CASE };
            waits(&case, setting, 5).mean_ns
        };
        let [guest_noop, host_noop, neither] = Setting::OTHERS;
        // The ring holds it all.
        assert!(mean(256, guest_noop) < mean(256, neither) * 0.9);
        assert!(mean(256, host_noop) > mean(256, neither) * 0.98);
        // Most of it waits in the guest.
        assert!(mean(16, host_noop) < mean(16, neither) * 0.9);
    }

    #[test]
    fn a_long_io_goes_as_several_requests_and_has_ended_with_the_last_of_them() {
        let load =
            Load { direction: Direction::Write, sectors: 256, depth: 1, pattern: Pattern::Random };
        let alone = |slots| {
            let scene =
                Scene { disk: Model::SataSsd, slots, setting: Setting::BOTH, loads: vec![load] };
            run(&scene, 1, 1, 1).ended[0].wait_ns
        };
        // As one of the host's, and one part after another.
        assert_eq!(alone(3), 80_000 + 255 * 900);
        assert_eq!(alone(1), 3 * 80_000 + (87 + 87 + 79) * 900);
    }

    #[test]
    fn runs_become_large_writes() {
        let runs = Case { pattern: Pattern::Runs, ..CASE };
        let [few, many] = [runs, CASE].map(|case| waits(&case, Setting::BOTH, 5).mean_ns);
        assert!(few < many / 2.0, "{few} {many}");
    }
}
