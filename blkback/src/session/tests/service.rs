//! What an honest front gets.

use blkif::{DIRECT_SEGMENTS_MAX, Segment, Segments, Status};
use xen::GrantRef;

use super::bench::*;
use crate::disk::{MemoryDisk, Verb};
use crate::session::*;

#[test]
fn eleven_pages_are_written_and_read_back_in_every_shape_of_connection() {
    for plan in shapes() {
        let mut bench = Bench::new(&plan);
        for reference in 0..11 {
            bench.guest.page(100 + reference, 1 + u8::try_from(reference).unwrap());
            bench.guest.page(200 + reference, 0);
        }
        let done = bench.carry_out(&[write(1, 80, whole(100..111))]);
        assert_eq!(done, [Status::Okay]);
        let done = bench.carry_out(&[read(2, 80, whole(200..211))]);
        assert_eq!(done, [Status::Okay]);
        for at in 0..11 {
            let value = 1 + u8::try_from(at).unwrap();
            assert!(bytes(&bench.guest.page(200 + at, 0)) == vec![value; 4096]);
            let start = (80 + at as usize * 8) * 512;
            assert!(bench.disk().memory.bytes()[start..start + 4096] == [value; 4096]);
        }
        assert_eq!(bench.session.counters().errors, [0; Fault::COUNT]);
    }
}

#[test]
fn a_part_of_a_page_is_written_and_the_rest_of_a_page_that_is_read_into_stays() {
    for plan in shapes() {
        let mut bench = Bench::new(&plan);
        bench.guest.page(1, 0x11);
        let page = bench.guest.page(2, 0x22);
        let part = |reference| {
            Segments::from_iter([Segment {
                reference: GrantRef(reference),
                first_sector: 2,
                last_sector: 4,
            }])
        };
        assert_eq!(bench.carry_out(&[write(1, 7, part(1))]), [Status::Okay]);
        let want = [vec![0; 7 * 512], vec![0x11; 3 * 512], vec![0; 512]].concat();
        assert!(bench.disk().memory.bytes()[..11 * 512] == want);
        assert_eq!(bench.carry_out(&[read(2, 7, part(2))]), [Status::Okay]);
        let want = [vec![0x22; 1024], vec![0x11; 1536], vec![0x22; 1536]].concat();
        assert!(bytes(&page) == want);
    }
}

#[test]
fn a_disk_grows_under_requests_in_flight_and_never_shrinks() {
    let mut bench = Bench::new(&Plan::default());
    (1..4).for_each(|it| drop(bench.guest.page(it, 7)));
    let end = SECTORS as u64;
    bench.disk().held = Some(Vec::new());
    bench.send(&[write(1, 0, whole([1])), write(2, end, whole([2]))]);
    bench.turn();
    assert_eq!(bench.answers(), [(2, Status::Error)]);
    bench.disk().memory = MemoryDisk::new(SECTORS + 8).unwrap();
    bench.session.grow(end + 8);
    bench.session.grow(end);
    bench.send(&[write(3, end, whole([3])), write(4, end + 1, whole([2]))]);
    bench.turn();
    assert_eq!(bench.answers(), [(4, Status::Error)]);
    for id in [1, 3] {
        bench.disk().release(0);
        bench.turn();
        assert_eq!(bench.answers(), [(id, Status::Okay)]);
    }
    assert!(bench.disk().memory.bytes()[SECTORS * 512..] == [7; 4096]);
}

#[test]
fn the_ring_goes_round_many_times_and_every_request_is_answered_once() {
    for plan in shapes() {
        let mut bench = Bench::new(&plan);
        let slots = plan.abi.layout(plan.order).slots();
        for reference in 0..slots {
            bench.guest.page(reference, 0);
        }
        for round in 0..7 {
            let count = slots - round * 3;
            let requests: Vec<_> = (0..count)
                .map(|it| write(it.into(), u64::from(it) * 8 % 4000, whole([it])))
                .collect();
            assert_eq!(bench.carry_out(&requests), vec![Status::Okay; count as usize]);
        }
    }
}

