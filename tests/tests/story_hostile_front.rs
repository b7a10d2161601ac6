//! A front that says anything: every request gets its one lawful answer or the device closes with
//! a reason, nothing leaves the disk, and an honest neighbour notices nothing.

use blkfront::Wishes;
use blkif::{Abi, Status};
use sim::Random;
use tests::{Guest, Ledger, Platter, RawFront, Wanted, World};
use xen::{Access, DomainId, GrantRef, Grants, Maps, Store, Transaction, XenbusState};

const SECTORS: usize = 1024;
const XVDA: u32 = 51712;
const WISHES: Wishes = Wishes { order: 0, pool_pages: 100 };
const HOSTILE: Wanted<'static> = Wanted::new(5, XVDA, "/hostile.img");
const HONEST: Wanted<'static> = Wanted::new(6, XVDA, "/honest.img");

const READ: u8 = 0;
const WRITE: u8 = 1;
const FLUSH: u8 = 3;
const DISCARD: u8 = 5;

/// A world with an honest guest at work and a hostile one about to connect.
struct Stage {
    world: World,
    honest: Guest,
    honest_platter: Platter,
    ledger: Ledger,
    platter: Platter,
}

impl Stage {
    fn new(seed: u64) -> Self {
        let mut world = World::new(seed);
        let honest_platter = world.image(HONEST.image, SECTORS);
        let platter = world.image(HOSTILE.image, SECTORS);
        let mut honest = world.guest(6);
        world.plug(&mut honest, &HONEST, WISHES);
        let _ = world.guest(5);
        HOSTILE.attach(&world.dom0).expect("attached");
        let ledger = Ledger::new(SECTORS);
        let mut stage = Self { world, honest, honest_platter, ledger, platter };
        stage.settle();
        stage
    }

    fn connect(&mut self, abi: Abi, order: u32) -> RawFront {
        let domain = self.world.sim.domain(DomainId(5));
        let front = RawFront::connect(&domain, &HOSTILE.front(), DomainId::ZERO, abi, order);
        self.settle();
        assert_eq!(self.state(), "4");
        front
    }

    fn state(&self) -> String {
        HOSTILE.back_node(&self.world.dom0, "state").unwrap_or_default()
    }

    fn settle(&mut self) {
        for _ in 0..20 {
            self.world.turn_back();
            self.honest.turn();
            self.honest.listen(XVDA, &mut self.ledger);
        }
    }

    /// The honest guest does some work and finds nothing wrong.
    fn neighbour_is_well(&mut self) {
        for _ in 0..10 {
            self.ledger.submit(self.honest.disk(XVDA), &mut self.world.random);
        }
        let done = self.ledger.done;
        self.world.drain(&mut self.honest, XVDA, &mut self.ledger);
        assert!(self.ledger.done > done && self.ledger.failed == 0);
        self.ledger.check(0, &self.honest_platter.read(0, SECTORS));
    }

    /// The hostile guest closes, and everything comes back.
    fn end(mut self, front: RawFront) {
        self.neighbour_is_well();
        front.set_state(XenbusState::Closing);
        self.settle();
        front.set_state(XenbusState::Closed);
        HOSTILE.detach(&self.world.dom0).expect("detached");
        self.settle();
        front.disconnect();
        HOSTILE.remove(&self.world.dom0).expect("removed");
        self.world.unplug(&mut self.honest, &HONEST);
        self.world.end();
    }
}

/// A request as a front may write it, lawful or not.
#[derive(Clone, Debug)]
struct Wild {
    operation: u8,
    count: u8,
    id: u64,
    sector: u64,
    length: u64,
    segments: Vec<(GrantRef, u8, u8)>,
}

