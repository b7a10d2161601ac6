//! The byte rings in one thread: against a queue, from indexes on both sides of the wrap, and
//! against a lying peer.
#![cfg(not(any(loom, miri, narrow)))]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use ring::bytes::{Area, Receiver, Sender};
use ring::{Broken, Index, Memory, PAGE_SIZE, Page};

/// Each area with the words of its consumer and producer index.
const AREAS: [(Area, usize, usize); 4] = [
    (Area::CONSOLE_IN, 3072 / 4, 3076 / 4),
    (Area::CONSOLE_OUT, 3080 / 4, 3084 / 4),
    (Area::STORE_REQUESTS, 2048 / 4, 2052 / 4),
    (Area::STORE_REPLIES, 2056 / 4, 2060 / 4),
];

fn poke(page: &Page, word: usize, value: u32) {
    page.word(word).store(value, Ordering::Relaxed);
}

/// A page in which the ring was used before: both indexes stand at `start`.
fn used(consumer: usize, producer: usize, start: u32) -> Page {
    let page = Page::new();
    poke(&page, consumer, start);
    poke(&page, producer, start);
    page
}

/// SplitMix64.
fn random(state: &mut u64) -> usize {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    usize::try_from((z ^ (z >> 31)) >> 40).unwrap()
}

#[test]
fn bytes_come_out_as_a_queue_gives_them() {
    for (area, consumer, producer) in AREAS {
        for start in [0, 1, 1023, u32::MAX, u32::MAX - 700, 1 << 31] {
            let page = used(consumer, producer, start);
            let mut sender = Sender::attach(&page, area);
            let mut receiver = Receiver::attach(&page, area);
            let size = area.size_bytes() as usize;
            let mut queue = VecDeque::new();
            let (mut seed, mut next) = (u64::from(start), 0_u8);
            for _ in 0..500 {
                let bytes: Vec<u8> = (0..random(&mut seed) % (size + 9))
                    .map(|_| {
                        next = next.wrapping_mul(5).wrapping_add(7);
                        next
                    })
                    .collect();
                let sent = sender.send(&bytes).unwrap();
                assert_eq!(sent, bytes.len().min(size - queue.len()));
                queue.extend(&bytes[..sent]);
                let mut out = vec![0; random(&mut seed) % (size + 9)];
                let count = receiver.receive(&mut out).unwrap();
                assert_eq!(count, out.len().min(queue.len()));
                assert!(out[..count].iter().all(|&byte| queue.pop_front() == Some(byte)));
            }
        }
    }
}

#[test]
fn any_range_of_a_page_is_read_and_written_and_no_byte_beside_it() {
    let page = Page::new();
    let mut known = [0; PAGE_SIZE];
    let mut next = 0_u8;
    for first in (0..9).chain(PAGE_SIZE - 20..=PAGE_SIZE) {
        for length in (0..13).chain([PAGE_SIZE - 8]).filter(|length| first + length <= PAGE_SIZE) {
            for byte in &mut known[first..first + length] {
                next = next.wrapping_mul(5).wrapping_add(7);
                *byte = next;
            }
            page.write(first, &known[first..first + length]);
            let mut whole = [0; PAGE_SIZE];
            page.read(0, &mut whole);
            assert_eq!(whole, known, "written {length} at {first}");
            let mut part = vec![0; length];
            page.read(first, &mut part);
            assert_eq!(part, &known[first..first + length], "read {length} at {first}");
            let (copy, mut expected) = (Page::new(), [0xa5; PAGE_SIZE]);
            copy.write(0, &expected);
            copy.copy_part(&page, first, length);
            expected[first..first + length].copy_from_slice(&part);
            copy.read(0, &mut whole);
            assert_eq!(whole, expected, "copied {length} at {first}");
        }
    }
    let copy = Page::new();
    copy.copy_from(&page);
    let mut whole = [0; PAGE_SIZE];
    copy.read(0, &mut whole);
    assert_eq!(whole, known);
}

