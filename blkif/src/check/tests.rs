//! Every rule of the check, at its limit and one past it, and then any bytes at all.

extern crate std;
use std::boxed::Box;

use ring::{Back, Front, Memory, Page};
use xen::GrantRef;

use super::*;
use crate::{
    Abi, Discard, Features, INDIRECT, Info, SECTORS_MAX, SEGMENTS_MAX, Segment, segments_in,
};

fn disk(sectors: u64) -> Geometry {
    Geometry::new(sectors).unwrap()
}

fn agreed(features: Features) -> Agreed {
    let discard = Discard { granularity_bytes: 512, alignment_bytes: 0 };
    Agreed { abi: Abi::X86_64, order: 0, indirect_max: 32, features, discard_limits: discard }
}

fn all() -> Agreed {
    agreed(Features::all())
}

fn raw(operation: u8, sector: u64, pages: u8) -> Raw {
    let segments = (0..pages).map(|it| Segment::whole(GrantRef(it.into()))).collect();
    Raw { operation, count: pages, id: 7, sector, discard_sectors: 0, segments, indirect: None }
}

/// An indirect request for `operation`, with as many segments as it says, as far as that goes.
fn indirect(operation: u8, sector: u64, count: u16) -> Raw {
    let whole = Segment::whole(GrantRef(1));
    let segments = std::iter::repeat_n(whole, usize::from(count).min(SEGMENTS_MAX)).collect();
    let indirect = Some(Indirect { count, descriptors: GrantRef(9) });
    Raw { operation: INDIRECT, count: operation, segments, indirect, ..raw(0, sector, 0) }
}

fn discard(sector: u64, discard_sectors: u64) -> Raw {
    Raw { discard_sectors, ..raw(5, sector, 0) }
}

fn reason(raw: Raw, disk: &Geometry, agreed: &Agreed) -> Option<Reason> {
    let (id, operation) = (raw.id, answered(&raw, agreed));
    let reject = raw.check(disk, agreed).err()?;
    let answer = Response { id, operation, status: reject.reason.status() };
    assert_eq!(reject.response, answer, "an answer names its request");
    Some(reject.reason)
}

/// The operation of the answer: that of the request, and of an indirect one what it asks for.
fn answered(raw: &Raw, agreed: &Agreed) -> u8 {
    let inner = raw.operation == INDIRECT && agreed.indirect_max > 0;
    if inner { raw.count } else { raw.operation }
}

#[test]
fn of_256_operations_four_are_done_and_the_others_are_not_supported() {
    for operation in 0..=u8::MAX {
        let pages = u8::from(operation != 5);
        let request = Raw { discard_sectors: 8, ..raw(operation, 0, pages) };
        let answer = request.check(&disk(8), &all());
        match operation {
            0 | 1 | 3 | 5 => assert_eq!(answer.unwrap().operation.wire(), operation),
            _ => {
                let reject = answer.unwrap_err();
                assert_eq!(reject.reason, Reason::UnknownOperation, "{operation}");
                assert_eq!(reject.response.status, Status::Unsupported);
            }
        }
    }
}

#[test]
fn a_feature_that_was_not_agreed_is_not_supported() {
    let none = agreed(Features::empty());
    for request in [raw(3, 0, 0), raw(3, 0, 1), discard(0, 8)] {
        let reject = request.check(&disk(8), &none).unwrap_err();
        assert_eq!(
            (reject.reason, reject.response.status),
            (Reason::NotAgreed, Status::Unsupported)
        );
    }
    assert_eq!(reason(raw(0, 0, 1), &disk(8), &none), None);
}

#[test]
fn a_read_or_write_has_1_to_11_segments_and_a_flush_0_to_11() {
    let disk = disk(1000);
    for count in 0..=u8::MAX {
        for operation in [0, 1, 3] {
            let request = Raw { count, ..raw(operation, 0, if count > 11 { 0 } else { count }) };
            let expected = match (operation, count) {
                (0 | 1, 0) => Some(Reason::Empty),
                (_, 12..) => Some(Reason::TooManySegments),
                _ => None,
            };
            assert_eq!(reason(request, &disk, &all()), expected, "{operation} {count}");
        }
    }
}