impl Wild {
    fn words(&self, abi: Abi) -> Vec<u32> {
        let low = |n: u64| u32::try_from(n & u64::from(u32::MAX)).expect("32 bits");
        let halves = |n: u64| [low(n), low(n >> 32)];
        let mut words = vec![u32::from(self.operation) | u32::from(self.count) << 8];
        if abi == Abi::X86_64 {
            words.push(0);
        }
        words.extend(halves(self.id));
        words.extend(halves(self.sector));
        if self.operation == DISCARD {
            words.extend(halves(self.length));
        }
        for &(reference, first, last) in &self.segments {
            words.extend([reference.0, u32::from(first) | u32::from(last) << 8]);
        }
        words.truncate(abi.layout(0).slot_words());
        words
    }

    /// What `io/blkif.h` says of it, for a writable disk that offers flush and discard, if every
    /// grant in `good` and no other can be used.
    fn verdict(&self, good: &[GrantRef]) -> Status {
        let data = matches!(self.operation, READ | WRITE | FLUSH);
        if !data && self.operation != DISCARD {
            return Status::Unsupported;
        }
        let mut length = if data { 0 } else { self.length };
        if data {
            if self.count > 11 || (self.count == 0 && self.operation != FLUSH) {
                return Status::Error;
            }
            for &(reference, first, last) in &self.segments[..usize::from(self.count)] {
                if last > 7 || first > last || !good.contains(&reference) {
                    return Status::Error;
                }
                length += u64::from(last - first) + 1;
            }
        }
        let empty_flush = self.operation == FLUSH && length == 0;
        let inside = self.sector.checked_add(length).is_some_and(|end| end <= SECTORS as u64);
        if empty_flush || (inside && length > 0) { Status::Okay } else { Status::Error }
    }
}

/// Mostly lawful, with one thing or another gone wrong.
fn wild(random: &mut Random, good: &[GrantRef], bad: &[GrantRef]) -> Wild {
    let any = |random: &mut Random| u8::try_from(random.below(256)).expect("a byte");
    let below = |random: &mut Random, n: usize| u8::try_from(random.below(n)).expect("a byte");
    let edges = [0, 1, 8, SECTORS as u64 - 1, SECTORS as u64, u64::MAX, u64::MAX - 87, 1 << 55];
    let number = |random: &mut Random| match random.below(3) {
        0 => edges[random.below(edges.len())],
        1 => random.next(),
        _ => random.below(SECTORS) as u64,
    };
    let lawful = random.below(4) > 0;
    let operation = if lawful || random.below(2) == 0 {
        [READ, WRITE, FLUSH, DISCARD][random.below(4)]
    } else {
        any(random)
    };
    let mut count = below(random, 12);
    let mut segments: Vec<(GrantRef, u8, u8)> = (0..11)
        .map(|_| {
            let first = below(random, 8);
            let last = first + below(random, 8 - usize::from(first));
            (good[random.below(good.len())], first, last)
        })
        .collect();
    let mut sector = random.below(SECTORS / 2) as u64;
    let mut length = 1 + random.below(200) as u64;
    if !lawful {
        match random.below(5) {
            0 => count = any(random),
            1 => segments[random.below(11)].0 = bad[random.below(bad.len())],
            2 => {
                let at = random.below(11);
                let mut end = || match random.below(2) {
                    0 => [0, 6, 7, 8, 9, 255][random.below(6)],
                    _ => any(random),
                };
                (segments[at].1, segments[at].2) = (end(), end());
            }
            3 => sector = number(random),
            _ => length = number(random),
        }
    }
    Wild { operation, count, id: random.next(), sector, length, segments }
}

#[test]
fn each_of_many_wild_requests_gets_exactly_its_answer() {
    for (seed, abi) in [(1, Abi::X86_64), (2, Abi::X86_32), (3, Abi::X86_64), (4, Abi::X86_32)] {
        let mut stage = Stage::new(seed);
        let order = u32::try_from(seed).expect("small");
        let mut front = stage.connect(abi, order);
        let mut random = Random::new(seed);
        let good: Vec<GrantRef> = (0..20).map(|_| front.buffer()).collect();
        let bad = [GrantRef(0), GrantRef(7), GrantRef(5000), GrantRef(u32::MAX)];
        for round in 0..150 {
            let batch: Vec<Wild> =
                (0..1 + random.below(32)).map(|_| wild(&mut random, &good, &bad)).collect();
            for request in &batch {
                assert!(front.put(&request.words(abi)));
            }
            front.publish();
            stage.settle();
            let mut answers = Vec::new();
            while let Some(response) = front.take().expect("our back is honest") {
                answers.push((response.id, response.operation, response.status));
            }
            let mut expected: Vec<_> =
                batch.iter().map(|it| (it.id, it.operation, it.verdict(&good))).collect();
            answers.sort_by_key(|answer| answer.0);
            expected.sort_by_key(|answer| answer.0);
            assert_eq!(answers, expected, "round {round} of {batch:#?}");
        }
        assert_eq!(stage.state(), "4");
        stage.end(front);
    }
}

