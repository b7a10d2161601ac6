//! The disk against a back that answers as told: rightly, wrongly, twice, or not at all.

use alloc::vec;
use alloc::vec::Vec;

use XenbusState::{Connected, InitWait};
use blkif::{Raw, Reason};
use ring::{Index, Memory};
use xen::XenbusState;

use super::*;
use crate::fake::{FRONT, FakeBack, FakeEvents, FakeGrants, back_says, directories};
use crate::{Device, Wishes};

mod indirect;
mod order;

struct Scene {
    device: Device<FakeGrants, FakeEvents>,
    back: FakeBack,
    grants: FakeGrants,
    events: FakeEvents,
}

fn scene(nodes: &[(&str, &str)]) -> Scene {
    scene_with(40, nodes)
}

fn scene_with(pool_pages: usize, nodes: &[(&str, &str)]) -> Scene {
    let (store, grants, events) = (directories(), FakeGrants::new(1000), FakeEvents::default());
    let ends = (grants.clone(), events.clone());
    let wishes = Wishes { order: 0, pool_pages };
    let mut device = Device::open(&store, FRONT, ends, wishes).unwrap();
    back_says(&store, InitWait, &[]);
    device.turn(&store).unwrap();
    let back = FakeBack::connect(&store, &grants);
    back_says(&store, Connected, &[&[("sectors", "2048")], nodes].concat());
    device.turn(&store).unwrap();
    Scene { device, back, grants, events }
}

impl Scene {
    fn disk(&mut self) -> &mut Disk<FakeGrants, FakeEvents> {
        self.device.disk().unwrap()
    }

    fn submit(&mut self, operation: Operation, sector: u64, length: usize) -> Tag {
        let buffer = self.disk().buffer(length).unwrap();
        self.disk().submit(operation, sector, buffer).unwrap()
    }

    fn refusal(&mut self, operation: Operation, sector: u64, length: usize) -> SubmitError {
        let buffer = self.disk().buffer(length).unwrap();
        let refused = self.disk().submit(operation, sector, buffer).unwrap_err();
        assert!(refused.buffer.is_some_and(|buffer| buffer.length_bytes() == length));
        refused.error
    }
}

#[test]
fn data_goes_down_and_comes_up_in_the_same_buffer() {
    let mut scene = scene(&[]);
    let buffer = scene.disk().buffer(4608).unwrap();
    buffer.write(4096, b"hello");
    let tag = scene.disk().submit(Operation::Write, 5, buffer).unwrap();
    assert_eq!(scene.back.take(), None, "nothing is visible before the kick");
    scene.disk().kick();
    let raw = scene.back.take().unwrap();
    assert_eq!((raw.operation, raw.sector, raw.segments.len()), (1, 5, 2));
    assert_eq!((raw.segments[1].first_sector, raw.segments[1].last_sector), (0, 0));
    let mut seen = [0; 5];
    scene.back.page(&raw, 1).read(0, &mut seen);
    assert_eq!(&seen, b"hello");
    scene.back.page(&raw, 0).write(0, b"world");
    scene.back.answer(raw.id, raw.operation, Status::Okay);
    let done = scene.disk().poll().unwrap().unwrap();
    assert_eq!((done.tag, done.operation, done.status), (tag, Operation::Write, Status::Okay));
    done.buffer.unwrap().read(0, &mut seen);
    assert_eq!(&seen, b"world");
    assert!(scene.disk().poll().unwrap().is_none());
}

#[test]
fn answers_may_come_in_any_order_and_with_any_status() {
    let mut scene = scene(&[]);
    let tags: Vec<Tag> = (0..3).map(|at| scene.submit(Operation::Read, at * 8, 512)).collect();
    scene.disk().kick();
    let raws: Vec<Raw> = (0..3).map(|_| scene.back.take().unwrap()).collect();
    let statuses = [Status::Error, Status::Unsupported, Status::Okay];
    for (raw, status) in raws.iter().rev().zip(statuses) {
        scene.back.answer(raw.id, raw.operation, status);
    }
    for (tag, status) in tags.into_iter().rev().zip(statuses) {
        let done = scene.disk().poll().unwrap().unwrap();
        assert_eq!((done.tag, done.status), (tag, status));
    }
    assert_eq!((scene.disk().in_flight(), scene.disk().counters().errors), (0, 2));
}