#[test]
fn of_all_indirect_requests_reads_and_writes_of_as_many_segments_as_were_agreed_on_are_taken() {
    for most in [0, 1, 5, 11, 12, 32] {
        let agreed = Agreed { indirect_max: most, ..all() };
        for operation in 0..=u8::MAX {
            let mut request = indirect(operation, 0, 1);
            for count in 0..=u16::MAX {
                request.indirect = Some(Indirect { count, descriptors: GrantRef(9) });
                let taken = operation <= 1 && (1..=u16::from(most)).contains(&count);
                assert_eq!(request.to_fetch(&agreed), request.indirect.filter(|_| taken));
            }
            for count in [0, 1, 5, 6, 11, 12, 13, 32, 33, 256, 512, u16::MAX] {
                let expected = match (operation, count) {
                    _ if most == 0 => Some(Reason::NotAgreed),
                    (2.., _) => Some(Reason::NotIndirect),
                    (_, 0) => Some(Reason::Empty),
                    (_, count) => (count > u16::from(most)).then_some(Reason::TooManySegments),
                };
                let request = indirect(operation, 0, count);
                assert_eq!(reason(request, &disk(1000), &agreed), expected, "{operation} {count}");
            }
        }
    }
}

#[test]
fn an_indirect_request_is_held_against_the_rules_of_a_direct_one() {
    let good = indirect(1, 8, 12);
    assert_eq!(good.clone().check(&disk(104), &all()).unwrap().sectors, 96);
    assert_eq!(reason(good.clone(), &disk(103), &all()), Some(Reason::PastTheEnd));
    assert_eq!(reason(indirect(0, u64::MAX, 12), &disk(104), &all()), Some(Reason::PastTheEnd));
    let sealed = Geometry { info: Info::READ_ONLY, ..disk(104) };
    assert_eq!(reason(good.clone(), &sealed, &all()), Some(Reason::ReadOnly));
    let coarse = Geometry { sector_size: 4096, ..disk(104) };
    assert_eq!(reason(indirect(1, 7, 12), &coarse, &all()), Some(Reason::Unaligned));
    for at in 0..12 {
        let mut bad = good.clone();
        bad.segments[at].last_sector = 8;
        assert_eq!(reason(bad, &disk(104), &all()), Some(Reason::BadSegment), "{at}");
    }
}

#[test]
fn our_own_request_of_more_segments_than_a_slot_holds_is_held_against_what_was_agreed_on() {
    let request = |operation, pages: usize| {
        let segments = std::iter::repeat_n(Segment::whole(GrantRef(1)), pages).collect();
        Raw::from(Request::transfer(7, operation, 0, segments))
    };
    let (none, some) = (Agreed { indirect_max: 0, ..all() }, all());
    for pages in 1..=SEGMENTS_MAX {
        for operation in [Operation::Read, Operation::Write] {
            assert_eq!(reason(request(operation, pages), &disk(256), &some), None);
            let answer = reason(request(operation, pages), &disk(256), &none);
            assert_eq!(answer, (pages > 11).then_some(Reason::NotAgreed), "{pages}");
        }
        let flush = reason(request(Operation::Flush, pages), &disk(256), &some);
        assert_eq!(flush, (pages > 11).then_some(Reason::NotIndirect), "{pages}");
    }
}

