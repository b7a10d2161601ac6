//! What waits in a disk: merged, sorted, held back and given to another elevator, and always with
//! the right data in the end.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

use super::*;
use crate::elevator::{Deadline, Elevators};

/// As far as the model's disk reaches.
const SECTORS: u64 = 400;
const EVERYTHING: [(&str, &str); 2] = [("feature-flush-cache", "1"), ("feature-discard", "1")];

fn under(elevator: &str, pool_pages: usize) -> Scene {
    let mut scene = scene_with(pool_pages, &EVERYTHING);
    let elevators = Elevators::new();
    scene.device.set_elevator(elevators.find(elevator).unwrap());
    scene
}

/// What the back sees of the next requests: operation, sector, segments.
fn seen(scene: &mut Scene) -> Vec<(u8, u64, usize)> {
    core::iter::from_fn(|| scene.back.take())
        .map(|raw| (raw.operation, raw.sector, raw.segments.len()))
        .collect()
}

#[test]
fn adjacent_requests_of_a_batch_go_down_as_one_and_complete_one_by_one() {
    for elevator in ["noop", "deadline"] {
        let mut scene = under(elevator, 40);
        let tags: Vec<Tag> =
            (0..3).map(|at| scene.submit(Operation::Write, at * 9, 4608)).collect();
        scene.disk().kick();
        let raw = scene.back.take().unwrap();
        assert_eq!((raw.operation, raw.sector, raw.segments.len()), (1, 0, 6));
        assert_eq!(scene.back.take(), None);
        scene.back.answer(raw.id, raw.operation, Status::Error);
        for (left, tag) in [2, 1, 0].into_iter().zip(tags) {
            let done = scene.disk().poll().unwrap().unwrap();
            assert_eq!((done.tag, done.status), (tag, Status::Error));
            assert_eq!(done.buffer.unwrap().length_bytes(), 4608);
            assert_eq!(scene.disk().in_flight(), left);
            assert_eq!(scene.disk().rest() == Ok(Rest::Work), left > 0);
        }
        let counters = scene.disk().counters();
        assert_eq!((counters.requests, counters.merged, counters.responses), (1, 2, 1));
    }
}

#[test]
fn eleven_segments_are_one_request_and_twelve_are_two() {
    for (count, requests) in [(11, vec![11]), (12, vec![11, 1]), (23, vec![11, 11, 1])] {
        let mut scene = under("noop", 40);
        for at in 0..count {
            scene.submit(Operation::Read, at, 512);
        }
        scene.disk().kick();
        let segments: Vec<usize> = seen(&mut scene).into_iter().map(|it| it.2).collect();
        assert_eq!(segments, requests, "{count} requests");
    }
}

#[test]
fn only_what_follows_in_place_and_in_time_is_merged() {
    let mut scene = under("noop", 40);
    let (read, write) = (Operation::Read, Operation::Write);
    for (operation, sector) in [(read, 0), (write, 1), (write, 3), (write, 2), (write, 2)] {
        scene.submit(operation, sector, 512);
    }
    scene.disk().kick();
    scene.submit(write, 3, 512);
    scene.disk().kick();
    let expected = [(0, 0, 1), (1, 1, 1), (1, 3, 1), (1, 2, 1), (1, 2, 1), (1, 3, 1)];
    assert_eq!(seen(&mut scene), expected);
}

#[test]
fn deadline_sorts_a_batch_and_merges_what_was_apart_in_time() {
    let mut scene = under("deadline", 40);
    for sector in [40, 16, 8, 80, 0] {
        scene.submit(Operation::Read, sector, 4096);
    }
    scene.disk().kick();
    assert_eq!(seen(&mut scene), [(0, 0, 3), (0, 40, 1), (0, 80, 1)]);
}

#[test]
fn front_merges_can_be_switched_off() {
    let mut scene = under("deadline", 40);
    let index = scene.disk().parameters().position(|it| it.0.name == "front_merges").unwrap();
    scene.device.tune(index, 0);
    for sector in [16, 24, 8] {
        scene.submit(Operation::Read, sector, 4096);
    }
    scene.disk().kick();
    assert_eq!(seen(&mut scene), [(0, 8, 1), (0, 16, 2)]);
}

#[test]
fn overlapping_requests_keep_their_order_and_reads_do_not_mind_each_other() {
    let mut scene = under("deadline", 40);
    let (read, write) = (Operation::Read, Operation::Write);
    for (operation, sector) in [(read, 20), (read, 16), (write, 23), (write, 0), (read, 0)] {
        scene.submit(operation, sector, 4096);
    }
    scene.disk().kick();
    let order = [(0, 16, 1), (0, 20, 1), (1, 0, 1), (1, 23, 1), (0, 0, 1)];
    let mut seen = seen(&mut scene);
    seen[2..4].sort_unstable();
    assert_eq!(seen, order);
}