#[test]
fn the_ring_takes_32_requests_as_many_wait_and_one_more_is_busy() {
    let mut scene = scene_with(65, &[]);
    for at in 0..64 {
        scene.submit(Operation::Read, at * 2, 512);
    }
    assert_eq!(scene.refusal(Operation::Read, 200, 512), SubmitError::Busy);
    scene.disk().kick();
    assert_eq!((scene.disk().in_flight(), scene.disk().unsent()), (64, 32));
    for at in 0..64 {
        let raw = scene.back.take().unwrap();
        assert_eq!(raw.sector, at * 2, "in the order of arrival");
        scene.back.answer(raw.id, raw.operation, Status::Okay);
        drop(scene.disk().poll().unwrap().unwrap());
        scene.disk().kick();
    }
    assert_eq!((scene.disk().in_flight(), scene.disk().free_slots()), (0, 64));
}

#[test]
fn one_kick_sends_one_event_for_a_batch_and_none_for_nothing() {
    let mut scene = scene(&[]);
    scene.disk().kick();
    assert_eq!(scene.events.sent(), 0);
    for at in 0..4 {
        scene.submit(Operation::Read, at * 2, 512);
    }
    scene.disk().kick();
    scene.disk().kick();
    assert_eq!(scene.events.sent(), 1);
    scene.submit(Operation::Read, 9, 512);
    scene.disk().kick();
    assert_eq!(scene.events.sent(), 1, "the back has not asked to be woken again");
    let expected = Counters {
        requests: 5,
        batches: 2,
        notifications_sent: 1,
        read_sectors: 5,
        ..Counters::default()
    };
    assert_eq!(*scene.disk().counters(), expected);
}

#[test]
fn responses_that_are_taken_together_count_as_one_batch() {
    let mut scene = scene(&[]);
    for round in 0..2 {
        for at in 0..3 {
            scene.submit(Operation::Read, at * 2, 512);
        }
        scene.disk().kick();
        while let Some(raw) = scene.back.take() {
            scene.back.answer(raw.id, raw.operation, Status::Okay);
        }
        scene.disk().woken();
        while scene.disk().poll().unwrap().is_some() {}
        let counters = *scene.disk().counters();
        assert_eq!((counters.responses, counters.response_batches), (3 * round + 3, round + 1));
        assert_eq!(counters.notifications_received, round + 1);
    }
}

#[test]
fn rest_finds_an_answer_that_came_meanwhile() {
    let mut scene = scene(&[]);
    scene.submit(Operation::Read, 0, 512);
    scene.disk().kick();
    assert_eq!(scene.disk().rest(), Ok(Rest::Idle));
    let raw = scene.back.take().unwrap();
    scene.back.answer(raw.id, raw.operation, Status::Okay);
    assert_eq!(scene.disk().rest(), Ok(Rest::Work));
}

#[test]
fn what_the_back_would_reject_is_not_even_put() {
    let mut scene = scene(&[("info", "4")]);
    let past = SubmitError::Unlawful(Reason::PastTheEnd);
    assert_eq!(scene.refusal(Operation::Read, 2041, 4096), past);
    assert_eq!(scene.refusal(Operation::Read, u64::MAX, 4096), past);
    let read_only = SubmitError::Unlawful(Reason::ReadOnly);
    assert_eq!(scene.refusal(Operation::Write, 0, 4096), read_only);
    let odd = SubmitError::Unlawful(Reason::TooManySegments);
    let discard = SubmitError::Unlawful(Reason::NotAgreed);
    assert!([odd, discard].contains(&scene.refusal(Operation::Discard, 0, 4096)));
    assert_eq!((scene.disk().in_flight(), scene.disk().free_slots()), (0, 64));
}

