//! Grant tables, version 1 (`grant_table.h`).

use core::mem::size_of;
use core::sync::atomic::{AtomicU32, Ordering};

use bitflags::bitflags;

use crate::{Access, DomainId, StillMapped};

/// Entries in one frame of the table.
pub const GRANT_ENTRIES_PER_FRAME: u32 = 512;
/// Entries at the start of the table that the toolstack may have filled
/// (`GNTTAB_NR_RESERVED_ENTRIES`): never to be given out.
pub const GRANT_ENTRIES_RESERVED: u32 = 8;
/// How often [`GrantEntry::revoke`] tries while the peer maps and unmaps.
pub const GRANT_REVOKE_TRIES_MAX: u32 = 64;

bitflags! {
    /// What an entry permits, and what the peer is doing with it (`GTF_*`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[repr(transparent)]
    pub struct GrantFlags: u16 {
        /// The frame may be mapped or copied.
        const PERMIT_ACCESS = 1;
        /// Only for reading.
        const READONLY = 1 << 2;
        /// Set by Xen: mapped, at least for reading.
        const READING = 1 << 3;
        /// Set by Xen: mapped for writing.
        const WRITING = 1 << 4;
        const _ = !0;
    }
}

/// One entry of the table (`struct grant_entry_v1`).
///
/// In C an entry is 16 bits of flags, 16 bits of domain, 32 bits of frame. Flags and domain are
/// one 32-bit word here: Xen itself compares and exchanges the two together, x86 is little-endian
/// so that the flags are the lower half, and every access of ours then has one width, the same as
/// that of [`ring::Page`]. A half-word exchange next to a full-word store would be an access of
/// mixed sizes, which has no defined meaning.
#[derive(Debug)]
#[repr(C)]
pub struct GrantEntry {
    /// Flags in the lower half, domain in the upper.
    pub(super) header: AtomicU32,
    /// The **machine** frame.
    pub(super) frame: AtomicU32,
}

const _: () = assert!(size_of::<GrantEntry>() == 8);

impl GrantEntry {
    /// An entry that grants nothing.
    pub const fn new() -> Self {
        Self { header: AtomicU32::new(0), frame: AtomicU32::new(0) }
    }

    /// Lets `to` map machine frame `frame`. The entry must not be in use.
    pub fn grant(&self, to: DomainId, frame: u32, access: Access) {
        let flags = match access {
            Access::Read => GrantFlags::PERMIT_ACCESS | GrantFlags::READONLY,
            Access::Write => GrantFlags::PERMIT_ACCESS,
        };
        self.frame.store(frame, Ordering::Relaxed);
        let header = u32::from(flags.bits()) | u32::from(to.0) << 16;
        // Release: Xen must not see the permission before the frame that it is for.
        self.header.store(header, Ordering::Release);
    }

    /// Takes the permission back, unless the peer is using it.
    ///
    /// # Errors
    /// [`StillMapped`] if Xen has marked the entry as in use, or if the peer mapped and unmapped it
    /// between each of [`GRANT_REVOKE_TRIES_MAX`] looks of ours. The grant stands.
    pub fn revoke(&self) -> Result<(), StillMapped> {
        let mut header = self.header.load(Ordering::Relaxed);
        for _ in 0..GRANT_REVOKE_TRIES_MAX {
            if flags_of(header).intersects(GrantFlags::READING | GrantFlags::WRITING) {
                return Err(StillMapped);
            }
            // SeqCst: what the caller does with the page comes after, and the peer's last use of
            // it before. The partner is Xen's own locked exchange of this word.
            match self.header.compare_exchange(header, 0, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(now) => header = now,
            }
        }
        Err(StillMapped)
    }

    /// What the entry permits, and whether it is in use.
    pub fn flags(&self) -> GrantFlags {
        flags_of(self.header.load(Ordering::Relaxed))
    }

    /// The domain and the machine frame; meaningful while the entry permits something.
    pub fn target(&self) -> (DomainId, u32) {
        let [_, _, low, high] = self.header.load(Ordering::Acquire).to_le_bytes();
        (DomainId(u16::from_le_bytes([low, high])), self.frame.load(Ordering::Relaxed))
    }
}

impl Default for GrantEntry {
    fn default() -> Self {
        Self::new()
    }
}

fn flags_of(header: u32) -> GrantFlags {
    let [low, high, ..] = header.to_le_bytes();
    GrantFlags::from_bits_retain(u16::from_le_bytes([low, high]))
}

/// The operation of [`Hypercall::GrantTableOp`](super::Hypercall::GrantTableOp) (`GNTTABOP_*`).
/// The argument is an array, and each element has its own status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum GrantOp {
    /// Makes the table at least so large and tells its frames: [`SetupTable`].
    SetupTable = 2,
    /// Tells how large the table is and may become: [`QuerySize`].
    QuerySize = 6,
}

/// How one grant operation went (`GNTST_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i16)]
pub enum GrantStatus {
    /// Done.
    Okay = 0,
    /// Undefined error.
    GeneralError = -1,
    /// No such domain.
    BadDomain = -2,
    /// No such reference, or not for us.
    BadReference = -3,
    /// No such mapping.
    BadHandle = -4,
    /// The virtual address does not fit.
    BadAddress = -5,
    /// The device address does not fit.
    BadDeviceAddress = -6,
    /// Out of space in the device's address space.
    NoDeviceSpace = -7,
    /// Not permitted, or not in this way.
    PermissionDenied = -8,
    /// The frame does not fit.
    BadPage = -9,
    /// The copy would cross a page.
    BadCopy = -10,
    /// The frame is too high.
    AddressTooBig = -11,
    /// The page is not there just now: try again.
    Again = -12,
    /// Out of space for mappings.
    NoSpace = -13,
}

/// Argument of [`GrantOp::SetupTable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct SetupTable {
    /// Whose table: [`DomainId::SELF`].
    pub dom: DomainId,
    /// How many frames it shall have.
    pub nr_frames: u32,
    /// Answer: a [`GrantStatus`].
    pub status: i16,
    /// Address where Xen writes the machine frames, one `u64` each.
    pub frame_list: u64,
}

/// Argument of [`GrantOp::QuerySize`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct QuerySize {
    /// Whose table: [`DomainId::SELF`].
    pub dom: DomainId,
    /// Answer: how many frames it has.
    pub nr_frames: u32,
    /// Answer: how many it may have.
    pub max_nr_frames: u32,
    /// Answer: a [`GrantStatus`].
    pub status: i16,
}

const _: () = assert!(size_of::<SetupTable>() == 24);
const _: () = assert!(size_of::<QuerySize>() == 16);
