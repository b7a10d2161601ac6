//! What a hostile front gets: an error for itself, and nothing else.

use blkif::{Abi, INDIRECT, Operation, Reason, Segment, Segments, Status};
use ring::Memory;
use ring::sync::Ordering;
use xen::GrantRef;

use super::bench::*;
use crate::session::*;

#[test]
fn whichever_grant_is_refused_only_its_own_request_fails() {
    for plan in shapes() {
        for bad in 0..12 {
            let mut bench = Bench::new(&plan);
            (0..12).for_each(|it| drop(bench.guest.page(it, 5)));
            bench.guest.refused.lock().unwrap().insert(GrantRef(bad));
            let requests: Vec<_> = (0..4)
                .map(|it: u32| {
                    write(it.into(), u64::from(it) * 100, whole([0, 1, 2].map(|at| it * 3 + at)))
                })
                .collect();
            let mut want = [Status::Okay; 4];
            want[bad as usize / 3] = Status::Error;
            assert_eq!(bench.carry_out(&requests), want, "reference {bad}");
            let start = bad as usize / 3 * 100 * 512;
            assert!(bench.disk().memory.bytes()[start..start + 3 * 4096] == [0; 3 * 4096]);
            assert_eq!(bench.session.counters().errors[Fault::Grant.index()], 1);
            assert_eq!(bench.session.pages_in_flight, 0);
            // It works once the guest has mended it.
            bench.guest.refused.lock().unwrap().clear();
            assert_eq!(bench.carry_out(&requests), [Status::Okay; 4]);
        }
    }
}

#[test]
fn a_read_that_cannot_be_delivered_fails_alone() {
    let mut bench = Bench::new(&Plan { persistent: false, ..Plan::default() });
    (0..6).for_each(|it| drop(bench.guest.page(it, 5)));
    bench.guest.refused.lock().unwrap().insert(GrantRef(3));
    let requests = [read(1, 0, whole([0, 1])), read(2, 16, whole([2, 3])), read(3, 32, whole([4]))];
    let want = [Status::Okay, Status::Error, Status::Okay];
    assert_eq!(bench.carry_out(&requests), want);
}

#[test]
fn a_front_that_never_uses_a_grant_twice_keeps_the_mappings_bounded() {
    let mut bench = Bench::new(&Plan::default());
    let most = 32 * blkif::SEGMENTS_MAX + 1;
    for round in 0..20 {
        let first = round * 352;
        (first..first + 352).for_each(|it| drop(bench.guest.page(it, 0)));
        let requests: Vec<_> = (0..32)
            .map(|it| read(it.into(), 0, whole(first + it * 11..first + it * 11 + 11)))
            .collect();
        assert_eq!(bench.carry_out(&requests), [Status::Okay; 32]);
        assert!(bench.guest.mapped() <= most, "{} mapped", bench.guest.mapped());
    }
}

#[test]
fn one_grant_in_two_requests_and_one_id_in_two_requests_are_legal() {
    for plan in shapes() {
        let mut bench = Bench::new(&plan);
        bench.guest.page(1, 8);
        bench.send(&[write(7, 0, whole([1, 1])), write(7, 16, whole([1]))]);
        bench.turn();
        assert_eq!(bench.answers(), [(7, Status::Okay), (7, Status::Okay)]);
        assert!(bench.disk().memory.bytes()[..24 * 512] == [8; 24 * 512]);
    }
}

#[test]
fn a_read_only_disk_is_not_changed_by_anything() {
    let mut bench = Bench::new(&Plan { read_only: true, ..Plan::default() });
    bench.guest.page(1, 8);
    let requests = [
        write(1, 0, whole([1])),
        Request::discard(2, 0, 8),
        Request::transfer(3, Operation::Flush, 0, whole([1])),
        Request::flush(4),
        read(5, 0, whole([1])),
    ];
    let want = [Status::Error, Status::Error, Status::Error, Status::Okay, Status::Okay];
    assert_eq!(bench.carry_out(&requests), want);
    assert!(bench.disk().memory.bytes().iter().all(|&byte| byte == 0));
}

#[test]
fn a_producer_index_out_of_bounds_breaks_the_ring_and_nothing_else() {
    for plan in shapes() {
        let slots = plan.abi.layout(plan.order).slots();
        for ahead in [slots + 1, slots * 2, 1 << 31, u32::MAX] {
            let mut bench = Bench::new(&plan);
            bench.ring[0].word(0).store(ahead, Ordering::Relaxed);
            let broken = bench.session.turn().expect_err("the index is impossible");
            assert_eq!((broken.alleged.raw(), broken.limit), (ahead, slots));
            assert_eq!(bench.session.pending(), 0);
        }
    }
}

