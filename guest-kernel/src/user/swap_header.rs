//! The first page of a swap area, as `mkswap` writes it (Linux, `include/linux/swap.h`, version 1).
//!
//! 1024 bytes for a boot loader; version, last page and number of bad pages as 32-bit words;
//! UUID and label of 16 bytes each; 117 words of padding; the bad pages; in the last 10 bytes of
//! the page the signature. All of it is an allegation.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

/// Bytes of the header.
pub const HEADER_BYTES: usize = 4096;
/// The most bad pages that fit.
pub const BAD_PAGES_MAX: usize = (HEADER_BYTES - BAD_PAGES - SIGNATURE.len()) / 4;
/// The most pages that are used: 256 GiB.
pub const LAST_PAGE_MAX: u32 = 1 << 26;

const SIGNATURE: &[u8] = b"SWAPSPACE2";
const OLD_SIGNATURE: &[u8] = b"SWAP-SPACE";
const VERSION: usize = 1024;
const LAST_PAGE: usize = 1028;
const BAD_COUNT: usize = 1032;
const UUID: usize = 1036;
const LABEL: usize = 1052;
const BAD_PAGES: usize = 1536;

/// What the header of a good swap area says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The highest page that may be used, counted from the header.
    pub last_page: u32,
    /// Pages that must not be used.
    pub bad: Vec<u32>,
    /// Its name; may be empty.
    pub label: String,
    /// In the usual form, in small letters.
    pub uuid: String,
}

/// Why a partition is not used as swap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// No signature.
    NoSignature,
    /// The signature of Linux 2.0 and before.
    Old,
    /// The version of its header; 1 is known.
    Version(u32),
    /// It says that it has no page.
    Empty,
    /// It says that it has so many pages, of which only so many are there.
    TooLong(u64, u64),
    /// It lists so many bad pages.
    BadCount(u32),
    /// It lists a bad page that it does not have.
    BadPage(u32),
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSignature => f.write_str("no swap signature: prepare it with mkswap"),
            Self::Old => f.write_str("a swap area of the old kind: prepare it with mkswap"),
            Self::Version(version) => write!(f, "swap version {version}: only 1 is known"),
            Self::Empty => f.write_str("its header says that it has no page"),
            Self::TooLong(says, has) => {
                write!(f, "its header says {says} pages, and it has {has}")
            }
            Self::BadCount(count) => {
                write!(f, "its header lists {count} bad pages: {BAD_PAGES_MAX} are the limit")
            }
            Self::BadPage(page) => write!(f, "its header lists bad page {page}: there is none"),
        }
    }
}

impl core::error::Error for Unfit {}

/// Reads the header of an area of `pages` pages.
///
/// # Errors
/// [`Unfit`].
pub fn read(page: &[u8; HEADER_BYTES], pages: u64) -> Result<Header, Unfit> {
    let signature = &page[HEADER_BYTES - SIGNATURE.len()..];
    if signature == OLD_SIGNATURE {
        return Err(Unfit::Old);
    }
    if signature != SIGNATURE {
        return Err(Unfit::NoSignature);
    }
    let (version, last_page, count) =
        (word(page, VERSION), word(page, LAST_PAGE), word(page, BAD_COUNT));
    if version != 1 {
        return Err(Unfit::Version(version));
    }
    if last_page == 0 {
        return Err(Unfit::Empty);
    }
    let says = u64::from(last_page) + 1;
    if says > pages {
        return Err(Unfit::TooLong(says, pages));
    }
    let bad = bad_pages(page, count, last_page)?;
    let (label, uuid) = (label(&page[LABEL..LABEL + 16]), uuid(&page[UUID..UUID + 16]));
    Ok(Header { last_page: last_page.min(LAST_PAGE_MAX), bad, label, uuid })
}

fn bad_pages(page: &[u8; HEADER_BYTES], count: u32, last: u32) -> Result<Vec<u32>, Unfit> {
    let length = usize::try_from(count).ok().filter(|&count| count <= BAD_PAGES_MAX);
    let length = length.ok_or(Unfit::BadCount(count))?;
    let bad = (0..length).map(|index| match word(page, BAD_PAGES + 4 * index) {
        bad if (1..=last).contains(&bad) => Ok(bad),
        bad => Err(Unfit::BadPage(bad)),
    });
    bad.collect()
}

fn word(page: &[u8; HEADER_BYTES], at: usize) -> u32 {
    u32::from_le_bytes([page[at], page[at + 1], page[at + 2], page[at + 3]])
}

fn label(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).chars().filter(|c| !c.is_control()).collect()
}

