//! The first page of a swap area or of a file system, by the rules and damaged.

use guest_kernel::user::swap_header::{BAD_PAGES_MAX, HEADER_BYTES, LAST_PAGE_MAX, read};
use guest_kernel::volumes::signature::{BYTES, Signature};

use super::super::choices::{Choices, damage};

/// Where a swap header has its words, and where its text and its list of bad pages begin.
const VERSION: usize = 1024;
const LAST_PAGE: usize = 1028;
const BAD_COUNT: usize = 1032;
const TEXT: usize = 1036;
const BAD_PAGES: usize = 1536;
/// Where an ext superblock has its mark.
const EXT_MAGIC: usize = 1024 + 56;

/// Tells whether it is a swap area or has a file system's mark.
pub(super) fn check(choices: &mut Choices<'_>) -> bool {
    let lawful = choices.valid();
    let edges = [0, 1 << 26, 1 << 32];
    let pages = if lawful { 100 } else { choices.number(1 << 20, &edges) };
    let mut page = page(choices, pages, lawful);
    if !lawful && choices.valid() {
        damage(choices, &mut page[VERSION..BAD_PAGES + 64]);
    }
    let known = swap(&page, pages) || Signature::read(&page).is_some();
    assert!(known || !lawful, "neither a swap area nor a file system");
    let length = if lawful { HEADER_BYTES } else { choices.below(HEADER_BYTES) };
    signature(&page[..length]);
    known
}

/// What `mkswap` writes for an area of so many pages, or nearly; now and then a file system.
fn page(choices: &mut Choices<'_>, pages: u64, lawful: bool) -> [u8; HEADER_BYTES] {
    let mut page = [0; HEADER_BYTES];
    let mut put = |at: usize, word: u32| page[at..at + 4].copy_from_slice(&word.to_le_bytes());
    let last = u32::try_from(pages.saturating_sub(1)).unwrap_or(u32::MAX);
    let wild = |choices: &mut Choices<'_>| !lawful && choices.rarely(4);
    let bad = if wild(choices) { choices.word() } else { u32::from(choices.byte()) % 16 };
    put(VERSION, if wild(choices) { choices.word() } else { 1 });
    put(LAST_PAGE, if wild(choices) { choices.word() } else { last });
    put(BAD_COUNT, bad);
    for at in 0..usize::try_from(bad.min(16)).unwrap_or(0) {
        put(BAD_PAGES + 4 * at, if wild(choices) { choices.word() } else { last.min(1) });
    }
    for (at, byte) in choices.bytes(32).iter().enumerate() {
        page[TEXT + at] = *byte;
    }
    let mark: &[u8] = if !lawful && choices.rarely(4) { b"SWAP-SPACE" } else { b"SWAPSPACE2" };
    if choices.rarely(4) {
        page[EXT_MAGIC..EXT_MAGIC + 2].copy_from_slice(&0xef53_u16.to_le_bytes());
    } else {
        page[HEADER_BYTES - mark.len()..].copy_from_slice(mark);
    }
    page
}

/// Tells whether it is a swap area.
fn swap(page: &[u8; HEADER_BYTES], pages: u64) -> bool {
    let header = read(page, pages);
    match &header {
        Err(unfit) => assert!(!unfit.to_string().is_empty()),
        Ok(header) => {
            assert!(u64::from(header.last_page) < pages && header.last_page <= LAST_PAGE_MAX);
            assert!(header.last_page > 0 && header.bad.len() <= BAD_PAGES_MAX);
            assert!(header.bad.iter().all(|&bad| bad > 0 && u64::from(bad) < pages));
            assert!(!header.label.contains(|it: char| it.is_control()));
            assert_eq!(header.uuid.len(), 36);
        }
    }
    header.is_ok()
}

fn signature(bytes: &[u8]) {
    if let Some(found) = Signature::read(bytes) {
        assert!(bytes.len() >= BYTES);
        assert!(!found.label.contains(|it: char| it.is_control()));
        assert!(found.label.chars().count() <= 16);
    }
}
