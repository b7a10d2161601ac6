//! A disk of either kind, for programs that do not care which.
//!
//! An enum and no trait object: what a request costs on a disk with a back is a comparison more.

use blkfront::{BUFFER_BYTES_MAX, Buffer, Counters, Disk, Local, Refused, SubmitError, Tag};
use blkif::{Geometry, Operation};

use crate::programs::Machine;

/// What a disk says of its elevator if it has none.
pub(crate) const NO_ELEVATOR: &str = "none";

/// A disk in service. Its verbs are those of [`Disk`].
pub enum AnyDisk<'a, M: Machine> {
    /// A back serves it.
    Front(&'a mut Disk<M::Grants, M::Events>),
    /// A module serves it.
    Local(&'a mut Local<M::Grants>),
}

/// The same of whichever it is.
macro_rules! of {
    ($any:expr, $disk:ident => $same:expr) => {
        match $any {
            AnyDisk::Front($disk) => $same,
            AnyDisk::Local($disk) => $same,
        }
    };
}

impl<M: Machine> AnyDisk<'_, M> {
    /// As [`Disk::buffer`].
    pub fn buffer(&self, length_bytes: usize) -> Option<Buffer<M::Grants>> {
        of!(self, disk => disk.buffer(length_bytes))
    }

    /// As [`Disk::buffer_bytes_max`].
    pub fn buffer_bytes_max(&self) -> usize {
        match self {
            Self::Front(disk) => disk.buffer_bytes_max(),
            Self::Local(_) => BUFFER_BYTES_MAX,
        }
    }

    /// As [`Disk::submit`].
    ///
    /// # Errors
    /// [`Refused`], with the buffer.
    pub fn submit(
        &mut self,
        operation: Operation,
        sector: u64,
        buffer: Buffer<M::Grants>,
    ) -> Result<Tag, Refused<M::Grants>> {
        of!(self, disk => disk.submit(operation, sector, buffer))
    }

    /// As [`Disk::flush`].
    ///
    /// # Errors
    /// [`SubmitError`].
    pub fn flush(&mut self) -> Result<Tag, SubmitError> {
        of!(self, disk => disk.flush())
    }

    /// As [`Disk::kick`].
    pub fn kick(&mut self) {
        match self {
            Self::Front(disk) => disk.kick(),
            // What was submitted is done.
            Self::Local(_) => {}
        }
    }

    /// Whether it can flush.
    pub fn has_flush(&self) -> bool {
        match self {
            Self::Front(disk) => disk.agreed().flush(),
            Self::Local(_) => true,
        }
    }

    /// As [`Disk::geometry`].
    pub fn geometry(&self) -> &Geometry {
        of!(self, disk => disk.geometry())
    }

    /// As [`Disk::counters`].
    pub fn counters(&self) -> &Counters {
        of!(self, disk => disk.counters())
    }

    /// As [`Disk::elevator`].
    pub fn elevator(&self) -> &str {
        match self {
            Self::Front(disk) => disk.elevator(),
            Self::Local(_) => NO_ELEVATOR,
        }
    }

    /// As [`Disk::in_flight`].
    pub fn in_flight(&self) -> usize {
        of!(self, disk => disk.in_flight())
    }

    /// As [`Disk::free_slots`].
    pub fn free_slots(&self) -> u32 {
        of!(self, disk => disk.free_slots())
    }

    /// As [`Disk::capacity`].
    pub fn capacity(&self) -> usize {
        of!(self, disk => disk.capacity())
    }

    /// As [`Disk::free_pages`].
    pub fn free_pages(&self) -> usize {
        of!(self, disk => disk.free_pages())
    }
}

impl<M: Machine> core::fmt::Debug for AnyDisk<'_, M> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Front(_) => "Front",
            Self::Local(_) => "Local",
        })
    }
}
