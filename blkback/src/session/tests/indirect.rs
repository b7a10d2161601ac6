//! Requests whose segments are in a page of their own, of which nothing is true either.

use blkif::{Abi, Indirect, Raw, Reason, SEGMENTS_MAX, Segment, Status};
use ring::{Memory, Page};
use xen::GrantRef;

use super::bench::*;
use crate::session::*;

const PAGES: u32 = blkif::INDIRECT_MAX as u32;

/// A guest with pages from `first` on, each filled with its own value.
fn fill(bench: &Bench, first: u32) {
    (0..PAGES).for_each(|it| drop(bench.guest.page(first + it, 1 + u8::try_from(it).unwrap())));
}

/// A bench for every shape of a connection, whose guest has pages from 0 on.
fn benches() -> impl Iterator<Item = Bench> {
    shapes().map(|plan| {
        let bench = Bench::new(&plan);
        fill(&bench, 0);
        bench
    })
}

#[test]
fn as_many_pages_as_were_agreed_on_are_written_and_read_back_in_every_shape_of_connection() {
    for plan in shapes() {
        for count in [12, PAGES] {
            let mut bench = Bench::new(&plan);
            fill(&bench, 100);
            (0..count).for_each(|it| drop(bench.guest.page(200 + it, 0)));
            let requests = [write(1, 80, whole(100..100 + count))];
            assert_eq!(bench.carry_out(&requests), [Status::Okay]);
            let requests = [read(2, 80, whole(200..200 + count))];
            assert_eq!(bench.carry_out(&requests), [Status::Okay]);
            for at in 0..count {
                let value = 1 + u8::try_from(at).unwrap();
                assert!(bytes(&bench.guest.page(200 + at, 0)) == vec![value; 4096], "{at}");
            }
            assert_eq!(bench.session.counters().errors, [0; Fault::COUNT]);
        }
    }
}

#[test]
fn the_answer_names_what_was_asked_for_and_not_that_it_was_indirect() {
    for mut bench in benches() {
        bench.guest.refused.lock().unwrap().insert(GrantRef(described(3)));
        let past_the_end = write(2, SECTORS as u64, whole(0..12));
        bench.send(&[read(1, 0, whole(0..12)), past_the_end, write(3, 0, whole(0..12))]);
        bench.turn();
        let mut answers = Vec::new();
        while let Some(Response { id, operation, status }) =
            bench.front.take(Response::parse).unwrap()
        {
            answers.push((id, operation, status));
        }
        answers.sort_by_key(|answer| answer.0);
        let want = [(1, 0, Status::Okay), (2, 1, Status::Error), (3, 1, Status::Error)];
        assert_eq!(answers, want);
    }
}

#[test]
fn without_an_agreement_it_is_not_supported_and_its_page_is_not_looked_at() {
    let mut bench = Bench::new(&Plan::default());
    bench.session.agreed.indirect_max = 0;
    fill(&bench, 0);
    assert_eq!(bench.carry_out(&[read(1, 0, whole(0..12))]), [Status::Unsupported]);
    let counters = bench.session.counters();
    assert_eq!((counters.map_calls, counters.copy_calls), (0, 0));
}

#[test]
fn descriptors_that_cannot_be_had_and_bad_ones_cost_their_own_request_only() {
    for mut bench in benches() {
        let requests =
            [write(1, 0, whole(0..12)), write(2, 512, whole(12..30)), write(3, 1024, whole([30]))];
        bench.guest.refused.lock().unwrap().insert(GrantRef(described(2)));
        let alone = [Status::Okay, Status::Error, Status::Okay];
        assert_eq!(bench.carry_out(&requests), alone);
        assert_eq!(bench.session.counters().errors[Fault::Grant.index()], 1);
        bench.guest.refused.lock().unwrap().clear();
        // One of the pages that they name.
        bench.guest.refused.lock().unwrap().insert(GrantRef(17));
        assert_eq!(bench.carry_out(&requests), alone);
        bench.guest.refused.lock().unwrap().clear();
        let mut bad = requests.clone();
        bad[1].segments[17].first_sector = 8;
        assert_eq!(bench.carry_out(&bad), alone);
        let fault = Fault::Rejected(Reason::BadSegment);
        assert_eq!(bench.session.counters().errors[fault.index()], 1);
        assert!(bench.disk().memory.bytes()[512 * 512..1024 * 512].iter().all(|&it| it == 0));
        assert_eq!(bench.carry_out(&requests), [Status::Okay; 3]);
    }
}

