//! Deadline against a batch that is played: its order, and a second, slow reading of its rules.

extern crate std;

use alloc::collections::BTreeMap;
use std::format;

use super::*;

const CAPACITY: usize = 64;

/// A batch with room for so many requests of the ring; joins what is adjacent, up to 4 of them.
struct Played<'a> {
    room: usize,
    requests: &'a mut BTreeMap<u16, Waiting>,
    taken: Vec<Waiting>,
    joined: usize,
}

impl<'a> Played<'a> {
    fn new(room: usize, requests: &'a mut BTreeMap<u16, Waiting>) -> Self {
        Self { room, requests, taken: Vec::new(), joined: 0 }
    }
}

impl Batch for Played<'_> {
    fn join(&mut self, place: u16) -> bool {
        let request = self.requests[&place];
        let adjacent = self.taken.last().is_some_and(|last| {
            last.end() == request.sector && last.direction == request.direction
        });
        if !adjacent || self.joined == 3 {
            return false;
        }
        self.joined += 1;
        self.taken.push(request);
        self.requests.remove(&place);
        true
    }

    fn begin(&mut self, place: u16) -> bool {
        if self.room == 0 {
            return false;
        }
        self.room -= 1;
        self.joined = 0;
        self.taken.push(self.requests.remove(&place).expect("it waits"));
        true
    }
}

/// A deadline elevator, and what is in it.
struct Scene {
    deadline: Deadline,
    requests: BTreeMap<u16, Waiting>,
}

impl Scene {
    fn new() -> Self {
        Self { deadline: Deadline::new(CAPACITY), requests: BTreeMap::new() }
    }

    fn set(&mut self, name: &str, value: u64) {
        let index = self.deadline.parameters().iter().position(|it| it.name == name).unwrap();
        self.deadline.set(index, value);
    }

    fn insert(&mut self, direction: Direction, sector: u64, sectors: u16, ms: u64) {
        let place = (0..).find(|place| !self.requests.contains_key(place)).unwrap();
        let arrived = Time(0).after_ms(ms);
        let request = Waiting { place, direction, sector, sectors, arrived };
        self.requests.insert(place, request);
        self.deadline.insert(request);
    }

    fn reads(&mut self, sectors: &[u64]) {
        sectors.iter().for_each(|&sector| self.insert(Direction::Read, sector, 1, 0));
    }

    fn writes(&mut self, sectors: &[u64]) {
        sectors.iter().for_each(|&sector| self.insert(Direction::Write, sector, 1, 0));
    }

    /// The next batch with room for so many: `r` or `w` and the sector of each.
    fn batch(&mut self, room: usize, ms: u64) -> Vec<std::string::String> {
        let mut batch = Played::new(room, &mut self.requests);
        self.deadline.take_batch(&mut batch, Time(0).after_ms(ms));
        let letter = |direction| if direction == Direction::Read { 'r' } else { 'w' };
        let name = |it: &Waiting| format!("{}{}", letter(it.direction), it.sector);
        batch.taken.iter().map(name).collect()
    }
}

#[test]
fn a_sweep_goes_upwards_once_and_then_begins_at_the_oldest() {
    let mut scene = Scene::new();
    scene.reads(&[50, 10, 70, 30]);
    assert_eq!(scene.batch(2, 0), ["r10", "r30"]);
    scene.reads(&[20, 40, 5]);
    assert_eq!(scene.batch(3, 0), ["r40", "r50", "r70"]);
    assert_eq!(scene.batch(9, 0), ["r20", "r5"], "nothing is above: the oldest, and up from there");
    assert!(scene.batch(9, 0).is_empty());
}

#[test]
fn a_read_that_expired_is_where_the_next_batch_begins() {
    for (ms, first) in [(499, "r60"), (500, "r10")] {
        let mut scene = Scene::new();
        scene.set("fifo_batch", 2);
        scene.reads(&[40]);
        assert_eq!(scene.batch(1, 0), ["r40"]);
        scene.reads(&[10]);
        scene.insert(Direction::Read, 50, 1, 300);
        scene.insert(Direction::Read, 60, 1, 300);
        scene.insert(Direction::Read, 70, 1, 300);
        assert_eq!(scene.batch(1, ms), ["r50"], "a batch is not broken off");
        assert_eq!(scene.batch(1, ms), [first]);
    }
}

