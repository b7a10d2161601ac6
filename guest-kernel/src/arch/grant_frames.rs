//! The frames of the grant table, mapped one by one as the table grows.

use xen::DomainId;
use xen::Mfn;
use xen::abi::{GRANT_ENTRIES_PER_FRAME, GrantEntry, GrantOp, GrantStatus, Hypercall, SetupTable};

use super::hypercall::{Errno, hypercall};
use super::paging::map_shared;
use crate::layout::{GRANT_FRAMES_MAX, GRANT_TABLE, PAGE_BYTES};

/// Entries in one frame.
const PER_FRAME: usize = GRANT_ENTRIES_PER_FRAME as usize;

/// The grant table as far as it is mapped. There is one in the domain, so there is one value.
#[derive(Debug)]
pub(crate) struct GrantFrames {
    mapped: u32,
}

impl GrantFrames {
    /// No frame is mapped yet.
    pub(crate) const fn new() -> Self {
        Self { mapped: 0 }
    }

    /// How many frames are mapped.
    pub(crate) fn count(&self) -> u32 {
        self.mapped
    }

    /// Asks Xen for one more frame, maps it, and tells which entries it brought.
    ///
    /// # Errors
    /// What Xen said; `ENOSPC` (28) at [`GRANT_FRAMES_MAX`].
    pub(crate) fn grow(&mut self) -> Result<core::ops::Range<u32>, Errno> {
        let index = self.mapped;
        if index >= GRANT_FRAMES_MAX {
            return Err(Errno(28));
        }
        let mut frames = [0_u64; GRANT_FRAMES_MAX as usize];
        let mut argument = SetupTable {
            dom: DomainId::SELF,
            nr_frames: index + 1,
            status: 0,
            frame_list: frames.as_mut_ptr().expose_provenance() as u64,
        };
        let address = (&raw mut argument).expose_provenance() as u64;
        // SAFETY: Xen reads one structure, writes its status, and as many frames as were asked
        // for, which is at most the length of the array.
        unsafe { hypercall(Hypercall::GrantTableOp, [GrantOp::SetupTable as u64, address, 1, 0]) }?;
        if argument.status != GrantStatus::Okay as i16 {
            return Err(Errno(i64::from(argument.status)));
        }
        let place = GRANT_TABLE + u64::from(index) * PAGE_BYTES;
        // SAFETY: Xen just said that this frame is the table's; the place is kept for it.
        unsafe { map_shared(place, Mfn(frames[index as usize])) }?;
        self.mapped += 1;
        Ok(index * GRANT_ENTRIES_PER_FRAME..self.mapped * GRANT_ENTRIES_PER_FRAME)
    }

    /// An entry of the table; `None` if it is not mapped.
    pub(crate) fn entry(&self, index: u32) -> Option<&'static GrantEntry> {
        if index / GRANT_ENTRIES_PER_FRAME >= self.mapped {
            return None;
        }
        let table = GRANT_TABLE.as_ptr::<[GrantEntry; PER_FRAME]>();
        let frame = table.wrapping_add((index / GRANT_ENTRIES_PER_FRAME) as usize);
        // SAFETY: the frame was mapped at this address by `grow`, for good; entries are atomic.
        let entries = unsafe { &*frame };
        entries.get((index % GRANT_ENTRIES_PER_FRAME) as usize)
    }
}