#[test]
fn every_wild_producer_index_closes_the_device_with_a_reason_and_nobody_else() {
    let near: Vec<u32> = (34..40).chain([64, 1 << 16, 1 << 31, u32::MAX, u32::MAX - 31]).collect();
    for index in near {
        let mut stage = Stage::new(u64::from(index));
        let mut front = stage.connect(Abi::X86_64, 0);
        let good = front.buffer();
        let request = Wild {
            operation: WRITE,
            count: 1,
            id: 1,
            sector: 0,
            length: 0,
            segments: vec![(good, 0, 7)],
        };
        assert!(front.put(&request.words(Abi::X86_64)));
        front.publish();
        stage.settle();
        front.poke(0, index);
        stage.settle();
        assert!(["5", "6"].contains(&stage.state().as_str()), "{index}: {}", stage.state());
        let reason = HOSTILE.back_node(&stage.world.dom0, "error").expect("a reason");
        assert!(reason.contains("ring index"), "{reason}");
        let mapped = stage.world.sim.audit().mappings;
        assert!(mapped.iter().all(|mapping| mapping.1 != DomainId(5)), "{mapped:?}");
        stage.end(front);
    }
}

#[test]
fn rubbish_anywhere_in_the_ring_is_survived() {
    for seed in 0..60 {
        let mut stage = Stage::new(seed);
        let order = u32::try_from(seed % 5).expect("small");
        let mut front = stage.connect(Abi::X86_64, order);
        let mut random = Random::new(seed);
        let _ = front.buffer();
        for _ in 0..200 {
            let word = match random.below(3) {
                0 => random.below(4),
                _ => random.below(front.words()),
            };
            let value = match random.below(3) {
                0 => u32::try_from(random.below(600)).expect("small"),
                1 => u32::from_le_bytes([1, 1, 0, 0]),
                _ => random.word(),
            };
            front.poke(word, value);
            if random.below(4) == 0 {
                stage.settle();
            }
        }
        stage.settle();
        stage.end(front);
    }
}

#[test]
fn grants_that_are_not_for_this_use_fail_their_request_alone() {
    let mut stage = Stage::new(7);
    let mut front = stage.connect(Abi::X86_64, 0);
    let good = front.buffer();
    let guest = stage.world.sim.domain(DomainId(5));
    let page = guest.page().expect("a page");
    let for_other = guest.grant(&page, DomainId(6), Access::Write).expect("room");
    let to_read = guest.grant(&page, DomainId::ZERO, Access::Read).expect("room");
    front.page(good).write(0, &[0xaa; 4096]);
    let write = |id, reference| Wild {
        operation: WRITE,
        count: 1,
        id,
        sector: 8 * id,
        length: 0,
        segments: vec![(reference, 0, 7)],
    };
    let bad = [for_other, to_read, GrantRef(4000)];
    for (id, reference) in (0..).zip([good, bad[0], good, bad[1], bad[2], good]) {
        assert!(front.put(&write(id, reference).words(Abi::X86_64)));
    }
    front.publish();
    stage.settle();
    let mut answers = [Status::Unsupported; 6];
    while let Some(response) = front.take().expect("honest") {
        answers[usize::try_from(response.id).expect("small")] = response.status;
    }
    use Status::{Error, Okay};
    assert_eq!(answers, [Okay, Error, Okay, Error, Error, Okay]);
    for (id, value) in [(0, 0xaa), (1, 0), (2, 0xaa), (3, 0), (4, 0), (5, 0xaa)] {
        assert_eq!(stage.platter.read(8 * id, 8), vec![value; 4096], "request {id}");
    }
    // A page that is mapped for nobody can be taken back at any time.
    assert_eq!(guest.revoke(for_other), Ok(()));
    assert_eq!(guest.revoke(to_read), Ok(()));
    drop(page);
    stage.end(front);
}