#[test]
fn a_write_expires_after_its_own_time() {
    for (ms, first) in [(4999, "w60"), (5000, "w10")] {
        let mut scene = Scene::new();
        scene.set("fifo_batch", 1);
        scene.writes(&[50]);
        assert_eq!(scene.batch(1, 0), ["w50"]);
        scene.writes(&[10]);
        scene.insert(Direction::Write, 60, 1, 1000);
        assert_eq!(scene.batch(1, ms), [first]);
    }
}

#[test]
fn writes_wait_for_two_batches_of_reads_and_no_longer() {
    let mut scene = Scene::new();
    scene.set("fifo_batch", 2);
    scene.writes(&[1, 3, 5, 7]);
    scene.reads(&[100, 102, 104, 106, 108, 110, 112, 114, 116, 118]);
    let expected = [
        ["r100", "r102", "r104", "r106", "w1", "w3"],
        ["r108", "r110", "r112", "r114", "w5", "w7"],
    ];
    assert_eq!(scene.batch(12, 0), expected.concat());
    assert_eq!(scene.batch(12, 0), ["r116", "r118"]);
    scene.set("writes_starved", 0);
    scene.reads(&[200]);
    scene.writes(&[300]);
    assert_eq!(scene.batch(12, 0), ["w300", "r200"]);
}

#[test]
fn joined_requests_count_as_one_in_a_batch() {
    let mut scene = Scene::new();
    scene.set("fifo_batch", 2);
    scene.writes(&[0]);
    scene.reads(&[10, 11, 12, 20, 21, 30]);
    scene.set("writes_starved", 1);
    assert_eq!(scene.batch(4, 0), ["r10", "r11", "r12", "r20", "r21", "w0", "r30"]);
}

#[test]
fn a_full_batch_changes_nothing() {
    let mut scene = Scene::new();
    scene.reads(&[3, 1]);
    scene.writes(&[2]);
    for _ in 0..10 {
        assert!(scene.batch(0, 10_000).is_empty());
    }
    assert_eq!(scene.batch(9, 0), ["r1", "r3", "w2"]);
}

/// The rules again, without lines, links or sorting: a list that is searched for each request.
struct Reading {
    waiting: Vec<(u64, Waiting)>,
    position: [u64; 2],
    batch: Option<(Direction, u64)>,
    starved: u64,
}

impl Reading {
    fn of(&self, direction: Direction) -> impl Iterator<Item = (usize, &(u64, Waiting))> {
        let all = self.waiting.iter().enumerate();
        all.filter(move |(_, (_, it))| it.direction == direction)
    }

    fn ahead(&self, direction: Direction) -> Option<usize> {
        let position = self.position[direction as usize];
        let above = self.of(direction).filter(|it| it.1.1.sector >= position);
        above.min_by_key(|it| (it.1.1.sector, it.1.0)).map(|it| it.0)
    }

    /// Which is next, and whether a batch begins with it.
    fn next(&self, values: &[u64], now: Time) -> Option<(usize, bool)> {
        if let Some((direction, count)) = self.batch
            && count < values[2]
            && let Some(at) = self.ahead(direction)
        {
            return Some((at, false));
        }
        let reads = self.of(Direction::Read).count() > 0;
        let writes = self.of(Direction::Write).count() > 0;
        let direction = if reads && !(writes && self.starved >= values[3]) {
            Direction::Read
        } else {
            Direction::Write
        };
        let (oldest, (_, request)) = self.of(direction).min_by_key(|it| it.1.0)?;
        let expired = now >= request.arrived.after_ms(values[direction as usize]);
        Some((self.ahead(direction).filter(|_| !expired).unwrap_or(oldest), true))
    }

    /// Takes a whole batch.
    fn take(&mut self, batch: &mut Played<'_>, values: &[u64], now: Time) {
        while let Some((at, fresh)) = self.next(values, now) {
            let (mut arrival, request) = self.waiting[at];
            if !batch.begin(request.place) {
                return;
            }
            let writes = self.of(Direction::Write).count() > 0;
            match request.direction {
                Direction::Write if fresh => self.starved = 0,
                Direction::Read if fresh => self.starved += u64::from(writes),
                _ => {}
            }
            let before = self.batch.filter(|_| !fresh).map_or(0, |it| it.1);
            self.batch = Some((request.direction, before + 1));
            self.leave(at);
            while let Some(at) = self.ahead(request.direction) {
                let (later, part) = self.waiting[at];
                if (later < arrival && values[4] == 0) || !batch.join(part.place) {
                    break;
                }
                arrival = later;
                self.leave(at);
            }
        }
    }

