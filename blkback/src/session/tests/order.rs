//! Flushes, failures of the disk, and requests that stay in flight.

use blkif::{Operation, Status};

use super::bench::*;
use crate::disk::Verb;
use crate::session::pending::Pending;
use crate::session::*;

fn held() -> Bench {
    let mut bench = Bench::new(&Plan::default());
    (0..32).for_each(|it| drop(bench.guest.page(it, 9)));
    bench.disk().held = Some(Vec::new());
    bench
}

fn verbs(bench: &mut Bench) -> Vec<Verb> {
    bench.disk().held.as_ref().unwrap().iter().map(|job| job.verb).collect()
}

#[test]
fn a_flush_begins_when_the_writes_before_it_have_ended_and_overtakes_none() {
    let mut bench = held();
    bench.send(&[
        write(1, 0, whole([1])),
        read(2, 64, whole([2])),
        Request::flush(3),
        write(4, 128, whole([4])),
    ]);
    bench.turn();
    assert_eq!(verbs(&mut bench), [Verb::Write, Verb::Read, Verb::Write]);
    bench.disk().release(2);
    bench.turn();
    assert_eq!(verbs(&mut bench), [Verb::Write, Verb::Read]);
    bench.disk().release(0);
    bench.turn();
    assert_eq!(verbs(&mut bench), [Verb::Read, Verb::Flush]);
    assert_eq!(bench.answers(), [(4, Status::Okay), (1, Status::Okay)]);
    bench.disk().release(1);
    bench.turn();
    assert_eq!(bench.answers(), [(3, Status::Okay)]);
    bench.disk().release(0);
    bench.turn();
    assert_eq!(bench.answers(), [(2, Status::Okay)]);
}

#[test]
fn flushes_that_wait_share_one_and_none_shares_one_that_has_begun() {
    let mut bench = held();
    bench.send(&[Request::flush(1)]);
    bench.turn();
    bench.send(&[write(2, 0, whole([2])), Request::flush(3), Request::flush(4)]);
    bench.turn();
    assert_eq!(verbs(&mut bench), [Verb::Flush, Verb::Write]);
    bench.disk().release(1);
    bench.turn();
    assert_eq!(verbs(&mut bench), [Verb::Flush]);
    bench.disk().release(0);
    bench.turn();
    assert_eq!(bench.answers(), [(2, Status::Okay), (1, Status::Okay)]);
    assert_eq!(verbs(&mut bench), [Verb::Flush]);
    bench.disk().release(0);
    bench.turn();
    assert_eq!(bench.answers(), [(3, Status::Okay), (4, Status::Okay)]);
}

#[test]
fn a_flush_with_data_flushes_first_and_writes_then() {
    let mut bench = held();
    bench.send(&[Request::transfer(1, Operation::Flush, 8, whole([1])), Request::flush(2)]);
    bench.turn();
    assert_eq!(verbs(&mut bench), [Verb::Flush]);
    bench.disk().release(0);
    bench.turn();
    assert_eq!(verbs(&mut bench), [Verb::Write]);
    bench.disk().release(0);
    bench.turn();
    assert_eq!(verbs(&mut bench), [Verb::Flush]);
    assert_eq!(bench.answers(), [(1, Status::Okay)]);
    bench.disk().release(0);
    bench.turn();
    assert_eq!(bench.answers(), [(2, Status::Okay)]);
    assert!(bench.disk().memory.bytes()[8 * 512..16 * 512] == [9; 4096]);
}

#[test]
fn after_a_failed_flush_nothing_that_writes_succeeds_and_reads_go_on() {
    let mut bench = held();
    bench.disk().fail_flush = true;
    bench.send(&[Request::flush(1), write(2, 0, whole([2])), Request::flush(3)]);
    bench.turn();
    assert_eq!(verbs(&mut bench), [Verb::Write, Verb::Flush]);
    bench.disk().release(1);
    bench.turn();
    assert_eq!(bench.answers(), [(1, Status::Error)]);
    // The disk is well again, as disks are after they have lost something.
    bench.disk().fail_flush = false;
    bench.disk().release(0);
    bench.turn();
    assert_eq!(bench.answers(), [(2, Status::Okay), (3, Status::Error)]);
    bench.disk().held = None;
    let requests = [
        write(4, 0, whole([4])),
        read(5, 0, whole([5])),
        Request::flush(6),
        Request::discard(7, 0, 8),
    ];
    let want = [Status::Error, Status::Okay, Status::Error, Status::Error];
    assert_eq!(bench.carry_out(&requests), want);
    assert!(bench.session.past().failed_flush);
    assert_eq!(bench.session.counters().errors[Fault::FailedFlush.index()], 4);
}