#[test]
fn nothing_passes_a_flush_or_a_discard() {
    for elevator in ["noop", "deadline"] {
        let mut scene = under(elevator, 40);
        scene.submit(Operation::Write, 90, 512);
        scene.disk().flush().unwrap();
        scene.submit(Operation::Write, 50, 512);
        scene.submit(Operation::Flush, 52, 512);
        scene.submit(Operation::Read, 10, 512);
        scene.disk().discard(10, 1).unwrap();
        scene.submit(Operation::Read, 1, 512);
        scene.disk().kick();
        let order =
            [(1, 90, 1), (3, 0, 0), (1, 50, 1), (3, 52, 1), (0, 10, 1), (5, 10, 0), (0, 1, 1)];
        assert_eq!(seen(&mut scene), order, "{elevator}");
    }
}

#[test]
fn what_waits_goes_over_to_the_next_elevator_in_its_order() {
    let mut scene = under("noop", 80);
    // The ring is full of these.
    for at in 0..32 {
        scene.submit(Operation::Read, at * 2, 512);
    }
    scene.disk().kick();
    for sector in [300, 200, 100, 200] {
        scene.submit(Operation::Write, sector, 512);
    }
    let elevators = Elevators::new();
    scene.device.set_elevator(elevators.find("deadline").unwrap());
    assert_eq!(scene.device.elevator(), "deadline");
    assert_eq!(scene.disk().elevator(), "deadline");
    assert_eq!((scene.disk().unsent(), scene.disk().wants_time()), (4, true));
    let answers: Vec<Raw> = core::iter::from_fn(|| scene.back.take()).collect();
    answers.iter().for_each(|raw| scene.back.answer(raw.id, raw.operation, Status::Okay));
    while scene.disk().poll().unwrap().is_some() {}
    scene.disk().kick();
    assert_eq!(seen(&mut scene), [(1, 100, 1), (1, 200, 1), (1, 300, 1), (1, 200, 1)]);
}

#[test]
fn what_waits_when_the_device_closes_fails_with_its_buffer() {
    let mut scene = under("deadline", 80);
    let free = scene.disk().free_pages();
    for at in 0..40 {
        scene.submit(Operation::Read, at * 2, 512);
    }
    scene.disk().kick();
    let store = directories();
    scene.device.close(&store).unwrap();
    let mut failed = 0;
    while let Some(done) = scene.disk().poll().unwrap() {
        assert_eq!((done.status, done.buffer.unwrap().length_bytes()), (Status::Error, 512));
        failed += 1;
    }
    assert_eq!((failed, scene.disk().in_flight(), scene.disk().unsent()), (8, 32, 0));
    scene.disk().kick();
    let raws: Vec<Raw> = core::iter::from_fn(|| scene.back.take()).collect();
    assert_eq!(raws.len(), 32);
    raws.iter().for_each(|raw| scene.back.answer(raw.id, raw.operation, Status::Okay));
    while scene.disk().poll().unwrap().is_some() {}
    assert_eq!((scene.disk().in_flight(), scene.disk().free_pages()), (0, free));
}

#[test]
fn an_elevator_is_tuned_within_its_bounds() {
    let mut scene = under("deadline", 40);
    let all: Vec<_> = scene.disk().parameters().map(|it| (it.0.name.clone(), it.1)).collect();
    let names = ["read_expire", "write_expire", "fifo_batch", "writes_starved", "front_merges"];
    let expected: Vec<_> = names.into_iter().zip([500, 5000, 16, 2, 1]).collect();
    assert!(all.iter().map(|(name, value)| (name.as_ref(), *value)).eq(expected));
    scene.device.tune(2, 0);
    scene.device.tune(4, 2);
    scene.device.tune(5, 7);
    let values: Vec<u64> = scene.disk().parameters().map(|it| it.1).collect();
    assert_eq!(values, [500, 5000, 1, 2, 1]);
}

/// A request of the model, until it completes.
struct Flight {
    arrival: u64,
    /// What a read has to find: the writes that were submitted before it.
    expected: Vec<u64>,
}

/// Random requests, and a back that does them in the order of the ring.
struct Model {
    scene: Scene,
    random: u64,
    /// What each sector holds on the medium, and what it will hold when all is done.
    medium: Vec<u64>,
    future: Vec<u64>,
    flights: BTreeMap<usize, Flight>,
    submitted: u64,
    /// What the last request was, and where it ended.
    last: (u64, u64),
}