#[test]
fn a_producer_index_that_jumps_while_requests_are_in_flight_leaks_nothing() {
    let mut bench = Bench::new(&Plan::default());
    (0..4).for_each(|it| drop(bench.guest.page(it, 0)));
    bench.disk().held = Some(Vec::new());
    bench.send(&[read(1, 0, whole([1])), read(2, 64, whole([2]))]);
    bench.turn();
    bench.ring[0].word(0).store(2 + 31, Ordering::Relaxed);
    assert!(bench.session.turn().is_err());
    drop(bench.session);
    assert_eq!(bench.guest.mapped(), 0);
}

#[test]
fn every_byte_of_a_response_is_ours() {
    for (abi, length) in [(Abi::X86_64, 16), (Abi::X86_32, 12)] {
        let mut bench = Bench::new(&Plan { abi, ..Plan::default() });
        bench.send(&[Request::flush(0x1122_3344_5566_7788)]);
        // The request is still in the slot: as much of it as the session does not read is filled.
        let mut slot = [0xA5_u8; 108];
        let words = Request::flush(0x1122_3344_5566_7788).words(abi, 0);
        for (at, word) in words.iter().enumerate() {
            slot[at * 4..at * 4 + 4].copy_from_slice(&word.to_le_bytes());
        }
        bench.ring[0].write(64, &slot);
        bench.turn();
        let mut found = vec![0; 16];
        bench.ring[0].read(64, &mut found);
        let mut want = vec![0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 3, 0, 0, 0];
        want.resize(length, 0);
        assert_eq!(found[..length], want);
    }
}

#[test]
fn each_broken_rule_is_answered_and_counted_and_service_goes_on() {
    let mut bench = Bench::new(&Plan::default());
    bench.guest.page(1, 0);
    let end = SECTORS as u64;
    let backwards = Segment { reference: GrantRef(1), first_sector: 5, last_sector: 4 };
    let outside = Segment { reference: GrantRef(1), first_sector: 0, last_sector: 8 };
    let requests = [
        read(1, end - 7, whole([1])),
        read(2, u64::MAX, whole([1])),
        read(3, 0, Segments::new()),
        read(4, 0, Segments::from_iter([backwards])),
        read(5, 0, Segments::from_iter([outside])),
        Request::discard(6, end, 1),
        Request::discard(7, 1, u64::MAX),
        read(8, end - 8, whole([1])),
    ];
    let mut want = [Status::Error; 8];
    want[7] = Status::Okay;
    assert_eq!(bench.carry_out(&requests), want);
    let errors = bench.session.counters().errors;
    let count = |reason: Reason| errors[Fault::Rejected(reason).index()];
    assert_eq!((count(Reason::PastTheEnd), count(Reason::Empty)), (4, 1));
    assert_eq!(count(Reason::BadSegment), 2);
}

#[test]
fn unknown_operations_are_answered_as_unsupported() {
    let mut bench = Bench::new(&Plan::default());
    for operation in (0..=u8::MAX).filter(|it| ![0, 1, 3, 5, INDIRECT].contains(it)) {
        let mut words = Request::flush(u64::from(operation)).words(Abi::X86_64, 0).to_vec();
        words[0] = u32::from_le_bytes([operation, 0, 0, 0]);
        bench.front.put(&words).unwrap();
        let _ = bench.front.publish();
        bench.turn();
        let answer = bench.front.take(Response::parse).unwrap().unwrap();
        assert_eq!((answer.operation, answer.status), (operation, Status::Unsupported));
    }
}

#[test]
fn a_fault_is_said_once_however_often_its_front_connects() {
    let mut past = Past::default();
    let mut errors = 0;
    let lines = crate::said::lines(|| {
        for _ in 0..50 {
            let mut bench = Bench::with(&Plan::default(), past);
            let requests = [read(1, u64::MAX, whole([1])), read(2, 0, whole([2]))];
            assert_eq!(bench.carry_out(&requests), [Status::Error; 2]);
            errors += bench.session.counters().errors.iter().sum::<u64>();
            past = bench.session.past();
        }
    });
    assert_eq!((errors, lines), (100, 2), "a range past the end, and a grant that is none");
}

#[test]
fn xsa_367_a_list_of_mapped_pages_that_is_too_short_fails_who_is_not_on_it() {
    let mut bench = Bench::new(&Plan::default());
    (0..6).for_each(|it| drop(bench.guest.page(it, 5)));
    bench.guest.short.store(true, Ordering::Relaxed);
    let requests = [write(1, 0, whole([0, 1])), write(2, 64, whole([2, 3]))];
    assert_eq!(bench.carry_out(&requests), [Status::Okay, Status::Error]);
    bench.guest.short.store(false, Ordering::Relaxed);
    assert_eq!(bench.carry_out(&requests), [Status::Okay; 2]);
    drop(bench.session);
    assert_eq!(bench.guest.mapped(), 0);
}
