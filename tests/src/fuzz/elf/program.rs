//! Programs: segments in the window, and what is taken of them.

use guest_kernel::layout::Use;
use guest_kernel::user::image::{Image, SEGMENTS_MAX, Segment};
use guest_kernel::user::{IMAGE_FIRST, PAGES_MAX, Page, WINDOW};

use super::super::choices::{Choices, damage};
use super::{HEADER_BYTES, PAGE_BYTES, header, short};

const SEGMENT_BYTES: usize = 56;
const FILE_BYTES: usize = 4096;
/// The first address that a program may have.
const BASE: u64 = WINDOW.start + IMAGE_FIRST as u64 * PAGE_BYTES;

/// A program by the rules, or not; tells whether it was taken.
pub(super) fn check(choices: &mut Choices<'_>) -> bool {
    let lawful = choices.valid();
    let count = if lawful { 1 + choices.below(4) } else { choices.below(SEGMENTS_MAX + 3) };
    let mut file = header(2);
    file[24..32].copy_from_slice(&(BASE + u64::from(choices.byte())).to_le_bytes());
    file[32..40].copy_from_slice(&(HEADER_BYTES as u64).to_le_bytes());
    file[54..56].copy_from_slice(&short(SEGMENT_BYTES).to_le_bytes());
    file[56..58].copy_from_slice(&short(count).to_le_bytes());
    let mut address = BASE;
    for number in 0..count {
        let lawful = lawful || choices.valid();
        file.extend(segment(choices, (number, lawful), &mut address));
    }
    file.resize(FILE_BYTES, 0x90);
    if !lawful && choices.valid() {
        damage(choices, &mut file[..HEADER_BYTES + SEGMENT_BYTES * count]);
    }
    if !lawful && choices.rarely(4) {
        file.truncate(choices.below(FILE_BYTES));
    }
    let taken = run(&file);
    assert!(taken || !lawful, "a program by the rules");
    taken
}

/// The header of a segment that goes to `address`, or anywhere; the first one has the code.
fn segment(
    choices: &mut Choices<'_>,
    (number, lawful): (usize, bool),
    address: &mut u64,
) -> Vec<u8> {
    let (kind, flags) = match (lawful, number) {
        (true, 0) => (1, 5),
        (true, _) => (1, choices.of(&[6, 4, 5])),
        (false, _) if choices.rarely(4) => (choices.word() % 8, choices.word() % 8),
        (false, _) => (1, choices.of(&[4, 5, 6])),
    };
    // Beside the one before it; over it; or anywhere.
    let near = lawful || choices.valid();
    let back = if lawful { 0 } else { choices.below(4) as u64 * PAGE_BYTES };
    let mut any = |usual: u64, edges: &[u64]| choices.number(usual, edges);
    let [place, from, in_file, more] = if near {
        // Long enough for where the program starts.
        let length = 256 + any(2700, &[0]) % 2700;
        let place = address.wrapping_sub(back);
        [place, any(500, &[0]) % 500, length, any(9000, &[0]) % 9000]
    } else {
        let sizes = [0, FILE_BYTES as u64, u64::MAX, 1 << 30];
        let place = any(1 << 40, &[WINDOW.start, WINDOW.end, BASE, u64::MAX]);
        [place, any(4096, &sizes), any(4096, &sizes), any(4096, &sizes)]
    };
    let in_memory = in_file.wrapping_add(more);
    let pages = 1 + in_memory / PAGE_BYTES + choices.below(3) as u64;
    *address = address.wrapping_add(pages.wrapping_mul(PAGE_BYTES));
    let head = [kind, flags].map(u32::to_le_bytes).concat();
    let rest = [from, place, 0, in_file, in_memory, 4096].map(u64::to_le_bytes).concat();
    [head, rest].concat()
}

/// Checks what is taken as a program; tells whether it was.
pub(super) fn run(file: &[u8]) -> bool {
    let Ok(image) = Image::parse(file) else { return false };
    assert!((1..=SEGMENTS_MAX).contains(&image.segments.len()));
    let mut behind = IMAGE_FIRST;
    for segment in &image.segments {
        assert!(segment.file.start <= segment.file.end && segment.file.end <= file.len());
        assert!(segment.pages.start >= behind, "two segments share a page");
        assert!(segment.pages.end > segment.pages.start);
        behind = segment.pages.end;
        let (first, end) = (Page(segment.pages.start).address(), Page(segment.pages.end).address());
        let length = segment.file.len() as u64;
        assert!(segment.address >= first && segment.address + length <= end, "bytes beside it");
    }
    assert!(image.end == behind && image.end < PAGES_MAX);
    let starts = |it: &Segment| {
        it.rights == Use::Code && Page::at(image.entry).is_some_and(|at| it.pages.contains(&at.0))
    };
    assert!(image.segments.iter().any(starts), "it starts where there is no code");
    true
}