#[test]
fn kept_pages_are_mapped_once_and_nothing_is_mapped_for_a_front_that_keeps_none() {
    for plan in shapes() {
        let mut bench = Bench::new(&plan);
        let ring_pages = bench.guest.mapped();
        for reference in 0..11 {
            bench.guest.page(reference, 0);
        }
        for _ in 0..5 {
            let requests = [write(1, 0, whole(0..11)), read(2, 0, whole(0..11))];
            assert_eq!(bench.carry_out(&requests), [Status::Okay; 2]);
        }
        let counters = bench.session.counters().clone();
        if plan.persistent {
            assert_eq!((counters.map_calls, counters.pages_mapped), (1, 11));
            assert_eq!((counters.copies, bench.guest.mapped()), (0, ring_pages + 11));
        } else {
            assert_eq!((counters.map_calls, bench.guest.mapped()), (0, ring_pages));
            assert_eq!((counters.copies, counters.copy_calls), (5 * 22, 5 * 2));
        }
        drop(bench.session);
        assert_eq!(bench.guest.mapped.load(std::sync::atomic::Ordering::Relaxed), 0);
    }
}

#[test]
fn a_batch_costs_one_notification_and_none_if_the_front_is_awake() {
    let mut bench = Bench::new(&Plan::default());
    (0..32).for_each(|it| drop(bench.guest.page(it, 0)));
    let requests: Vec<_> =
        (0..32).map(|it| read(it.into(), u64::from(it) * 16, whole([it]))).collect();
    bench.send(&requests);
    bench.turn();
    assert_eq!((bench.bells.rung(), bench.session.counters().batches), (1, 1));
    // The front has taken nothing and not asked again: it is awake.
    let mut taken = 0;
    while bench.front.take(Response::parse).unwrap().is_some() {
        taken += 1;
    }
    assert_eq!(taken, 32);
    bench.send(&requests[..4]);
    bench.turn();
    assert_eq!(bench.bells.rung(), 1);
}

#[test]
fn neighbours_in_a_batch_are_one_job_up_to_the_limit() {
    let mut bench = Bench::new(&Plan::default());
    (0..400).for_each(|it| drop(bench.guest.page(it, 0)));
    let pages = DIRECT_SEGMENTS_MAX as u64;
    let requests: Vec<_> = (0..32)
        .map(|it: u32| write(it.into(), u64::from(it) * pages * 8, whole(it * 11..it * 11 + 11)))
        .collect();
    assert_eq!(bench.carry_out(&requests), [Status::Okay; 32]);
    let most = (MERGED_EXTENTS_MAX / DIRECT_SEGMENTS_MAX) as u64 * pages * 8;
    let all = 32 * pages * 8;
    let want = [(Verb::Write, 0, most), (Verb::Write, most, all - most)];
    assert_eq!(bench.disk().log, want);
    assert_eq!(bench.session.counters().merged, 30);
}

#[test]
fn requests_that_are_no_neighbours_are_jobs_of_their_own_in_order_of_arrival() {
    let mut bench = Bench::new(&Plan::default());
    (0..8).for_each(|it| drop(bench.guest.page(it, 0)));
    let requests = [
        write(1, 8, whole([1])),
        write(2, 0, whole([2])),
        read(3, 8, whole([3])),
        write(4, 16, whole([4])),
        write(5, 32, whole([5])),
    ];
    assert_eq!(bench.carry_out(&requests), [Status::Okay; 5]);
    let sectors: Vec<u64> = bench.disk().log.iter().map(|job| job.1).collect();
    assert_eq!(sectors, [8, 0, 8, 16, 32]);
}

#[test]
fn a_discard_reaches_the_disk() {
    let mut bench = Bench::new(&Plan::default());
    bench.disk().memory.bytes_mut().fill(7);
    assert_eq!(bench.carry_out(&[Request::discard(1, 8, 16)]), [Status::Okay]);
    let bytes = bench.disk().memory.bytes();
    assert!(bytes[8 * 512..24 * 512] == [0; 16 * 512]);
    assert!(bytes[..8 * 512] == [7; 8 * 512] && bytes[24 * 512..32 * 512] == [7; 8 * 512]);
}

#[test]
fn a_session_holds_no_more_after_many_requests_than_after_a_few() {
    for plan in shapes() {
        let mut bench = Bench::new(&plan);
        (0..32).for_each(|it| drop(bench.guest.page(it, 0)));
        let slots = plan.abi.layout(plan.order).slots() as usize;
        for _ in 0..10 {
            // Neighbours, strangers, and what has no memory at all.
            let next = (0..8).map(|it| write(it.into(), u64::from(it) * 8, whole([it])));
            let far = (8..24).map(|it| read(it.into(), u64::from(it) * 100, whole([it])));
            let requests: Vec<_> = next.chain(far).chain([Request::flush(99)]).collect();
            assert_eq!(bench.carry_out(&requests), [Status::Okay; 25]);
        }
        assert!(bench.session.pages.spares() <= slots, "{} lists", bench.session.pages.spares());
    }
}
