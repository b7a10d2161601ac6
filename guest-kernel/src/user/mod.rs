//! User programs, as far as they are pure: what a program file must look like, which pages of its
//! memory are where, and where the others are in swap.
//!
//! Nothing here touches a page table or a disk: [`pager::Space`] and [`pager::Backing`] do, and
//! the tests here put a model in their place. What a program file or a swap header says is
//! somebody else's word; neither may make anything here panic.

use core::fmt;
use core::ops::Range;

pub mod calls;
pub mod image;
pub mod pager;
pub mod slots;
pub mod swap;
pub mod swap_header;

#[cfg(test)]
mod model;
#[cfg(test)]
mod swap_tests;

/// Bytes of a page.
pub const PAGE_BYTES: u64 = crate::layout::PAGE_BYTES;
/// Where a program's memory is. The kernel has nothing there: Xen keeps user entries in the TLB
/// when it switches to the kernel, so no address may mean one page here and another one there.
pub const WINDOW: Range<u64> = 0x80_0000_0000..0x80_4000_0000;
/// Pages of the window.
pub const PAGES_MAX: u32 = 1 << 18;
// Neither the kernel's frames nor Xen and the kernel's last pages are in it.
const _: () = assert!(WINDOW.start >= crate::layout::FRAMES_MAX * PAGE_BYTES);
const _: () = assert!(WINDOW.end <= 0x8000_0000_0000);

/// The stack, in pages of the window. Below it nothing is mapped, so that a stack that is used up
/// faults, and neither is there anything between it and the image.
pub const STACK: Range<u32> = 16..80;
/// The first page that a program file may fill.
pub const IMAGE_FIRST: u32 = 256;

/// A page of the window, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Page(pub u32);

impl Page {
    /// The page that an address of the window lies in.
    pub fn at(address: u64) -> Option<Self> {
        let offset = address.checked_sub(WINDOW.start).filter(|_| address < WINDOW.end)?;
        u32::try_from(offset / PAGE_BYTES).ok().map(Self)
    }

    /// Its first address.
    pub const fn address(self) -> u64 {
        WINDOW.start + self.0 as u64 * PAGE_BYTES
    }
}

/// A page of a swap area. Page 0 is its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot(pub u32);

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_has_its_pages_and_no_more() {
        assert_eq!(Page::at(WINDOW.start), Some(Page(0)));
        assert_eq!(Page::at(WINDOW.end - 1), Some(Page(PAGES_MAX - 1)));
        for outside in [0, 4096, WINDOW.start - 1, WINDOW.end, u64::MAX] {
            assert_eq!(Page::at(outside), None);
        }
        assert_eq!(Page(1).address(), WINDOW.start + 4096);
    }
}