#[test]
fn what_is_written_into_the_descriptors_after_they_were_read_changes_nothing() {
    for mut bench in benches() {
        (100..112).for_each(|it| drop(bench.guest.page(it, 0xee)));
        bench.disk().held = Some(Vec::new());
        bench.send(&[read(1, 0, whole(0..12)), write(2, 512, whole(0..12))]);
        bench.turn();
        for id in [1, 2] {
            write(id, 0, whole(100..112)).describe(&*bench.guest.page(described(id), 0));
        }
        (0..2).for_each(|_| bench.disk().release(0));
        bench.turn();
        assert_eq!(bench.answers(), [(1, Status::Okay), (2, Status::Okay)]);
        // Zeros from the disk came where the request said, and nowhere else.
        assert!(bytes(&bench.guest.page(3, 0)) == vec![0; 4096]);
        assert!(bytes(&bench.guest.page(103, 0)) == vec![0xee; 4096]);
    }
}

#[test]
fn each_word_of_the_descriptors_is_fetched_once() {
    /// A page that is another one after each look.
    struct Once(Page, std::cell::RefCell<Vec<usize>>);

    impl Memory for Once {
        fn words(&self) -> usize {
            ring::PAGE_WORDS
        }

        fn word(&self, index: usize) -> &ring::sync::AtomicU32 {
            self.1.borrow_mut().push(index);
            self.0.word(index)
        }
    }

    for count in 0..=SEGMENTS_MAX {
        let page = Once(Page::new(), Default::default());
        let segments = blkif::segments_in(&page, u16::try_from(count).unwrap());
        assert_eq!(segments.len(), count);
        assert_eq!(*page.1.borrow(), (0..2 * count).collect::<Vec<_>>());
    }
}

#[test]
fn a_page_may_be_data_of_one_request_and_the_descriptors_of_another() {
    for mut bench in benches() {
        let reference = described(1);
        let first = [read(1, 0, whole(0..12)), write(2, 512, whole([reference]))];
        assert_eq!(bench.carry_out(&first), [Status::Okay; 2]);
        let mut want = Page::new();
        first[0].describe(&want);
        let start = 512 * 512;
        assert!(bench.disk().memory.bytes()[start..start + 4096] == bytes(&want));
        // Into the page that said where to.
        want = Page::new();
        assert_eq!(bench.carry_out(&[read(3, 2048, whole([reference]))]), [Status::Okay]);
        assert!(bytes(&bench.guest.page(reference, 0)) == bytes(&want));
    }
}

#[test]
fn descriptors_that_were_granted_to_be_read_only_are_read() {
    for mut bench in benches() {
        bench.guest.read_only.lock().unwrap().insert(GrantRef(described(1)));
        assert_eq!(bench.carry_out(&[read(1, 0, whole(0..12))]), [Status::Okay]);
    }
}

#[test]
fn a_front_that_never_uses_a_page_of_descriptors_twice_keeps_the_mappings_bounded() {
    let mut bench = Bench::new(&Plan::default());
    fill(&bench, 0);
    for round in 0..20 {
        let requests: Vec<_> =
            (0..32).map(|it| read(round * 32 + it, 0, whole(0..PAGES))).collect();
        assert_eq!(bench.carry_out(&requests), [Status::Okay; 32]);
        // The ring, the data, and as many descriptors as there are requests.
        let mapped = bench.guest.mapped();
        assert!(mapped <= 1 + SEGMENTS_MAX + 32, "{mapped} mapped");
    }
    drop(bench.session);
    assert_eq!(bench.guest.mapped(), 0);
}

#[test]
fn a_full_ring_of_the_longest_requests_is_taken_in_parts_and_all_are_answered() {
    for persistent in [true, false] {
        let mut bench = Bench::new(&Plan { order: 4, persistent, ..Plan::default() });
        fill(&bench, 0);
        bench.disk().held = Some(Vec::new());
        let requests: Vec<_> = (0..512).map(|id| read(id, 0, whole(0..PAGES))).collect();
        bench.send(&requests);
        bench.session.stop_taking();
        let mut answers = Vec::new();
        while answers.len() < 512 {
            assert_eq!(bench.turn(), Turn::Idle, "it waits for the disk");
            let in_flight = bench.session.pending() * SEGMENTS_MAX;
            assert!(in_flight <= PAGES_IN_FLIGHT_MAX, "{in_flight} pages in flight");
            let held = bench.disk().held.as_ref().unwrap().len();
            assert!(held > 0, "{} answers and nothing at the disk", answers.len());
            (0..held).for_each(|_| bench.disk().release(0));
            bench.turn();
            answers.extend(bench.answers());
        }
        answers.sort_unstable_by_key(|answer| answer.0);
        assert!(answers.iter().zip(0..).all(|(answer, id)| *answer == (id, Status::Okay)));
        // What comes after the last that was to be taken is not.
        bench.send(&[read(1, 0, whole([0]))]);
        assert_eq!(bench.turn(), Turn::Idle);
        assert_eq!((bench.session.pending(), bench.session.pages_in_flight), (0, 0));
    }
}

