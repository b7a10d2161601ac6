//! Where slots lie in memory, for rings of 1 to 16 pages and both ABIs, byte by byte.

use ring::sync::Ordering;
use ring::{Back, Front, HEADER_WORDS, Index, Layout, Memory, PAGE_SIZE, PAGE_WORDS, Page, Reader};

/// The table that a C compiler made of the public headers.
const TABLE: &str = include_str!("../../../xen/abi/layout.txt");
const ORDERS: std::ops::RangeInclusive<u32> = 0..=4;

/// Offset and size of a member, from the table.
fn member(name: &str) -> (usize, usize) {
    let line = format!("field struct {name} ");
    let rest = TABLE.lines().find_map(|candidate| candidate.strip_prefix(&line)).unwrap();
    let (offset, size) = rest.split_once(' ').unwrap();
    (offset.parse().unwrap(), size.parse().unwrap())
}

#[test]
fn the_header_and_the_strides_are_the_compiler_s() {
    for (ring, stride) in [("blkif_sring", 112), ("blkif32_sring", 108)] {
        assert_eq!(member(&format!("{ring} req_prod")), (crate::REQ_PROD * 4, 4));
        assert_eq!(member(&format!("{ring} req_event")), (crate::REQ_EVENT * 4, 4));
        assert_eq!(member(&format!("{ring} rsp_prod")), (crate::RSP_PROD * 4, 4));
        assert_eq!(member(&format!("{ring} rsp_event")), (crate::RSP_EVENT * 4, 4));
        assert_eq!(member(&format!("{ring} ring")), (HEADER_WORDS * 4, stride));
    }
}

#[test]
fn a_new_ring_has_the_header_of_the_protocol_and_nothing_else() {
    let page = Page::new();
    page.write(0, &[0xff; PAGE_SIZE]);
    let _ = Front::new(&page, Layout::of_pages(0, 28));
    let mut bytes = [0; PAGE_SIZE];
    page.read(0, &mut bytes);
    let mut expected = [0; PAGE_SIZE];
    // req_event and rsp_event ask for the first message.
    (expected[4], expected[12]) = (1, 1);
    assert_eq!(bytes, expected);
}

#[test]
fn both_abis_have_32_slots_for_each_page() {
    for order in ORDERS {
        for slot_words in [28, 27] {
            let layout = Layout::of_pages(order, slot_words);
            assert_eq!(layout.slots(), 32 << order);
            assert!(layout.words() * 4 <= PAGE_SIZE << order);
        }
    }
}

/// The slots that begin in one page and end in another.
fn straddling(order: u32, stride: usize) -> Vec<usize> {
    let page_of = |byte: usize| byte / PAGE_SIZE;
    (0..32 << order)
        .filter(|slot| page_of(64 + slot * stride) != page_of(64 + slot * stride + stride - 1))
        .collect()
}

#[test]
fn slots_straddle_pages_where_they_were_computed_by_hand() {
    assert_eq!(straddling(0, 112), []);
    assert_eq!(straddling(1, 112), []);
    assert_eq!(straddling(2, 112), [72, 109]);
    assert_eq!(straddling(3, 112).len(), 6);
    assert_eq!(straddling(4, 112).len(), 12);
    assert_eq!(straddling(0, 108), []);
    assert_eq!(straddling(1, 108), [37]);
}

/// A word that tells its place.
fn mark(slot: usize, word: usize) -> u32 {
    u32::try_from(slot * 1000 + word).unwrap()
}

fn all_words(reader: &mut Reader<'_, &[Page]>) -> Vec<u32> {
    std::iter::from_fn(|| reader.word()).collect()
}

fn byte_by_byte(order: u32, slot_words: usize) {
    let pages: Vec<Page> = (0..1 << order).map(|_| Page::new()).collect();
    let layout = Layout::of_pages(order, slot_words);
    let slots = layout.slots() as usize;
    let start = Index::new(u32::MAX - 9);
    let mut front = Front::starting_at(&pages[..], layout, start);
    let slot_of = |nth: usize| (start.raw() as usize + nth) % slots;
    let marks = |nth: usize| (0..slot_words).map(move |at| mark(slot_of(nth), at));
    for nth in 0..slots {
        front.put(&marks(nth).collect::<Vec<_>>()).unwrap();
    }
    assert!(front.put(&[0]).is_err());
    for nth in 0..slots {
        for (at, expected) in marks(nth).enumerate() {
            let offset = 64 + slot_of(nth) * slot_words * 4 + at * 4;
            let mut bytes = [0; 4];
            pages[offset / PAGE_SIZE].read(offset % PAGE_SIZE, &mut bytes);
            assert_eq!(u32::from_le_bytes(bytes), expected, "slot {} word {at}", slot_of(nth));
        }
    }
    let _ = front.publish();
    let mut back = Back::attach(&pages[..], layout);
    for nth in 0..slots {
        let expected: Vec<_> = marks(nth).collect();
        assert_eq!(back.take(all_words), Ok(Some(expected)));
    }
}

#[test]
fn every_word_of_every_slot_lies_where_it_should() {
    for order in ORDERS {
        byte_by_byte(order, 28);
        byte_by_byte(order, 27);
    }
}

