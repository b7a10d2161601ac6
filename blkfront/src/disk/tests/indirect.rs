//! Requests that are longer than a slot has room for.

use super::*;

const OFFERED: [(&str, &str); 2] =
    [("feature-max-indirect-segments", "256"), ("feature-flush-cache", "1")];
const LONG: usize = 32 * 4096;

/// Takes the next request, which must be an indirect one, and answers it.
fn answered(scene: &mut Scene) -> Raw {
    let raw = scene.back.take().unwrap();
    assert!(raw.indirect.is_some());
    scene.back.answer(raw.id, raw.count, Status::Okay);
    raw
}

#[test]
fn a_long_buffer_goes_as_one_request_and_its_data_is_where_the_descriptors_say() {
    let mut scene = scene_with(70, &OFFERED);
    assert_eq!(scene.disk().buffer_bytes_max(), LONG);
    assert!(scene.disk().buffer(LONG + 512).is_none());
    for round in 0..3 {
        let buffer = scene.disk().buffer(LONG - 512).unwrap();
        (0..32).for_each(|page| buffer.write(page * 4096, &[round, u8::try_from(page).unwrap()]));
        let tag = scene.disk().submit(Operation::Write, 5, buffer).unwrap();
        scene.disk().kick();
        let raw = answered(&mut scene);
        assert_eq!((raw.operation, raw.count, raw.sector), (6, 1, 5));
        assert_eq!(raw.segments.len(), 32);
        assert_eq!((raw.segments[31].first_sector, raw.segments[31].last_sector), (0, 6));
        for page in 0..32 {
            let mut seen = [0; 2];
            scene.back.page(&raw, page).read(0, &mut seen);
            assert_eq!(seen, [round, u8::try_from(page).unwrap()]);
        }
        let done = scene.disk().poll().unwrap().unwrap();
        assert_eq!((done.tag, done.operation, done.status), (tag, Operation::Write, Status::Okay));
        assert_eq!(done.buffer.unwrap().length_bytes(), LONG - 512);
    }
    assert_eq!(scene.disk().counters().requests, 3);
}

#[test]
fn without_an_offer_nothing_is_longer_than_eleven_pages() {
    for offer in ["0", "5", "11"] {
        let mut scene = scene_with(70, &[("feature-max-indirect-segments", offer)]);
        assert_eq!(scene.disk().buffer_bytes_max(), 11 * 4096);
        assert!(scene.disk().buffer(11 * 4096 + 512).is_none());
        for at in 0..12 {
            scene.submit(Operation::Read, at * 8, 4096);
        }
        scene.disk().kick();
        let (first, second) = (scene.back.take().unwrap(), scene.back.take().unwrap());
        assert_eq!((first.operation, first.segments.len()), (0, 11));
        assert_eq!((second.operation, second.segments.len()), (0, 1));
    }
}

#[test]
fn a_back_that_offers_less_than_we_could_use_gets_no_more() {
    let mut scene = scene_with(70, &[("feature-max-indirect-segments", "14")]);
    assert_eq!(scene.disk().buffer_bytes_max(), 14 * 4096);
    assert!(scene.disk().buffer(15 * 4096).is_none());
    scene.submit(Operation::Read, 0, 14 * 4096);
    scene.submit(Operation::Read, 14 * 8, 4096);
    scene.disk().kick();
    assert_eq!(answered(&mut scene).segments.len(), 14);
    assert_eq!(scene.back.take().unwrap().segments.len(), 1);
}

#[test]
fn neighbours_become_one_long_request_and_each_completes() {
    let mut scene = scene_with(70, &OFFERED);
    let tags: Vec<Tag> = (0..33).map(|at| scene.submit(Operation::Read, at * 8, 4096)).collect();
    scene.disk().kick();
    assert_eq!(answered(&mut scene).segments.len(), 32);
    let last = scene.back.take().unwrap();
    assert_eq!((last.operation, last.segments.len()), (0, 1));
    scene.back.answer(last.id, 0, Status::Okay);
    for tag in tags {
        let done = scene.disk().poll().unwrap().unwrap();
        assert_eq!((done.tag, done.status), (tag, Status::Okay));
    }
    assert_eq!(scene.disk().in_flight(), 0);
}