#[test]
fn a_read_only_disk_does_not_change_whatever_is_asked() {
    let mut world = World::new(8);
    let platter = world.image("/ro.img", SECTORS);
    platter.write(0, &[0x5a; SECTORS * 512]);
    let guest = world.guest(5);
    let wanted = Wanted { read_only: true, ..Wanted::new(5, XVDA, "/ro.img") };
    wanted.attach(&world.dom0).expect("attached");
    world.settle_back();
    let mut front =
        RawFront::connect(&guest.domain, &wanted.front(), DomainId::ZERO, Abi::X86_64, 0);
    world.settle_back();
    let good: Vec<GrantRef> = (0..5).map(|_| front.buffer()).collect();
    let mut random = Random::new(8);
    for _ in 0..500 {
        let request = wild(&mut random, &good, &[GrantRef(0)]);
        assert!(front.put(&request.words(Abi::X86_64)));
        front.publish();
        world.settle_back();
        let response = front.take().expect("honest").expect("an answer");
        let writes = request.operation == WRITE
            || request.operation == DISCARD
            || (request.operation == FLUSH && request.count > 0);
        assert!(!writes || response.status != Status::Okay, "{request:?}");
    }
    assert_eq!(platter.read(0, SECTORS), vec![0x5a; SECTORS * 512]);
    front.set_state(XenbusState::Closed);
    wanted.detach(&world.dom0).expect("detached");
    world.settle_back();
    front.disconnect();
    wanted.remove(&world.dom0).expect("removed");
    world.settle_back();
    world.end();
}

#[test]
fn a_front_that_takes_no_answers_holds_no_more_than_its_ring() {
    let mut stage = Stage::new(9);
    let mut front = stage.connect(Abi::X86_64, 0);
    let good = front.buffer();
    let request = Wild {
        operation: READ,
        count: 1,
        id: 1,
        sector: 0,
        length: 0,
        segments: vec![(good, 0, 7)],
    };
    let mut put = 0;
    for _ in 0..10 {
        while front.put(&request.words(Abi::X86_64)) {
            put += 1;
        }
        front.publish();
        stage.settle();
    }
    assert_eq!(put, 32);
    let mapped = stage.world.sim.audit().mappings;
    let theirs = mapped.iter().filter(|mapping| mapping.1 == DomainId(5)).count();
    assert_eq!(theirs, 2, "the ring and one buffer: {mapped:?}");
    stage.end(front);
}

#[test]
fn silly_nodes_refuse_the_connection_with_a_reason() {
    let silly = [
        ("ring-ref", ""),
        ("ring-ref", "-1"),
        ("ring-ref", "x"),
        ("ring-ref", "4294967296"),
        ("ring-ref", "4294967295"),
        ("ring-ref", "0"),
        ("event-channel", "0"),
        ("event-channel", "-1"),
        ("event-channel", "4095"),
        ("event-channel", "99999999999999999999999"),
        ("ring-page-order", "5"),
        ("ring-page-order", "1"),
        ("ring-page-order", "18446744073709551616"),
        ("protocol", "native"),
        ("protocol", ""),
        ("multi-queue-num-queues", "0"),
        ("multi-queue-num-queues", "2"),
        ("feature-persistent", "maybe"),
    ];
    for (seed, (key, value)) in (0..).zip(silly) {
        let mut stage = Stage::new(seed);
        let domain = stage.world.sim.domain(DomainId(5));
        let back = DomainId::ZERO;
        let front = RawFront::connect(&domain, &HOSTILE.front(), back, Abi::X86_64, 0);
        front.write(key, value).expect("its own node");
        stage.settle();
        let state = stage.state();
        assert!(["5", "6"].contains(&state.as_str()), "{key}={value:?}: state {state}");
        let reason = HOSTILE.back_node(&stage.world.dom0, "error").expect("a reason");
        assert!(!reason.is_empty() && !reason.contains('\n'), "{reason:?}");
        stage.end(front);
    }
}