#[test]
fn a_disk_of_4096_byte_sectors_takes_only_multiples_of_them() {
    let mut scene = scene(&[("sector-size", "4096")]);
    let unaligned = SubmitError::Unlawful(Reason::Unaligned);
    assert_eq!(scene.refusal(Operation::Read, 0, 512), unaligned);
    assert_eq!(scene.refusal(Operation::Read, 4, 4096), unaligned);
    scene.submit(Operation::Read, 8, 8192);
}

#[test]
fn a_flush_that_the_back_does_not_offer_is_refused_and_never_pretended() {
    let mut scene = scene(&[("feature-flush-cache", "0")]);
    assert_eq!(scene.disk().flush(), Err(SubmitError::Unlawful(Reason::NotAgreed)));
    let refused = scene.refusal(Operation::Flush, 0, 512);
    assert_eq!(refused, SubmitError::Unlawful(Reason::NotAgreed));
}

#[test]
fn a_flush_that_fails_says_so() {
    let mut scene = scene(&[("feature-flush-cache", "1")]);
    let tag = scene.disk().flush().unwrap();
    scene.disk().kick();
    let raw = scene.back.take().unwrap();
    assert_eq!((raw.operation, raw.count), (3, 0));
    scene.back.answer(raw.id, raw.operation, Status::Error);
    let done = scene.disk().poll().unwrap().unwrap();
    assert_eq!((done.tag, done.status), (tag, Status::Error));
    assert!(done.buffer.is_none());
}

#[test]
fn a_discard_has_its_range_and_no_pages() {
    let mut scene = scene(&[("feature-discard", "1")]);
    scene.disk().discard(16, 2032).unwrap();
    assert_eq!(scene.disk().discard(16, 2033), Err(SubmitError::Unlawful(Reason::PastTheEnd)));
    scene.disk().kick();
    let raw = scene.back.take().unwrap();
    assert_eq!((raw.operation, raw.sector, raw.discard_sectors), (5, 16, 2032));
}

#[test]
fn a_buffer_of_another_connection_is_refused() {
    let (mut one, mut other) = (scene(&[]), scene(&[]));
    let buffer = other.disk().buffer(512).unwrap();
    let refused = one.disk().submit(Operation::Read, 0, buffer).unwrap_err();
    assert_eq!(refused.error, SubmitError::Foreign);
}

/// Submits three reads and lets `lie` answer, which must end in `fault`.
fn faulted(lie: impl FnOnce(&mut FakeBack, &[Raw])) -> (Scene, Fault) {
    let mut scene = scene(&[("feature-flush-cache", "1")]);
    for at in 0..3 {
        scene.submit(Operation::Read, at, 4096);
    }
    scene.disk().kick();
    let raws: Vec<Raw> = (0..3).map(|_| scene.back.take().unwrap()).collect();
    scene.submit(Operation::Read, 3, 4096);
    lie(&mut scene.back, &raws);
    let fault = loop {
        match scene.disk().poll() {
            Ok(done) => assert!(done.is_some(), "the lie was not found out"),
            Err(fault) => break fault,
        }
    };
    (scene, fault)
}

/// After a fault nothing is done, nothing is sent, and no page in flight is used again.
fn is_out_of_service(mut scene: Scene, fault: Fault) {
    let in_flight = scene.disk().in_flight();
    let (free, sent) = (scene.disk().free_pages(), scene.events.sent());
    assert!(free + in_flight <= 40);
    assert_eq!(scene.disk().fault(), Some(fault));
    assert_eq!(scene.disk().poll().unwrap_err(), fault);
    assert_eq!(scene.disk().rest(), Err(fault));
    assert_eq!(scene.disk().flush(), Err(SubmitError::Fault(fault)));
    assert_eq!(scene.refusal(Operation::Read, 0, 512), SubmitError::Fault(fault));
    scene.disk().kick();
    assert_eq!((scene.back.take(), scene.events.sent()), (None, sent));
    assert_eq!((scene.disk().in_flight(), scene.disk().free_pages()), (in_flight, free));
    let Scene { device, grants, .. } = scene;
    drop(device);
    // The ring, and the pages that the back mapped, are still mapped: they were kept.
    assert_eq!(grants.granted(), grants.pages_out());
    assert!(grants.granted() >= 1);
}