    fn leave(&mut self, at: usize) {
        let request = self.waiting.remove(at).1;
        self.position[request.direction as usize] = request.sector;
    }
}

#[test]
fn two_readings_of_the_rules_agree_for_ever() {
    for seed in 1..400_u64 {
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut below = |bound: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random >> 11) % bound
        };
        let mut scene = Scene::new();
        for (name, bound) in [("read_expire", 40), ("write_expire", 200), ("fifo_batch", 5)] {
            scene.set(name, below(bound) + 1);
        }
        scene.set("writes_starved", below(4));
        scene.set("front_merges", below(2));
        let values: Vec<u64> = (0..5).map(|index| scene.deadline.value(index)).collect();
        let mut reading =
            Reading { waiting: Vec::new(), position: [0; 2], batch: None, starved: 0 };
        let (mut count, mut now) = (0, 0);
        for _ in 0..300 {
            now += below(20);
            if below(3) > 0 && scene.requests.len() < CAPACITY {
                let way = if below(2) == 0 { Direction::Read } else { Direction::Write };
                scene.insert(way, below(64), 1, now);
                let place = *scene
                    .requests
                    .keys()
                    .find(|it| reading.waiting.iter().all(|(_, other)| other.place != **it))
                    .unwrap();
                reading.waiting.push((count, scene.requests[&place]));
                count += 1;
                continue;
            }
            let room = usize::try_from(below(6)).unwrap();
            let taken = agreed_batch(&mut scene, &mut reading, &values, (room, now));
            assert!(taken.is_ok(), "seed {seed}: {taken:?}");
        }
    }
}

/// Takes a batch from both; what they disagree in is the error.
fn agreed_batch(
    scene: &mut Scene,
    reading: &mut Reading,
    values: &[u64],
    (room, now): (usize, u64),
) -> Result<(), (Vec<Waiting>, Vec<Waiting>)> {
    let all = scene.requests.clone();
    let now = Time(0).after_ms(now);
    let mut slow = Played::new(room, &mut scene.requests);
    reading.take(&mut slow, values, now);
    let expected = slow.taken;
    let mut requests = all;
    let mut batch = Played::new(room, &mut requests);
    scene.deadline.take_batch(&mut batch, now);
    if batch.taken == expected { Ok(()) } else { Err((batch.taken, expected)) }
}

#[test]
fn nobody_waits_for_more_than_its_time_and_the_batches_before_it() {
    for writes_starved in [0, 1, 2, 5] {
        let mut scene = Scene::new();
        scene.set("fifo_batch", 4);
        scene.set("writes_starved", writes_starved);
        scene.writes(&[0]);
        scene.insert(Direction::Read, 0, 1, 0);
        let (mut sector, mut batches_of_all) = (1000, 0);
        // Both lines always have something above their sweep, far away from the old ones.
        let mut waited = (None, None);
        for ms in 0..60_000_u64 {
            for way in [Direction::Read, Direction::Write] {
                if scene.requests.len() < 40 {
                    scene.insert(way, sector, 1, ms);
                    sector += 2;
                }
            }
            batches_of_all += 1;
            for name in scene.batch(1, ms) {
                match name.as_str() {
                    "r0" => waited.0 = Some(ms),
                    "w0" => waited.1 = Some(ms),
                    _ => {}
                }
            }
        }
        assert!(batches_of_all > 0);
        // One request goes down in a millisecond; a round is all batches of reads and one of
        // writes, and the oldest is at the head of the first batch of its line.
        let round = 4 * (writes_starved + 2);
        let (read, write) = (waited.0.unwrap(), waited.1.unwrap());
        assert!(read <= 500 + round, "{writes_starved}: the read went after {read} ms");
        assert!(write <= 5000 + round, "{writes_starved}: the write went after {write} ms");
    }
}
