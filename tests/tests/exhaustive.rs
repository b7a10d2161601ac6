//! Every value of the small fields of a request and every boundary of the large ones, against the
//! oracle: what is quick. `cargo xtask torture` runs the rest, with all 2^32 indexes of a ring.

use tests::oracle::{EOPNOTSUPP, ERROR, Terms, judge};
use tests::torture::fields;
use tests::torture::indexes::{Side, positions};

#[test]
fn every_operation_with_every_number_of_segments() {
    assert_eq!(fields::operations_and_counts(fields::all_terms().step_by(13)), 5 * 65_536);
}

#[test]
fn every_pair_of_ends_in_a_middle_and_the_last_segment() {
    assert_eq!(fields::ends([5, 10].into_iter(), &[1]), 2 * 3 * 2 * 65_536);
}

#[test]
fn every_indirect_operation_with_numbers_of_segments_up_to_more_than_a_page_has() {
    assert_eq!(fields::indirect_operations_and_counts(0..600), 2 * 256 * 600);
}

#[test]
fn every_pair_of_ends_in_the_last_descriptor() {
    assert_eq!(fields::indirect_ends([31].into_iter(), &[1]), 2 * 2 * 65_536);
}

#[test]
fn boundaries_of_sector_length_and_capacity_all_with_all() {
    let some = [9, 1 << 32, 1 << 54];
    assert!(some.into_iter().all(|capacity| fields::capacities().any(|it| it == capacity)));
    assert_eq!(fields::sectors_and_capacities(some.into_iter()), 3 * 4 * 224 * (12 + 224));
}

#[test]
fn every_pair_of_boundary_values_of_every_pair_of_fields() {
    assert!(fields::pairs(fields::all_terms().step_by(7)) > 50_000);
}

#[test]
fn every_pair_of_ends_at_a_boundary_in_two_segments() {
    assert_eq!(fields::ends_in_pairs(), 4 * 7 * 81 * 81);
}

#[test]
fn indexes_near_every_place_where_something_changes() {
    for position in positions(20) {
        let near = |at: u32| at.saturating_sub(100)..=at.saturating_add(100);
        for around in [0, position.consumed, position.consumed ^ (1 << 31), u32::MAX] {
            position.try_all(near(around));
        }
        // From the last index before the ring to the first after it, over the wrap if it is there.
        let last = position.consumed.wrapping_add(40);
        let believed = if last < position.consumed {
            position.try_all(position.consumed..=u32::MAX) + position.try_all(0..=last)
        } else {
            position.try_all(position.consumed..=last)
        };
        assert_eq!(believed, position.believable(), "{position:?}");
        assert!(position.side == Side::Back || believed == u64::from(position.busy));
    }
}

/// The oracle is the judge, so what it says is spelt out here for a few requests, by hand.
#[test]
fn the_oracle_reads_the_header_as_a_person_does() {
    let terms = fields::PLAIN;
    let mut slot = [0; 112];
    // READ of one segment: sectors 2 to 4 of the frame behind grant 9, at sector 1021 of 1024.
    (slot[1], slot[8], slot[24], slot[28], slot[29]) = (1, 0x77, 9, 2, 4);
    slot[16..18].copy_from_slice(&1021_u16.to_le_bytes());
    let verdict = judge(&slot, &terms, |_| None);
    assert_eq!((verdict.id, verdict.operation), (0x77, 0));
    let work = verdict.work.expect("lawful");
    assert_eq!((work.sector, work.sectors, work.count, work.segments[0]), (1021, 3, 1, (9, 2, 4)));
    let status = |terms: &Terms, slot: &[u8]| judge(slot, terms, |_| None).work.err();
    assert_eq!(status(&Terms { sectors: 1023, ..terms }, &slot), Some(ERROR), "past the end");
    assert_eq!(status(&Terms { unit: 8, ..terms }, &slot), Some(ERROR), "not aligned");
    slot[0] = 1;
    assert_eq!(status(&Terms { read_only: true, ..terms }, &slot), Some(ERROR), "read only");
    assert_eq!(status(&terms, &slot), None);
    slot[1] = 0;
    assert_eq!(status(&terms, &slot), Some(ERROR), "a write of nothing");
    slot[0] = 3;
    assert_eq!(status(&terms, &slot), None, "an empty flush");
    assert_eq!(status(&Terms { flush: false, ..terms }, &slot), Some(EOPNOTSUPP));
    slot[1] = 12;
    assert_eq!(status(&terms, &slot), Some(ERROR), "12 segments");
    for operation in [2, 4, 255] {
        slot[0] = operation;
        assert_eq!(status(&terms, &slot), Some(EOPNOTSUPP));
    }
    // INDIRECT for a READ of two segments that the page behind grant 7 has, at sector 1018.
    (slot[0], slot[1], slot[2], slot[28], slot[29]) = (6, 0, 2, 7, 0);
    slot[16..18].copy_from_slice(&1018_u16.to_le_bytes());
    assert_eq!(status(&terms, &slot), Some(ERROR), "no such page");
    assert_eq!(status(&Terms { indirect: 0, ..terms }, &slot), Some(EOPNOTSUPP));
    let mut page = [0; 256];
    (page[0], page[4], page[5], page[8], page[13]) = (9, 2, 4, 10, 2);
    let judged = |slot: &[u8]| judge(slot, &terms, |it| (it == 7).then_some(&page[..]));
    let verdict = judged(&slot);
    assert_eq!((verdict.id, verdict.operation), (0x77, 0), "the answer is for a READ");
    let work = verdict.work.expect("lawful");
    assert_eq!((work.sectors, work.count, work.segments[1]), (6, 2, (10, 0, 2)));
    for (operation, count) in [(3, 2), (5, 2), (6, 2), (0, 0), (0, 33)] {
        (slot[1], slot[2]) = (operation, count);
        assert_eq!(judged(&slot).work, Err(ERROR), "{operation} {count}");
    }
}