#[test]
fn two_rings_in_a_page_do_not_disturb_each_other() {
    for (one, other) in [(0, 1), (2, 3)] {
        let page = Page::new();
        let (ours, theirs) = (AREAS[one].0, AREAS[other].0);
        let (mut there, mut back) = (Sender::attach(&page, ours), Sender::attach(&page, theirs));
        assert_eq!(there.send(&[0xaa; 4096]), Ok(ours.size_bytes() as usize));
        assert_eq!(back.send(&[0x55; 4096]), Ok(theirs.size_bytes() as usize));
        for (area, byte) in [(ours, 0xaa), (theirs, 0x55)] {
            let mut out = vec![0; 4096];
            let count = Receiver::attach(&page, area).receive(&mut out).unwrap();
            assert_eq!(out[..count], vec![byte; area.size_bytes() as usize]);
        }
    }
}

/// Values around `base`, in both directions and at the far side.
fn allegations(base: u32, size: u32) -> impl Iterator<Item = u32> {
    let near = [0, 1, 2, size - 1, size, size + 1].into_iter();
    let near = near.flat_map(|distance| [distance, distance.wrapping_neg()]);
    near.chain([1 << 31]).map(move |distance| base.wrapping_add(distance))
}

#[test]
fn a_receiver_believes_at_most_a_ring_full() {
    for (area, consumer, producer) in AREAS {
        let (start, size) = (u32::MAX - 5, area.size_bytes());
        for alleged in allegations(start, size) {
            let page = used(consumer, producer, start);
            let mut receiver = Receiver::attach(&page, area);
            poke(&page, producer, alleged);
            let distance = alleged.wrapping_sub(start);
            let expected = if distance <= size {
                Ok(distance as usize)
            } else {
                let (alleged, consumed) = (Index::new(alleged), Index::new(start));
                Err(Broken { alleged, consumed, limit: size })
            };
            assert_eq!(receiver.receive(&mut [0; 4096]), expected);
        }
    }
}

#[test]
fn a_sender_believes_that_at_most_what_it_sent_was_read() {
    for (area, consumer, producer) in AREAS {
        let (start, size) = (u32::MAX - 5, area.size_bytes());
        for unread in [0, 1, size - 1, size] {
            let sent = start.wrapping_add(unread);
            for alleged in allegations(sent, size) {
                let page = used(consumer, producer, start);
                let mut sender = Sender::attach(&page, area);
                assert_eq!(sender.send(&vec![1; unread as usize]), Ok(unread as usize));
                poke(&page, consumer, alleged);
                let behind = sent.wrapping_sub(alleged);
                let asked = sender.unread();
                let result = sender.send(&[2; 4096]);
                assert_eq!(asked, result.map(|_| behind));
                if behind <= size {
                    assert_eq!(result, Ok((size - behind) as usize));
                } else {
                    let broken = result.unwrap_err();
                    assert_eq!((broken.alleged.raw(), broken.limit), (alleged, size));
                    assert_eq!(page.word(producer).load(Ordering::Relaxed), sent);
                }
            }
        }
    }
}

#[test]
fn a_ring_of_four_bytes_is_a_ring_and_one_of_no_power_of_two_is_refused() {
    let (consumer, producer) = (2048, 2052);
    let area = Area::new(1024, 4, consumer, producer);
    let page = used(consumer / 4, producer / 4, u32::MAX - 1);
    let (mut sender, mut receiver) = (Sender::attach(&page, area), Receiver::attach(&page, area));
    let mut bytes = [0; 8];
    for round in 0..3_u8 {
        let sent = [round, 1, 2, 3, 4];
        assert_eq!(sender.send(&sent), Ok(4));
        assert_eq!(receiver.receive(&mut bytes), Ok(4));
        assert_eq!(bytes[..4], sent[..4]);
    }
    for size in [0, 1, 2, 3, 5, 12, u32::MAX] {
        let made = std::panic::catch_unwind(|| Area::new(1024, size, consumer, producer));
        assert!(made.is_err(), "{size}");
    }
}