impl Model {
    fn new(elevator: &str, seed: u64) -> Self {
        let zeros = vec![0; usize::try_from(SECTORS).unwrap()];
        Self {
            scene: under(elevator, 300),
            random: seed,
            medium: zeros.clone(),
            future: zeros,
            flights: BTreeMap::new(),
            submitted: 0,
            last: (0, 0),
        }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) % bound
    }

    fn submit(&mut self) {
        if self.scene.disk().free_slots() == 0 {
            return;
        }
        let lengths = [1, 1, 8, 8, 8, 9, 16, 88];
        let sectors = lengths[usize::try_from(self.below(8)).unwrap()];
        let sector = self.below(SECTORS - sectors) & !(self.below(2) * 7);
        let (kind, sector) = match (self.below(3), self.last) {
            (0, (kind, end)) if end + sectors <= SECTORS => (kind, end),
            _ => (self.below(40), sector),
        };
        self.last = (kind, sector + sectors);
        let range = usize::try_from(sector).unwrap()..usize::try_from(sector + sectors).unwrap();
        self.submitted += 1;
        let mut expected = Vec::new();
        let tag = match kind {
            0 => self.scene.disk().flush().unwrap(),
            1 => {
                self.future[range].fill(0);
                self.scene.disk().discard(sector, sectors).unwrap()
            }
            kind => {
                let buffer = self.scene.disk().buffer(range.len() * 512);
                let Some(buffer) = buffer else { return };
                let operation = if kind < 20 { Operation::Write } else { Operation::Read };
                if operation == Operation::Read {
                    expected = self.future[range].to_vec();
                } else {
                    let stamp = self.submitted;
                    (0..range.len()).for_each(|at| buffer.write(at * 512, &stamp.to_le_bytes()));
                    self.future[range].fill(stamp);
                }
                self.scene.disk().submit(operation, sector, buffer).unwrap()
            }
        };
        let flight = Flight { arrival: self.submitted, expected };
        assert!(self.flights.insert(tag.place(), flight).is_none(), "a place for each");
    }

    /// The back does one request.
    fn serve(&mut self) {
        let Some(raw) = self.scene.back.take() else { return };
        assert!(raw.segments.len() <= 11);
        if raw.operation == Operation::Discard.wire() {
            let first = usize::try_from(raw.sector).unwrap();
            self.medium[first..first + usize::try_from(raw.discard_sectors).unwrap()].fill(0);
        }
        let mut at = usize::try_from(raw.sector).unwrap();
        for (index, segment) in raw.segments.iter().enumerate() {
            let page = self.scene.back.page(&raw, index);
            for sector in segment.first_sector..=segment.last_sector {
                let offset = usize::from(sector) * 512;
                let mut bytes = [0; 8];
                if raw.operation == Operation::Write.wire() {
                    page.read(offset, &mut bytes);
                    self.medium[at] = u64::from_le_bytes(bytes);
                } else {
                    page.write(offset, &self.medium[at].to_le_bytes());
                }
                at += 1;
            }
        }
        self.scene.back.answer(raw.id, raw.operation, Status::Okay);
    }

    fn poll(&mut self) {
        let Some(done) = self.scene.disk().poll().unwrap() else { return };
        let flight = self.flights.remove(&done.tag.place()).expect("it was submitted");
        assert_eq!(done.status, Status::Okay);
        let Some(buffer) = done.buffer.filter(|_| done.operation == Operation::Read) else {
            return;
        };
        for (at, expected) in flight.expected.into_iter().enumerate() {
            let mut bytes = [0; 8];
            buffer.read(at * 512, &mut bytes);
            let found = u64::from_le_bytes(bytes);
            assert_eq!(found, expected, "sector {at} of request {}", flight.arrival);
        }
    }

    fn run(mut self, steps: u64) -> u64 {
        for step in 0..steps {
            self.scene.disk().at(Time(step * 10_000_000));
            match self.below(8) {
                0..=3 => self.submit(),
                4 => self.scene.disk().kick(),
                5 | 6 => self.serve(),
                _ => self.poll(),
            }
        }
        while self.scene.disk().in_flight() > 0 {
            self.scene.disk().kick();
            self.serve();
            self.poll();
        }
        assert!(self.flights.is_empty());
        assert_eq!(self.medium, self.future);
        assert_eq!(self.scene.disk().free_pages(), 300);
        self.scene.disk().counters().merged
    }
}

#[test]
fn every_read_finds_what_was_written_before_it_and_nothing_later() {
    for elevator in ["noop", "deadline"] {
        let merged: u64 = (1..200).map(|seed| Model::new(elevator, seed * 7919).run(400)).sum();
        assert!(merged > 100, "{elevator}: the model hardly merges: {merged}");
    }
}

#[test]
fn an_elevator_can_change_at_any_time() {
    let elevators = Elevators::new();
    for seed in 1..100 {
        let mut model = Model::new("noop", seed);
        for round in 0..20_u64 {
            for _ in 0..model.below(40) {
                match model.below(6) {
                    0..=2 => model.submit(),
                    3 => model.scene.disk().kick(),
                    4 => model.serve(),
                    _ => model.poll(),
                }
            }
            let name = ["noop", Deadline::NAME][usize::try_from(round % 2).unwrap()];
            model.scene.device.set_elevator(elevators.find(name).unwrap());
        }
        model.run(10);
    }
}
