//! The grant table: which of our pages other domains may map.
//!
//! Entries are given out from a free list of our own and are never read back to decide anything
//! but whether the peer still uses one.

use crossbeam_queue::SegQueue;
use spin::{Mutex, Once};
use xen::abi::{GRANT_ENTRIES_PER_FRAME, GRANT_ENTRIES_RESERVED, GrantFlags};
use xen::{Access, DomainId, GrantError, GrantRef, Grants, StillMapped};

use crate::arch::{self, Errno, GrantFrames, OwnedPage};

struct Table {
    frames: Mutex<GrantFrames>,
    free: SegQueue<u32>,
}

static TABLE: Once<Table> = Once::new();

/// How much of the grant table is in use, in entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrantFigures {
    /// Entries that are free now.
    pub free: usize,
    /// Entries in use: pages that other domains may use, or still use.
    pub used: usize,
    /// Frames that the table may have.
    pub frames_max: u32,
}

/// The grant table of this domain. A handle: all copies mean the same.
#[derive(Clone, Copy)]
pub struct GrantTable(&'static Table);

impl core::fmt::Debug for GrantTable {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("GrantTable").field("figures", &self.figures()).finish()
    }
}

impl GrantTable {
    /// Sets the table up with its first frame; it grows when it is full.
    ///
    /// # Errors
    /// What Xen said.
    pub(crate) fn open() -> Result<Self, Errno> {
        let table = TABLE
            .call_once(|| Table { frames: Mutex::new(GrantFrames::new()), free: SegQueue::new() });
        let table = Self(table);
        table.grow()?;
        Ok(table)
    }

    fn grow(&self) -> Result<(), Errno> {
        let entries = self.0.frames.lock().grow()?;
        entries
            .filter(|&entry| entry >= GRANT_ENTRIES_RESERVED)
            .for_each(|entry| self.0.free.push(entry));
        Ok(())
    }

    /// How much of the table is in use.
    pub fn figures(&self) -> GrantFigures {
        let frames_max = arch::grant_table_size().unwrap_or(0);
        let free = self.0.free.len();
        let entries = self.0.frames.lock().count() * GRANT_ENTRIES_PER_FRAME;
        let used = (entries.saturating_sub(GRANT_ENTRIES_RESERVED) as usize).saturating_sub(free);
        GrantFigures { free, used, frames_max }
    }
}

impl Grants for GrantTable {
    type Page = OwnedPage;

    fn page(&self) -> Option<OwnedPage> {
        arch::own_page()
    }

    fn grant(
        &self,
        page: &OwnedPage,
        to: DomainId,
        access: Access,
    ) -> Result<GrantRef, GrantError> {
        // Version 1 entries hold 32 bits: machines above 16 TiB need version 2.
        let frame = u32::try_from(page.machine_frame().0).map_err(|_| GrantError::TableFull)?;
        let index = match self.0.free.pop() {
            Some(index) => index,
            None => {
                self.grow().map_err(|_| GrantError::TableFull)?;
                self.0.free.pop().ok_or(GrantError::TableFull)?
            }
        };
        let entry = self.0.frames.lock().entry(index).expect("free entries are mapped");
        entry.grant(to, frame, access);
        Ok(GrantRef(index))
    }

    fn revoke(&self, reference: GrantRef) -> Result<(), StillMapped> {
        let entry = self.0.frames.lock().entry(reference.0);
        let entry = entry.expect("a reference that was given out");
        // An entry that is freed twice would be given to two pages.
        assert!(entry.flags().contains(GrantFlags::PERMIT_ACCESS), "revoked twice: {reference}");
        entry.revoke()?;
        self.0.free.push(reference.0);
        Ok(())
    }
}