#[test]
fn as_many_as_the_pool_carries_are_in_flight_and_none_has_the_descriptors_of_another() {
    // More than 12 pages each that the pool has and the ring could do with.
    for (pool, pages, count) in [(12, 12, 1), (13, 13, 1), (40, 12, 3), (40, 13, 3), (480, 15, 32)]
    {
        let mut scene = scene_with(pool, &OFFERED);
        for _ in 0..3 {
            for at in 0..count {
                // Not neighbours of each other.
                scene.submit(Operation::Read, at * 512 % 1792, pages * 4096);
            }
            assert_eq!(scene.disk().free_pages(), pool - pages * usize::try_from(count).unwrap());
            scene.disk().kick();
            assert_eq!(scene.disk().unsent(), 0);
            let raws: Vec<Raw> = (0..count).map(|_| scene.back.take().unwrap()).collect();
            let mut seen: Vec<_> =
                raws.iter().map(|raw| raw.indirect.unwrap().descriptors).collect();
            seen.extend(raws.iter().flat_map(|raw| &raw.segments).map(|it| it.reference));
            let all = seen.len();
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(seen.len(), all);
            for raw in &raws {
                scene.back.answer(raw.id, raw.count, Status::Okay);
                drop(scene.disk().poll().unwrap().unwrap());
            }
        }
    }
}

#[test]
fn a_pool_too_small_for_a_long_request_has_no_pages_for_descriptors() {
    let mut scene = scene_with(11, &OFFERED);
    assert_eq!(scene.disk().buffer_bytes_max(), 11 * 4096);
    // The ring, and the pool.
    assert_eq!(scene.grants.granted(), 1 + 11);
}

#[test]
fn the_answer_to_a_long_request_names_what_was_asked_for() {
    for (operation, fault) in [(0, None), (1, Some(1)), (6, Some(6))] {
        let mut scene = scene_with(40, &OFFERED);
        scene.submit(Operation::Read, 0, LONG);
        scene.disk().kick();
        let raw = scene.back.take().unwrap();
        scene.back.answer(raw.id, operation, Status::Okay);
        let answer = scene.disk().poll();
        match fault {
            None => assert!(answer.unwrap().is_some()),
            Some(answered) => {
                assert_eq!(answer.unwrap_err(), Fault::WrongOperation { answered });
            }
        }
    }
}

#[test]
fn a_flush_with_data_fits_a_slot_or_is_refused() {
    let mut scene = scene_with(40, &OFFERED);
    let refusal = scene.refusal(Operation::Flush, 0, LONG);
    assert_eq!(refusal, SubmitError::Unlawful(Reason::NotIndirect));
    scene.submit(Operation::Flush, 0, 11 * 4096);
    scene.disk().kick();
    assert_eq!(scene.back.take().unwrap().operation, 3);
}

#[test]
fn what_the_back_writes_into_the_descriptors_harms_no_other_request() {
    let mut scene = scene_with(70, &OFFERED);
    scene.submit(Operation::Write, 0, LONG);
    scene.disk().kick();
    let raw = answered(&mut scene);
    let descriptors = raw.indirect.unwrap().descriptors;
    scene.grants.map(descriptors).write(0, &[0xff; 4096]);
    drop(scene.disk().poll().unwrap().unwrap());
    scene.submit(Operation::Write, 0, LONG);
    scene.disk().kick();
    let again = answered(&mut scene);
    assert_eq!(again.indirect.unwrap().descriptors, descriptors, "the same page is used again");
    assert!(again.segments.iter().all(|it| it.first_sector == 0 && it.last_sector == 7));
}