fn uuid(bytes: &[u8]) -> String {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-").to_string()
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::collections::BTreeSet;
    use std::string::ToString;
    use std::vec;

    use super::*;
    use crate::user::Slot;
    use crate::user::slots::Slots;

    /// What `mkswap -L spare -U 01020304-…` writes for so many pages.
    pub(crate) fn sample(last_page: u32) -> [u8; HEADER_BYTES] {
        let mut page = [0; HEADER_BYTES];
        page[VERSION] = 1;
        page[LAST_PAGE..LAST_PAGE + 4].copy_from_slice(&last_page.to_le_bytes());
        for (byte, value) in page[UUID..UUID + 16].iter_mut().zip(1..) {
            *byte = value;
        }
        page[LABEL..LABEL + 5].copy_from_slice(b"spare");
        page[HEADER_BYTES - 10..].copy_from_slice(SIGNATURE);
        page
    }

    #[test]
    fn a_good_header_is_read() {
        let mut page = sample(99);
        page[BAD_COUNT] = 2;
        page[BAD_PAGES] = 5;
        page[BAD_PAGES + 4] = 99;
        let header = read(&page, 100).expect("good");
        assert_eq!((header.last_page, header.bad), (99, vec![5, 99]));
        assert_eq!(header.label, "spare");
        assert_eq!(header.uuid, "01020304-0506-0708-090a-0b0c0d0e0f10");
    }

    #[test]
    fn what_is_wrong_is_told() {
        let change = |at: usize, bytes: &[u8]| {
            let mut page = sample(99);
            page[at..at + bytes.len()].copy_from_slice(bytes);
            read(&page, 100).expect_err("bad")
        };
        assert_eq!(change(HEADER_BYTES - 10, b"x"), Unfit::NoSignature);
        assert_eq!(change(HEADER_BYTES - 10, OLD_SIGNATURE), Unfit::Old);
        assert_eq!(change(VERSION, &[2]), Unfit::Version(2));
        assert_eq!(change(LAST_PAGE, &[0]), Unfit::Empty);
        assert_eq!(change(LAST_PAGE, &[100]), Unfit::TooLong(101, 100));
        assert_eq!(change(LAST_PAGE, &[255; 4]), Unfit::TooLong(1 << 32, 100));
        assert_eq!(change(BAD_COUNT, &[255; 4]), Unfit::BadCount(u32::MAX));
        assert_eq!(change(BAD_COUNT, &[1]), Unfit::BadPage(0));
        assert!(Unfit::TooLong(101, 100).to_string().contains("101 pages"));
    }

    #[test]
    fn the_list_of_bad_pages_ends_before_the_signature() {
        let mut page = sample(99);
        for at in (BAD_PAGES..BAD_PAGES + 4 * BAD_PAGES_MAX).step_by(4) {
            page[at] = 1;
        }
        let count = u32::try_from(BAD_PAGES_MAX).expect("small");
        page[BAD_COUNT..BAD_COUNT + 4].copy_from_slice(&count.to_le_bytes());
        assert_eq!(read(&page, 100).map(|header| header.bad.len()), Ok(BAD_PAGES_MAX));
        page[BAD_COUNT..BAD_COUNT + 4].copy_from_slice(&(count + 1).to_le_bytes());
        assert_eq!(read(&page, 100), Err(Unfit::BadCount(count + 1)));
    }

    /// A header with some bad pages and room for more, damaged in up to 8 bytes.
    fn damaged(seed: u64) -> [u8; HEADER_BYTES] {
        let mut state = seed;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(11);
            (state >> 33) as usize
        };
        let mut page = sample(99);
        page[BAD_COUNT] = 3;
        for entry in 0..8 {
            page[BAD_PAGES + 4 * entry] = [5, 99, 5, 1, 2, 3, 4, 64][entry];
        }
        for _ in 0..=random() % 8 {
            // Most of them where it matters.
            let at = match random() % 4 {
                0 => random() % HEADER_BYTES,
                1 => BAD_PAGES + random() % 40,
                _ => VERSION + random() % 64,
            };
            page[at] = match random() % 3 {
                0 => random().to_le_bytes()[1],
                1 => page[at].wrapping_add(random().to_le_bytes()[1] % 32),
                _ => 0,
            };
        }
        page
    }

    #[test]
    fn a_thousand_corrupted_headers_are_refused_or_make_an_area_within_bounds() {
        let (mut refused, mut with_bad) = (0, 0);
        for seed in 0..1000 {
            match read(&damaged(seed), 100) {
                Ok(header) => {
                    let mut slots = Slots::new(header.last_page, &header.bad).expect("memory");
                    let bad: BTreeSet<u32> = header.bad.iter().copied().collect();
                    let mut given = 0;
                    while let Some(Slot(slot)) = slots.take() {
                        let good = (1..100).contains(&slot) && !bad.contains(&slot);
                        assert!(good, "seed {seed}: slot {slot} is given out: {header:?}");
                        given += 1;
                    }
                    assert_eq!(given, header.last_page as usize - bad.len(), "seed {seed}");
                    with_bad += usize::from(!header.bad.is_empty());
                }
                Err(unfit) => {
                    assert!(!unfit.to_string().is_empty());
                    refused += 1;
                }
            }
        }
        assert!(refused > 100 && with_bad > 100, "the corruptions do not reach: {refused}");
    }
}