#[test]
fn nothing_stays_on_the_ring_when_the_disk_does_all_at_once() {
    let mut bench = Bench::new(&Plan { order: 4, ..Plan::default() });
    fill(&bench, 0);
    let requests: Vec<_> = (0..512).map(|id| read(id, 0, whole(0..PAGES))).collect();
    bench.send(&requests);
    // Nobody wakes it any more: the front has sent its event, and the disk has nothing to end.
    while bench.turn() == Turn::Again {}
    assert_eq!(bench.answers().len(), 512);
}

#[test]
fn in_steady_state_no_grant_is_mapped_or_copied_for_kept_grants() {
    let mut bench = Bench::new(&Plan::default());
    fill(&bench, 0);
    let requests = [read(1, 0, whole(0..PAGES)), write(2, 1024, whole(0..PAGES))];
    assert_eq!(bench.carry_out(&requests), [Status::Okay; 2]);
    let before = bench.session.counters().map_calls;
    assert_eq!(bench.carry_out(&requests), [Status::Okay; 2]);
    let counters = bench.session.counters();
    assert_eq!((counters.map_calls, counters.copy_calls), (before, 0));
}

#[test]
fn a_list_of_mapped_descriptors_that_is_short_harms_nobody() {
    let mut bench = Bench::new(&Plan::default());
    fill(&bench, 0);
    bench.guest.short.store(true, std::sync::atomic::Ordering::Relaxed);
    let requests = [read(1, 0, whole(0..12))];
    assert_eq!(bench.carry_out(&requests), [Status::Error]);
    bench.guest.short.store(false, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(bench.carry_out(&requests), [Status::Okay]);
}

#[test]
fn whatever_the_slot_says_of_descriptors_is_answered_once() {
    for (abi, handle_at) in [(Abi::X86_64, 6), (Abi::X86_32, 5)] {
        for operation in [0, 1, 2, 3, 5, 6, 255] {
            for count in [0, 1, 11, 12, 32, 33, 512, u16::MAX] {
                let mut bench = Bench::new(&Plan { abi, ..Plan::default() });
                fill(&bench, 0);
                let request = read(1, 0, whole([0; SEGMENTS_MAX]));
                let page = bench.guest.page(9_999, 0);
                request.describe(&*page);
                let mut words = request.indirect_words(abi, 7, GrantRef(9_999)).to_vec();
                let [low, high] = count.to_le_bytes();
                words[0] = u32::from_le_bytes([blkif::INDIRECT, operation, low, high]);
                assert_eq!(words[handle_at], 7);
                bench.front.put(&words).unwrap();
                let _ = bench.front.publish();
                bench.turn();
                let lawful = operation <= 1 && (1..=32).contains(&count);
                let status = if lawful { Status::Okay } else { Status::Error };
                assert_eq!(bench.answers(), [(1, status)], "{operation} {count}");
                // What is against the rules is not even looked at.
                let looked = bench.session.counters().map_calls > 0;
                assert_eq!(looked, lawful);
            }
        }
    }
}

#[test]
fn where_descriptors_are_comes_off_the_wire_as_it_was_written() {
    let mut bench = Bench::new(&Plan::default());
    fill(&bench, 0);
    let request = read(1, 0, whole(0..12));
    let part = Segment { first_sector: 2, ..request.segments[0] };
    let mut request = request;
    request.segments[0] = part;
    bench.send(&[request.clone()]);
    let mut raw = Raw::new();
    bench.session.ring.take(&mut raw).unwrap().unwrap();
    let descriptors = GrantRef(described(1));
    assert_eq!(raw.indirect, Some(Indirect { count: 12, descriptors }));
    let mut counters = Counters::default();
    let segments = bench.session.pages.describe(raw.indirect.unwrap(), &mut counters).unwrap();
    assert_eq!(segments, request.segments);
}