#[test]
fn an_answer_to_nothing_ends_the_connection() {
    for id in [3_u64, 31, 32, 33, 0xffff, 0x1_0000, u64::MAX] {
        let (scene, fault) = faulted(|back, raws| {
            back.answer(raws[0].id, raws[0].operation, Status::Okay);
            back.answer(raws[1].id, raws[1].operation, Status::Okay);
            back.answer(id, 0, Status::Okay);
        });
        assert_eq!(fault, Fault::UnknownId(id));
        is_out_of_service(scene, fault);
    }
}

#[test]
fn an_answer_given_twice_ends_the_connection() {
    let (scene, fault) = faulted(|back, raws| {
        back.answer(raws[1].id, raws[1].operation, Status::Okay);
        back.answer(raws[1].id, raws[1].operation, Status::Okay);
    });
    assert!(matches!(fault, Fault::UnknownId(_)));
    is_out_of_service(scene, fault);
}

#[test]
fn an_answer_for_another_operation_ends_the_connection() {
    for answered in 1..=u8::MAX {
        let (scene, fault) = faulted(|back, raws| back.answer(raws[0].id, answered, Status::Okay));
        assert_eq!(fault, Fault::WrongOperation { answered });
        is_out_of_service(scene, fault);
    }
}

#[test]
fn an_id_with_any_bit_flipped_ends_the_connection() {
    for bit in 2..64 {
        let (scene, fault) =
            faulted(|back, raws| back.answer(raws[0].id ^ 1 << bit, 0, Status::Okay));
        assert!(matches!(fault, Fault::UnknownId(_)), "bit {bit}");
        is_out_of_service(scene, fault);
    }
}

#[test]
fn more_answers_than_requests_end_the_connection() {
    for extra in [4_u32, 32, 33, 1 << 31, u32::MAX] {
        let (scene, fault) = faulted(|back, _| {
            back.memory().word(2).store(extra, ring::sync::Ordering::Relaxed);
        });
        let Fault::Ring(broken) = fault else { panic!("{fault}") };
        assert_eq!((broken.alleged, broken.limit), (Index::new(extra), 3));
        is_out_of_service(scene, fault);
    }
}

#[test]
fn ten_thousand_requests_make_no_grant_and_use_every_page() {
    let mut scene = scene(&[]);
    let made = scene.grants.grants_made();
    let mut seen = vec![0_u32; 40];
    for round in 0..10_000_u64 {
        scene.submit(Operation::Read, round % 2000, 4096);
        scene.disk().kick();
        let raw = scene.back.take().unwrap();
        seen[usize::try_from(raw.segments[0].reference.0).unwrap() % 40] += 1;
        scene.back.answer(raw.id, raw.operation, Status::Okay);
        drop(scene.disk().poll().unwrap().unwrap());
    }
    assert_eq!(scene.grants.grants_made(), made);
    assert!(seen.iter().all(|&count| count == 250), "pages take turns: {seen:?}");
    let counters = scene.disk().counters();
    assert_eq!((counters.requests, counters.responses, counters.errors), (10_000, 10_000, 0));
}

#[test]
fn a_buffer_outlives_its_disk_and_its_page_is_revoked_then() {
    let Scene { mut device, grants, back, .. } = scene(&[]);
    let buffer = device.disk().unwrap().buffer(512).unwrap();
    drop((device, back));
    grants.unmap_all();
    assert_eq!(grants.granted(), 41, "40 for the buffer's pool and 1 ring page that was mapped");
    drop(buffer);
    assert_eq!(grants.granted(), 1);
}
