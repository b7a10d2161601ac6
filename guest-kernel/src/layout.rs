//! Where things lie in the guest's address space, and what may be done with them.
//!
//! One rule: the virtual address of frame `n` is `n * 4096`, before and after the kernel switches
//! from Xen's boot page tables to its own. Every frame has that one mapping, so a frame that is
//! not writable there is not writable at all. Pages of Xen's own (the shared page, the grant
//! table) are no frames of ours and lie in the last 2 MiB of the address space.
//!
//! Pure arithmetic: tables are built in `arch`.

use core::ops::Range;

use x86_64::VirtAddr;
use x86_64::structures::paging::PageTableFlags;
use xen::Pfn;

/// Bytes of a page, and of a frame.
pub const PAGE_BYTES: u64 = 4096;
/// Frames that one page of level-1 entries maps: 2 MiB.
pub const FRAMES_PER_TABLE: u64 = 512;
/// The most memory that is used, in frames (512 GiB: one page of level-3 entries).
pub const FRAMES_MAX: u64 = 1 << 27;

/// Where the shared page is mapped.
pub const SHARED_INFO: VirtAddr = VirtAddr::new(0xffff_ffff_ffe0_0000);
/// Where the first frame of the grant table is mapped; the others follow.
pub const GRANT_TABLE: VirtAddr = VirtAddr::new(0xffff_ffff_ffe0_1000);
/// The most frames of the grant table that are mapped (Xen's own default limit): 32768 entries.
pub const GRANT_FRAMES_MAX: u32 = 64;

/// The virtual address of a frame.
///
/// # Panics
/// If the frame is beyond [`FRAMES_MAX`].
pub fn address_of(frame: Pfn) -> VirtAddr {
    assert!(frame.0 < FRAMES_MAX, "frame {frame} has no address");
    VirtAddr::new(frame.0 * PAGE_BYTES)
}

/// The frame that a virtual address lies in, if it is one of ours.
pub fn frame_of(address: VirtAddr) -> Pfn {
    Pfn(address.as_u64() / PAGE_BYTES)
}

/// What a page is for. There is no writable code, and data is not executable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Not mapped: any access faults.
    Nothing,
    /// Instructions.
    Code,
    /// Read only.
    Constant,
    /// Read and write.
    Data,
}

impl Use {
    /// The flags of the level-1 entry; `None` if there is to be no entry. Xen adds the user bit
    /// itself, because a 64-bit PV kernel runs in ring 3. It must not be there already: Xen takes
    /// such an entry for one of a program and makes it global, so that it would stay in the TLB
    /// and be readable while a program runs.
    pub fn flags(self) -> Option<PageTableFlags> {
        let read = PageTableFlags::PRESENT;
        match self {
            Self::Nothing => None,
            Self::Code => Some(read),
            Self::Constant => Some(read | PageTableFlags::NO_EXECUTE),
            Self::Data => Some(read | PageTableFlags::WRITABLE | PageTableFlags::NO_EXECUTE),
        }
    }
}

/// The flags of entries above level 1: what is forbidden is forbidden at level 1.
pub fn table_flags() -> PageTableFlags {
    PageTableFlags::PRESENT | PageTableFlags::WRITABLE | PageTableFlags::USER_ACCESSIBLE
}

/// How many page tables map the first `frames` frames and the last 2 MiB of the address space.
pub fn tables_for(frames: u64) -> u64 {
    let first = frames.div_ceil(FRAMES_PER_TABLE);
    let second = first.div_ceil(FRAMES_PER_TABLE);
    // The identity's levels 1 to 3, levels 1 to 3 of the last 2 MiB, and the root.
    first + second + 1 + 3 + 1
}

/// The parts of the kernel image, as the linker script lays them out, in frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Instructions.
    pub text: Range<u64>,
    /// Constants.
    pub rodata: Range<u64>,
    /// Data, cleared data and stack, with the guard page in between.
    pub data: Range<u64>,
    /// The page below the stack.
    pub guard: u64,
}

/// What is in memory when the page tables are built, in frames. All but `image` lies behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootMap {
    /// The kernel.
    pub image: Image,
    /// The list of machine frames: nobody writes it.
    pub frame_list: Range<u64>,
    /// Xen's boot page tables: must not be writable while they are in use.
    pub boot_tables: Range<u64>,
    /// Ours.
    pub own_tables: Range<u64>,
}

impl BootMap {
    /// What the page of `frame` is for.
    pub fn purpose(&self, frame: u64) -> Use {
        let image = &self.image;
        let constants = [&image.rodata, &self.frame_list, &self.boot_tables, &self.own_tables];
        if frame == 0 || frame == image.guard {
            Use::Nothing
        } else if image.text.contains(&frame) {
            Use::Code
        } else if constants.iter().any(|range| range.contains(&frame)) {
            Use::Constant
        } else {
            Use::Data
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map() -> BootMap {
        BootMap {
            image: Image { text: 1..10, rodata: 10..14, data: 14..30, guard: 16 },
            frame_list: 30..32,
            boot_tables: 34..41,
            own_tables: 42..51,
        }
    }

    #[test]
    fn nothing_is_writable_and_executable() {
        for purpose in [Use::Code, Use::Constant, Use::Data] {
            let flags = purpose.flags().expect("these are mapped");
            let writable = flags.contains(PageTableFlags::WRITABLE);
            assert!(!writable || flags.contains(PageTableFlags::NO_EXECUTE), "{purpose:?}");
            assert_eq!(writable, purpose == Use::Data);
        }
    }

    #[test]
    fn null_and_the_guard_page_are_not_mapped() {
        assert_eq!(map().purpose(0), Use::Nothing);
        assert_eq!(map().purpose(16), Use::Nothing);
        assert_eq!(Use::Nothing.flags(), None);
    }

    #[test]
    fn each_part_has_its_own_permissions() {
        let expected = [
            (1, Use::Code),
            (9, Use::Code),
            (10, Use::Constant),
            (13, Use::Constant),
            (14, Use::Data),
            (15, Use::Data),
            (17, Use::Data),
            (30, Use::Constant),
            (32, Use::Data),
            (34, Use::Constant),
            (40, Use::Constant),
            (41, Use::Data),
            (42, Use::Constant),
            (51, Use::Data),
        ];
        for (frame, purpose) in expected {
            assert_eq!(map().purpose(frame), purpose, "frame {frame}");
        }
    }

    #[test]
    fn tables_are_counted_at_each_level() {
        assert_eq!(tables_for(1), 7);
        assert_eq!(tables_for(512), 7);
        assert_eq!(tables_for(513), 8);
        assert_eq!(tables_for(512 * 512), 512 + 6);
        assert_eq!(tables_for(512 * 512 + 1), 513 + 7);
    }

    #[test]
    fn an_address_and_its_frame_belong_together() {
        for frame in [0, 1, 1023, FRAMES_MAX - 1] {
            assert_eq!(frame_of(address_of(Pfn(frame))), Pfn(frame));
        }
    }

    #[test]
    #[should_panic(expected = "has no address")]
    fn the_first_frame_past_the_limit_has_no_address() {
        let _ = address_of(Pfn(FRAMES_MAX));
    }
}