#[test]
fn states_in_any_order_at_any_time_do_no_harm() {
    for seed in 0..300 {
        let mut stage = Stage::new(seed);
        let mut random = Random::new(seed);
        let domain = stage.world.sim.domain(DomainId(5));
        let mut fronts: Vec<RawFront> = Vec::new();
        for _ in 0..8 {
            let path = format!("{}/state", HOSTILE.front());
            match random.below(6) {
                0 => {
                    let path = HOSTILE.front();
                    let back = DomainId::ZERO;
                    fronts.push(RawFront::connect(&domain, &path, back, Abi::X86_64, 1));
                }
                1 => drop(domain.write(Transaction::NONE, &path, "rubbish")),
                _ => {
                    let state = random.below(9).to_string();
                    let _ = domain.write(Transaction::NONE, &path, &state);
                }
            }
            for _ in 0..random.below(4) {
                stage.world.turn_back();
            }
        }
        stage.settle();
        stage.neighbour_is_well();
        stage.world.sim.kill(DomainId(5));
        HOSTILE.remove(&stage.world.dom0).expect("removed");
        stage.settle();
        drop(fronts);
        stage.world.unplug(&mut stage.honest, &HONEST);
        stage.world.end();
    }
}

#[test]
fn a_front_that_removes_its_own_directory_loses_its_disk_and_nothing_else_happens() {
    let mut stage = Stage::new(10);
    let front = stage.connect(Abi::X86_64, 0);
    let domain = stage.world.sim.domain(DomainId(5));
    domain.remove(Transaction::NONE, &HOSTILE.front()).expect("its own");
    stage.settle();
    stage.neighbour_is_well();
    assert!(stage.world.sim.audit().mappings.iter().all(|mapping| mapping.1 != DomainId(5)));
    front.disconnect();
    HOSTILE.remove(&stage.world.dom0).expect("removed");
    stage.world.unplug(&mut stage.honest, &HONEST);
    stage.world.end();
}

#[test]
fn storms_of_events_and_of_writes_to_xenstore_cost_a_bounded_amount() {
    let mut stage = Stage::new(11);
    let front = stage.connect(Abi::X86_64, 0);
    for _ in 0..10_000 {
        front.poke(16, 0);
        front.set_state(XenbusState::Connected);
    }
    // What waits is one event per path and one bit per port, however many there were.
    stage.settle();
    let requests = stage.world.crew().count(|counters| counters.requests);
    assert_eq!(requests, 0);
    stage.neighbour_is_well();
    stage.end(front);
}

#[test]
fn a_hostile_front_cannot_have_the_pages_of_its_neighbour_mapped() {
    let mut stage = Stage::new(12);
    let mut front = stage.connect(Abi::X86_64, 0);
    let honest = stage.world.sim.audit();
    let theirs: Vec<GrantRef> =
        honest.grants.iter().filter(|grant| grant.0 == DomainId(6)).map(|grant| grant.1).collect();
    assert!(theirs.len() > 50);
    // The same numbers exist in its own table only where it granted something itself.
    for &reference in theirs.iter().filter(|reference| reference.0 > 60) {
        let request = Wild {
            operation: READ,
            count: 1,
            id: 1,
            sector: 0,
            length: 0,
            segments: vec![(reference, 0, 7)],
        };
        assert!(front.put(&request.words(Abi::X86_64)));
        front.publish();
        stage.settle();
        assert_eq!(front.take().expect("honest").expect("an answer").status, Status::Error);
    }
    let dom0 = stage.world.dom0.clone();
    assert!(dom0.map(DomainId(5), &[theirs[theirs.len() - 1]], Access::Read).is_err());
    stage.end(front);
}