#[test]
fn a_reader_passes_over_words_and_stops_at_the_end_of_its_slot() {
    let words = crate::memory(2, 4);
    let (mut front, mut back) = crate::halves(&words, Layout::of_slots(2, 4), 0);
    front.put(&[1, 2, 3, 4]).unwrap();
    front.put(&[5]).unwrap();
    let _ = front.publish();
    let read = back.take(|reader| {
        reader.skip(2);
        let third = reader.word();
        reader.skip(usize::MAX);
        (third, reader.word())
    });
    assert_eq!(read, Ok(Some((Some(3), None))));
    assert_eq!(back.take(|reader| reader.word()), Ok(Some(Some(5))));
}

#[test]
fn a_page_is_read_and_written_at_every_alignment() {
    for offset in [0, 1, 2, 3, 5, 4086, 4090] {
        for length in 0..=6 {
            let page = Page::new();
            page.write(0, &[0xee; PAGE_SIZE]);
            let bytes: Vec<u8> = (1..=length).collect();
            page.write(offset, &bytes);
            let mut all = [0; PAGE_SIZE];
            page.read(0, &mut all);
            let mut expected = [0xee; PAGE_SIZE];
            expected[offset..offset + bytes.len()].copy_from_slice(&bytes);
            assert_eq!(all, expected);
            let mut part = vec![0; bytes.len()];
            page.read(offset, &mut part);
            assert_eq!(part, bytes);
        }
    }
}

#[test]
fn a_page_is_zeros_when_it_is_new_and_when_it_is_cleared() {
    let page = Page::default();
    let mut bytes = [1; PAGE_SIZE];
    page.read(0, &mut bytes);
    assert_eq!(bytes, [0; PAGE_SIZE]);
    page.write(0, &[0xff; PAGE_SIZE]);
    page.clear();
    page.read(0, &mut bytes);
    assert_eq!(bytes, [0; PAGE_SIZE]);
    // A reference is the same memory.
    assert_eq!((page.words(), <&Page as Memory>::words(&&page)), (PAGE_WORDS, PAGE_WORDS));
}

#[test]
fn a_ring_has_as_many_slots_as_fit_behind_its_header_and_no_more() {
    for order in 0..3 {
        let words = PAGE_WORDS << order;
        for slot_words in 1..=words - HEADER_WORDS {
            let layout = Layout::of_pages(order, slot_words);
            let taken = HEADER_WORDS + layout.slots() as usize * slot_words;
            assert_eq!(layout.words(), taken);
            assert!(layout.slots().is_power_of_two() && taken <= words, "{slot_words}");
            assert!(taken + layout.slots() as usize * slot_words > words, "{slot_words}");
        }
    }
}

#[test]
fn no_half_of_a_ring_is_made_on_memory_that_is_a_word_too_short() {
    let layout = Layout::of_slots(4, 3);
    let words = crate::memory(4, 3);
    let (whole, short) = (&words[..], &words[1..]);
    let _ = (Front::new(whole, layout), Back::attach(whole, layout));
    let front = || Front::new(short, layout).free();
    assert!(std::panic::catch_unwind(front).is_err());
    let back = || Back::attach(short, layout).next();
    assert!(std::panic::catch_unwind(back).is_err());
}

/// What is read of a slot that has the words 1 to 6.
fn taken<T>(read: impl FnOnce(&mut Reader<'_, &Page>) -> T) -> T {
    let layout = Layout::of_slots(2, 6);
    let page = Page::new();
    let (mut front, mut back) = (Front::new(&page, layout), Back::attach(&page, layout));
    front.put(&[1, 2, 3, 4, 5, 6]).unwrap();
    let _ = front.publish();
    back.take(read).unwrap().unwrap()
}

#[test]
fn words_of_a_slot_are_read_together_up_to_its_end_and_each_once() {
    let read = |reader: &mut Reader<'_, &Page>| {
        let (mut some, mut rest) = ([0; 2], [9; 5]);
        assert_eq!((reader.word(), reader.words(&mut some)), (Some(1), 2));
        assert_eq!((reader.words(&mut []), reader.words(&mut rest)), (0, 3));
        assert_eq!((reader.words(&mut rest), reader.word()), (0, None));
        (some, rest)
    };
    assert_eq!(taken(read), ([2, 3], [4, 5, 6, 9, 9]));
}

#[test]
fn an_array_is_read_whole_or_not_at_all() {
    let read = |reader: &mut Reader<'_, &Page>| {
        assert_eq!((reader.array::<7>(), reader.array()), (None, Some([1, 2])));
        assert_eq!((reader.array::<5>(), reader.array()), (None, Some([3, 4, 5, 6])));
        (reader.array::<1>(), reader.array())
    };
    assert_eq!(taken(read), (None, Some([])));
}

#[test]
fn words_of_a_page_are_stored_and_loaded_together_as_they_are_one_by_one() {
    let page = Page::new();
    for (first, words) in
        [(0, 3), (5, 11), (PAGE_WORDS - 4, 4), (PAGE_WORDS - 3, 3), (PAGE_WORDS, 0)]
    {
        let values: Vec<u32> = (1..).take(words).collect();
        page.store_all(first, &values);
        let one_by_one = (first..first + words).map(|at| page.load(at, Ordering::Relaxed));
        assert_eq!(one_by_one.collect::<Vec<_>>(), values);
        let mut out = vec![0; words];
        page.load_all(first, &mut out);
        assert_eq!(out, values);
    }
    assert!(
        std::panic::catch_unwind(|| Page::new().load_all(PAGE_WORDS - 1, &mut [0; 2])).is_err()
    );
    assert!(std::panic::catch_unwind(|| Page::new().store_all(PAGE_WORDS - 1, &[0; 2])).is_err());
}
