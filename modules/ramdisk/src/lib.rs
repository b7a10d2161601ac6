//! Memory as a disk, as a kernel module.
//!
//! `insmod ramdisk.ko [size=16M]` makes the disk `ram0`. All of its memory is taken at once, so that
//! no write fails later for want of it, and all of it goes back with `rmmod`. What is on it lasts
//! as long as the module; a flush has nothing to do.
//!
//! Must never reach outside of its pages, whatever it is asked for.
#![no_std]

extern crate alloc;

use alloc::vec::Vec;
use core::ops::Range;

use module_abi::{BlockDevice, Failed};

#[cfg(target_os = "none")]
mod plugin;

/// How large the disk is if nobody says.
pub const SIZE_BYTES: u64 = 4 << 20;
/// The largest disk: more memory than a guest has.
pub const SIZE_BYTES_MAX: u64 = 1 << 40;
const SECTOR_BYTES: u64 = 512;
const PAGE_BYTES: usize = 4096;

/// A page, aligned as one: then it comes out of the guest's memory, and not of the kernel's heap.
#[derive(Debug)]
#[repr(C, align(4096))]
struct Page([u8; PAGE_BYTES]);

/// A disk in memory.
#[derive(Debug)]
pub struct RamDisk {
    /// One page each: there may be no larger piece of free memory.
    pages: Vec<Vec<Page>>,
}

impl RamDisk {
    /// A disk of zeros, of so many bytes: whole pages. `None` if there is not so much memory.
    pub fn new(size_bytes: u64) -> Option<Self> {
        let mut pages = Vec::new();
        for _ in 0..size_bytes / PAGE_BYTES as u64 {
            let mut page = Vec::new();
            page.try_reserve_exact(1).ok()?;
            page.push(Page([0; PAGE_BYTES]));
            // Not all at once: what is too large is found out before its list fills the heap.
            pages.try_reserve(1).ok()?;
            pages.push(page);
        }
        Some(Self { pages })
    }

    /// The pieces of pages that `length` bytes from `sector` on lie in, in order.
    fn pieces(&mut self, sector: u64, length: usize) -> Result<Pieces<'_>, Failed> {
        let first = sector.checked_mul(SECTOR_BYTES).ok_or(Failed)?;
        let first = usize::try_from(first).map_err(|_| Failed)?;
        let end = first.checked_add(length).ok_or(Failed)?;
        if end > self.pages.len() * PAGE_BYTES {
            return Err(Failed);
        }
        Ok(Pieces { pages: &mut self.pages, left: first..end })
    }
}

/// What is left to be copied.
struct Pieces<'a> {
    pages: &'a mut [Vec<Page>],
    left: Range<usize>,
}

impl Pieces<'_> {
    /// Hands each piece over, with where it lies in what is copied.
    fn each(self, mut copy: impl FnMut(Range<usize>, &mut [u8])) -> Result<(), Failed> {
        let Range { start, end } = self.left;
        let mut at = start;
        while at < end {
            let offset = at % PAGE_BYTES;
            let count = (PAGE_BYTES - offset).min(end - at);
            let page = self.pages.get_mut(at / PAGE_BYTES).and_then(|page| page.first_mut());
            let Page(bytes) = page.ok_or(Failed)?;
            copy(at - start..at - start + count, &mut bytes[offset..offset + count]);
            at += count;
        }
        Ok(())
    }
}

impl BlockDevice for RamDisk {
    fn sectors(&self) -> u64 {
        (self.pages.len() * PAGE_BYTES) as u64 / SECTOR_BYTES
    }

    fn read(&mut self, sector: u64, out: &mut [u8]) -> Result<(), Failed> {
        self.pieces(sector, out.len())?.each(|range, bytes| out[range].copy_from_slice(bytes))
    }

    fn write(&mut self, sector: u64, data: &[u8]) -> Result<(), Failed> {
        self.pieces(sector, data.len())?.each(|range, bytes| bytes.copy_from_slice(&data[range]))
    }

    fn flush(&mut self) -> Result<(), Failed> {
        Ok(())
    }
}

/// The size that the words ask for, in bytes; `Err` has the word that makes no sense.
///
/// # Errors
/// The first word that is none of `size=BYTES`, with k, m or g behind the number, in whole pages
/// and not more than [`SIZE_BYTES_MAX`].
pub fn size<'a>(words: &[&'a str]) -> Result<u64, &'a str> {
    words.iter().try_fold(SIZE_BYTES, |_, &word| {
        let bytes = word.strip_prefix("size=").and_then(number);
        let fits = |&bytes: &u64| {
            (1..=SIZE_BYTES_MAX).contains(&bytes) && bytes.is_multiple_of(PAGE_BYTES as u64)
        };
        bytes.filter(fits).ok_or(word)
    })
}

fn number(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, suffix) = text.split_at(end);
    let shift = match suffix {
        "" => 0,
        "k" | "K" => 10,
        "m" | "M" => 20,
        "g" | "G" => 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec;

    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_nothing_else_changes() {
        let mut disk = RamDisk::new(64 << 10).expect("memory");
        assert_eq!(disk.sectors(), 128);
        let mut model = vec![0_u8; 64 << 10];
        let mut seed = 7_u64;
        let mut random = move |below: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            usize::try_from(seed >> 33).expect("31 bits") % below
        };
        for round in 0..5000_usize {
            let sectors = 1 + random(8);
            let sector = random(128 - sectors + 1);
            let range = sector * 512..(sector + sectors) * 512;
            if random(2) == 0 {
                let data: Vec<u8> =
                    (0..sectors * 512).map(|at| (at ^ (round * 31)).to_le_bytes()[0]).collect();
                model[range].copy_from_slice(&data);
                assert_eq!(disk.write(sector as u64, &data), Ok(()));
            } else {
                let mut out = vec![0xee; sectors * 512];
                assert_eq!(disk.read(sector as u64, &mut out), Ok(()));
                assert_eq!(out, model[range]);
            }
        }
    }

    #[test]
    fn the_last_sector_is_there_and_the_one_behind_it_is_not() {
        let mut disk = RamDisk::new(8192).expect("memory");
        let mut out = [1; 1024];
        assert_eq!(disk.read(15, &mut out[..512]), Ok(()));
        assert_eq!(disk.read(14, &mut out), Ok(()));
        for sector in [15, 16, 1 << 55, u64::MAX / 512, u64::MAX] {
            assert_eq!(disk.read(sector, &mut out), Err(Failed), "{sector}");
            assert_eq!(disk.write(sector, &out), Err(Failed), "{sector}");
        }
        assert_eq!(disk.flush(), Ok(()));
    }

    #[test]
    fn a_size_is_a_number_of_whole_pages() {
        for (words, bytes) in [
            (&[][..], SIZE_BYTES),
            (&["size=4096"], 4096),
            (&["size=12k"], 12 << 10),
            (&["size=16M"], 16 << 20),
            (&["size=1m", "size=1G"], 1 << 30),
            (&["size=1024g"], SIZE_BYTES_MAX),
        ] {
            assert_eq!(size(words), Ok(bytes), "{words:?}");
        }
        for word in [
            "size=",
            "size=0",
            "size=M",
            "size=4095",
            "size=6k",
            "size=4x",
            "size=-4k",
            "4M",
            "sizes=4M",
            "size=1025g",
            "size=99999999999g",
            "size=99999999999999999999",
            "",
        ] {
            assert_eq!(size(&["size=4M", word]), Err(word));
        }
    }
}