#[test]
fn our_own_requests_are_held_against_what_the_other_side_holds_them_against() {
    let disks = [disk(100), Geometry { info: Info::READ_ONLY, sector_size: 4096, ..disk(96) }];
    let terms = [all(), agreed(Features::empty()), Agreed { indirect_max: 12, ..all() }];
    for operation in Operation::ALL {
        for pages in [0, 1, 11, 12, 13, SEGMENTS_MAX] {
            for sector in [0, 3, 4, 8, 88, 95, 96, u64::MAX] {
                for (first_sector, last_sector) in [(0, 7), (1, 7), (0, 3), (0, 8), (5, 4)] {
                    let one = Segment { reference: GrantRef(1), first_sector, last_sector };
                    let segments = std::iter::repeat_n(one, pages).collect();
                    let transfer = Request::transfer(7, operation, sector, segments);
                    let sectors = sector.min(9);
                    for request in [transfer.clone(), Request { sectors, ..transfer }] {
                        for (disk, agreed) in disks.iter().flat_map(|it| terms.map(|all| (it, all)))
                        {
                            let theirs = Raw::from(request.clone());
                            let theirs = theirs
                                .check(disk, &agreed)
                                .map(drop)
                                .map_err(|reject| reject.reason);
                            assert_eq!(request.check(disk, &agreed), theirs, "{request:?}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn each_of_65536_pairs_of_ends_is_taken_only_in_order_and_inside_the_page() {
    let disk = disk(1000);
    for first_sector in 0..=u8::MAX {
        for last_sector in 0..=u8::MAX {
            let mut request = raw(1, 0, 2);
            request.segments[1] = Segment { reference: GrantRef(0), first_sector, last_sector };
            let good = first_sector <= last_sector && last_sector < 8;
            let expected = if good { None } else { Some(Reason::BadSegment) };
            assert_eq!(reason(request, &disk, &all()), expected, "{first_sector} {last_sector}");
        }
    }
}

#[test]
fn the_length_is_that_of_all_segments_together() {
    let mut request = raw(0, 3, 3);
    request.segments[0].first_sector = 7;
    request.segments[2].last_sector = 1;
    let request = request.check(&disk(100), &all()).unwrap();
    assert_eq!((request.sector, request.sectors), (3, 1 + 8 + 2));
}

#[test]
fn the_last_sector_can_be_used_and_the_one_after_it_cannot() {
    let disk = disk(100);
    assert_eq!(reason(raw(0, 92, 1), &disk, &all()), None);
    assert_eq!(reason(raw(0, 93, 1), &disk, &all()), Some(Reason::PastTheEnd));
    assert_eq!(reason(discard(0, 100), &disk, &all()), None);
    assert_eq!(reason(discard(0, 101), &disk, &all()), Some(Reason::PastTheEnd));
    assert_eq!(reason(discard(100, 1), &disk, &all()), Some(Reason::PastTheEnd));
}

#[test]
fn a_range_that_wraps_is_past_the_end() {
    let disk = disk(SECTORS_MAX);
    for sector in [u64::MAX, u64::MAX - 7, u64::MAX - 8, 1 << 63, SECTORS_MAX, SECTORS_MAX - 7] {
        for operation in [0, 1, 3] {
            let answer = reason(raw(operation, sector, 1), &disk, &all());
            assert_eq!(answer, Some(Reason::PastTheEnd), "{sector}");
        }
        assert_eq!(reason(discard(sector, 8), &disk, &all()), Some(Reason::PastTheEnd));
        assert_eq!(reason(discard(8, sector), &disk, &all()), Some(Reason::PastTheEnd));
    }
    assert_eq!(reason(discard(u64::MAX, u64::MAX), &disk, &all()), Some(Reason::PastTheEnd));
    assert_eq!(reason(raw(1, SECTORS_MAX - 8, 1), &disk, &all()), None);
}

#[test]
fn a_disk_of_4096_byte_sectors_takes_only_multiples_of_8() {
    let disk = Geometry { sector_size: 4096, ..disk(100) };
    assert_eq!(reason(raw(0, 8, 1), &disk, &all()), None);
    assert_eq!(reason(raw(0, 4, 1), &disk, &all()), Some(Reason::Unaligned));
    let mut part = raw(0, 8, 2);
    part.segments[0].last_sector = 3;
    part.segments[1].first_sector = 4;
    assert_eq!(reason(part, &disk, &all()), Some(Reason::Unaligned));
    assert_eq!(reason(discard(8, 16), &disk, &all()), None);
    assert_eq!(reason(discard(4, 16), &disk, &all()), Some(Reason::Unaligned));
    assert_eq!(reason(discard(8, 12), &disk, &all()), Some(Reason::Unaligned));
    // Both are off by the same.
    assert_eq!(reason(discard(4, 12), &disk, &all()), Some(Reason::Unaligned));
}

#[test]
fn nothing_that_writes_passes_a_read_only_disk() {
    let disk = Geometry { info: Info::READ_ONLY, ..disk(100) };
    for request in [raw(1, 0, 1), raw(3, 0, 1), discard(0, 8)] {
        assert_eq!(reason(request, &disk, &all()), Some(Reason::ReadOnly));
    }
    assert_eq!(reason(raw(0, 0, 1), &disk, &all()), None);
    assert_eq!(reason(raw(3, 0, 0), &disk, &all()), None);
}

#[test]
fn a_flush_without_data_is_done_wherever_it_points() {
    let raw = raw(3, u64::MAX, 0);
    let request = raw.check(&disk(8), &all()).unwrap();
    assert_eq!(request.kept(), Request::flush(7));
}

#[test]
fn a_discard_of_nothing_is_an_error_and_its_flags_are_passed_over() {
    assert_eq!(reason(discard(0, 0), &disk(8), &all()), Some(Reason::Empty));
    let secure = Raw { count: 1, ..discard(0, 8) };
    assert_eq!(reason(secure, &disk(8), &all()), None);
}

#[test]
fn a_discard_that_carries_segments_is_no_discard() {
    let request = Request::transfer(7, Operation::Discard, 0, raw(1, 0, 1).segments);
    assert_eq!(reason(request.into(), &disk(8), &all()), Some(Reason::TooManySegments));
}

/// Sebastiano Vigna's `SplitMix64`.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Any bytes with a leaning towards what almost makes sense.
fn any_slot(state: &mut u64) -> [u32; 28] {
    core::array::from_fn(|at| {
        let [a, b, c, d, lean, _, _, _] = next(state).to_le_bytes();
        match (at, lean % 8) {
            (0, 1..) => u32::from_le_bytes([a % 7, b % 13, c % 34, d / 250]),
            (1..=6, 1..) => u32::from(if at % 2 == 1 { a & 0x38 } else { a / 128 }),
            (7.., 1..) => u32::from_le_bytes([a % 4, 3 + b % 6, c, d]),
            _ => u32::from_le_bytes([a, b, c, d]),
        }
    })
}

/// A page of descriptors of which most are good.
fn any_page(state: &mut u64) -> Box<Page> {
    let page = Box::new(Page::new());
    for at in 0..SEGMENTS_MAX {
        let [a, b, c, lean, ..] = next(state).to_le_bytes();
        let (first, last) = if lean < 2 { (b, c) } else { (a % 4, 3 + b % 5) };
        page.store_all(2 * at, &[u32::from(a), u32::from_le_bytes([first, last, c, lean])]);
    }
    page
}

#[test]
fn whatever_stands_in_a_slot_becomes_a_lawful_request_or_an_answer() {
    let mut state = 1;
    let (mut lawful, mut described) = (0, 0);
    for round in 0..200_000_u64 {
        let abi = if round % 2 == 0 { Abi::X86_64 } else { Abi::X86_32 };
        let disk = Geometry { sector_size: 512 << (round % 4), ..disk(round % 300) };
        let slot = any_slot(&mut state);
        let page = Box::new(Page::new());
        let mut front = Front::new(&*page, abi.layout(0));
        let mut back = Back::attach(&*page, abi.layout(0));
        front.put(&slot[..abi.slot_words()]).unwrap();
        let _ = front.publish();
        let mut raw = back.take(|reader| Raw::parse(reader, abi)).unwrap().unwrap();
        let indirect_max = if round % 3 == 0 { 0 } else { 32 };
        if let Some(indirect) = raw.to_fetch(&Agreed { indirect_max, ..all() }) {
            let page = any_page(&mut state);
            raw.segments = segments_in(&*page, indirect.count);
        }
        let before = raw.clone();
        let features = Features::from_bits_truncate(u32::from(next(&mut state).to_le_bytes()[0]));
        let agreed = Agreed { indirect_max, ..agreed(features) };
        let answered = answered(&before, &agreed);
        match raw.check(&disk, &agreed) {
            Ok(request) => {
                lawful += 1;
                described += u32::from(before.indirect.is_some());
                assert_eq!((request.id, request.operation.wire()), (before.id, answered));
                assert!(request.sector + request.sectors <= disk.sectors.max(1));
                if request.operation != Operation::Discard {
                    let sum: usize = request.segments.iter().map(|it| it.length_bytes()).sum();
                    assert_eq!(sum as u64, request.sectors * 512);
                }
            }
            Err(reject) => {
                let Response { id, operation, .. } = reject.response;
                assert_eq!((id, operation), (before.id, answered));
            }
        }
    }
    assert!(lawful > 1000, "the generator reaches both outcomes: {lawful}");
    assert!(described > 20, "and indirect requests: {described}");
}

#[test]
fn every_reason_has_a_text_of_its_own_and_only_what_is_not_done_here_is_unsupported() {
    let reasons = [
        Reason::UnknownOperation,
        Reason::NotAgreed,
        Reason::Empty,
        Reason::TooManySegments,
        Reason::BadSegment,
        Reason::Unaligned,
        Reason::PastTheEnd,
        Reason::ReadOnly,
        Reason::NotIndirect,
    ];
    let texts: std::collections::BTreeSet<_> =
        reasons.iter().map(std::string::ToString::to_string).collect();
    assert_eq!(texts.len(), Reason::COUNT);
    assert!(texts.iter().all(|text| !text.is_empty()));
    let unsupported = reasons.iter().filter(|reason| reason.status() == Status::Unsupported);
    assert_eq!(unsupported.count(), 2);
    assert_eq!(Reason::ReadOnly.status(), Status::Error);
}
