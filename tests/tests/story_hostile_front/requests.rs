//! Wild requests and wild grants.

use blkif::{Abi, Operation, Status};
use sim::Random;
use tests::oracle::{ERROR, Terms, judge};
use tests::torture::wild::{SLOT_WORDS, Wild};
use tests::{RawFront, Wanted, World};
use xen::{Access, DomainId, GrantRef, Grants, Maps, XenbusState};

use crate::{HOSTILE, SECTORS, Stage, XVDA, one_page};

/// The disk of these stories, as its back publishes it.
const TERMS: Terms = Terms {
    wide: true,
    sectors: SECTORS as u64,
    unit: 1,
    read_only: false,
    flush: true,
    discard: true,
    indirect: 32,
};

/// Puts a wild request into the ring and tells the answer that it must get: id, operation, status.
/// None names the ring's own pages: they may be used as any other, which would ruin the ring.
fn put_wild(front: &mut RawFront, random: &mut Random, good: &[GrantRef]) -> (u64, u8, i16) {
    let terms = Terms { wide: front.abi() == Abi::X86_64, ..TERMS };
    let grants = (good[0].0, u32::try_from(good.len()).expect("few"));
    let mut slot = [0; SLOT_WORDS];
    let length = front.abi().layout(0).slot_words();
    let verdict = loop {
        Wild { terms: &terms, grants, segments_max: 11, descriptors: None }.fill(random, &mut slot);
        let bytes: Vec<u8> = slot[..length].iter().flat_map(|word| word.to_le_bytes()).collect();
        let verdict = judge(&bytes, &terms, |_| None);
        let of_ring = |segment: &(u32, u8, u8)| front.references().contains(&GrantRef(segment.0));
        if !verdict.work.as_ref().is_ok_and(|work| work.segments[..work.count].iter().any(of_ring))
        {
            break verdict;
        }
    };
    assert!(front.put(&slot[..length]));
    let usable = |segment: &(u32, u8, u8)| good.contains(&GrantRef(segment.0));
    let status = match verdict.work {
        Err(status) => status,
        Ok(work) if work.segments[..work.count].iter().all(usable) => 0,
        Ok(_) => ERROR,
    };
    (verdict.id, verdict.operation, status)
}

/// Grants of consecutive numbers.
fn buffers(front: &mut RawFront, count: usize) -> Vec<GrantRef> {
    let good: Vec<GrantRef> = (0..count).map(|_| front.buffer()).collect();
    assert!(good.windows(2).all(|pair| pair[1].0 == pair[0].0 + 1), "{good:?}");
    good
}

#[test]
fn each_of_many_wild_requests_gets_exactly_its_answer() {
    for (seed, abi) in [(1, Abi::X86_64), (2, Abi::X86_32), (3, Abi::X86_64), (4, Abi::X86_32)] {
        let mut stage = Stage::new(seed);
        let order = u32::try_from(seed).expect("small");
        let mut front = stage.connect(abi, order);
        let mut random = Random::new(seed);
        let good = buffers(&mut front, 20);
        for round in 0..150 {
            let count = 1 + random.below(32);
            let mut expected: Vec<_> =
                (0..count).map(|_| put_wild(&mut front, &mut random, &good)).collect();
            front.publish();
            stage.settle();
            let mut answers = Vec::new();
            while let Some(response) = front.take().expect("our back is honest") {
                answers.push((response.id, response.operation, response.status.wire()));
            }
            answers.sort_unstable();
            expected.sort_unstable();
            assert_eq!(answers, expected, "round {round} of seed {seed}");
        }
        assert_eq!(stage.state(), "4");
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
    let bad = [for_other, to_read, GrantRef(4000)];
    for (id, reference) in (0..).zip([good, bad[0], good, bad[1], bad[2], good]) {
        assert!(front.put(&one_page(Operation::Write, id, 8 * id, reference)));
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
    let good = buffers(&mut front, 5);
    let mut random = Random::new(8);
    let mut refused = 0;
    for _ in 0..500 {
        // Lawful on a disk that can be written, and so not here if it writes.
        let (_, operation, status) = put_wild(&mut front, &mut random, &good);
        front.publish();
        world.settle_back();
        let response = front.take().expect("honest").expect("an answer");
        if status == 0 && [1, 5].contains(&operation) {
            refused += 1;
            assert_ne!(response.status, Status::Okay, "operation {operation}");
        }
    }
    assert!(refused > 100, "{refused}");
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
    let request = one_page(Operation::Read, 1, 0, good);
    let mut put = 0;
    for _ in 0..10 {
        while front.put(&request) {
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
fn a_hostile_front_cannot_have_the_pages_of_its_neighbour_mapped() {
    let mut stage = Stage::new(12);
    let mut front = stage.connect(Abi::X86_64, 0);
    let honest = stage.world.sim.audit();
    let theirs: Vec<GrantRef> =
        honest.grants.iter().filter(|grant| grant.0 == DomainId(6)).map(|grant| grant.1).collect();
    assert!(theirs.len() > 50);
    // The same numbers exist in its own table only where it granted something itself.
    for &reference in theirs.iter().filter(|reference| reference.0 > 60) {
        assert!(front.put(&one_page(Operation::Read, 1, 0, reference)));
        front.publish();
        stage.settle();
        assert_eq!(front.take().expect("honest").expect("an answer").status, Status::Error);
    }
    let dom0 = stage.world.dom0.clone();
    assert!(dom0.map(DomainId(5), &[theirs[theirs.len() - 1]], Access::Read).is_err());
    assert_eq!(HOSTILE.back_node(&dom0, "state").as_deref(), Some("4"));
    stage.end(front);
}