#[test]
fn a_bad_sector_fails_its_request_and_not_the_neighbours_it_was_merged_with() {
    for persistent in [true, false] {
        let mut bench = Bench::new(&Plan { persistent, ..Plan::default() });
        (0..8).for_each(|it| drop(bench.guest.page(it, 3)));
        bench.disk().bad_sectors.insert(20);
        let requests: Vec<_> =
            (0..6).map(|it: u32| write(it.into(), u64::from(it) * 8, whole([it]))).collect();
        let mut want = [Status::Okay; 6];
        want[2] = Status::Error;
        assert_eq!(bench.carry_out(&requests), want);
        assert!(bench.disk().memory.bytes()[24 * 512..48 * 512] == [3; 24 * 512]);
        assert_eq!(bench.session.counters().errors[Fault::Disk.index()], 1);
        // The pages are not mixed up by the second try.
        bench.disk().bad_sectors.clear();
        let requests: Vec<_> =
            (0..6).map(|it: u32| read(it.into(), u64::from(it) * 8, whole([it]))).collect();
        assert_eq!(bench.carry_out(&requests), [Status::Okay; 6]);
    }
}

#[test]
fn memory_that_is_tried_again_is_not_given_to_the_next_request() {
    let mut bench = Bench::new(&Plan { persistent: false, ..Plan::default() });
    (0..8).for_each(|it| drop(bench.guest.page(it, 10 + u8::try_from(it).unwrap())));
    bench.disk().held = Some(Vec::new());
    bench.disk().bad_sectors.insert(0);
    bench.send(&[write(0, 0, whole([0])), write(1, 8, whole([1]))]);
    bench.turn();
    bench.disk().release(0);
    bench.disk().bad_sectors.clear();
    bench.send(&[write(2, 64, whole([2])), write(3, 128, whole([3]))]);
    bench.turn();
    assert_eq!(verbs(&mut bench), [Verb::Write; 4]);
    (0..4).for_each(|_| bench.disk().release(0));
    bench.turn();
    assert_eq!(bench.answers().len(), 4);
    for (at, value) in [(0, 10), (8, 11), (64, 12), (128, 13)] {
        let bytes = &bench.disk().memory.bytes()[at * 512..(at + 8) * 512];
        assert!(bytes == [value; 4096], "sector {at}");
    }
}

#[test]
fn answers_come_as_jobs_end_and_draining_takes_nothing_new() {
    let mut bench = held();
    bench.send(&[read(1, 0, whole([1])), read(2, 64, whole([2]))]);
    bench.turn();
    bench.session.stop_taking();
    bench.turn();
    bench.send(&[read(3, 128, whole([3]))]);
    bench.disk().release(1);
    assert_eq!(bench.turn(), Turn::Idle);
    assert_eq!((bench.answers(), bench.session.pending()), (vec![(2, Status::Okay)], 1));
    bench.disk().release(0);
    bench.turn();
    assert_eq!((bench.answers(), bench.session.pending()), (vec![(1, Status::Okay)], 0));
}

#[test]
fn requests_that_were_visible_before_the_stop_are_taken_and_answered() {
    let mut bench = Bench::new(&Plan::default());
    bench.guest.page(1, 9);
    // The order to stop overtakes the event for the request.
    bench.send(&[read(1, 0, whole([1]))]);
    bench.session.stop_taking();
    assert_eq!(bench.turn(), Turn::Idle);
    assert_eq!((bench.answers(), bench.session.pending()), (vec![(1, Status::Okay)], 0));
}

#[test]
fn a_session_dropped_with_requests_in_flight_unmaps_everything() {
    let mut bench = held();
    bench.send(&[read(1, 0, whole(0..11)), Request::flush(2)]);
    bench.turn();
    assert!(bench.guest.mapped() > 0);
    drop(bench.session);
    assert_eq!(bench.guest.mapped(), 0);
}

#[test]
#[should_panic(expected = "dropped without an answer")]
fn a_request_dropped_without_an_answer_is_our_bug() {
    drop(Pending::<()>::new(Request::flush(1)));
}
