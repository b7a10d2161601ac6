//! What a session asks of a disk: take a batch of jobs, and say later how each ended.
//!
//! A job brings its memory along as handles that keep pages alive, and its completion brings them
//! back, so that a page cannot be unmapped under the device. Wrappers of this trait trace, delay
//! or fail; a disk must never reorder a flush before a write that it was given earlier and has
//! completed, and never invent success.

mod memory;

use std::collections::TryReserveError;
use std::fmt;

pub use memory::MemoryDisk;

/// A run of bytes in one page.
#[derive(Clone, Debug)]
pub struct Extent<P> {
    /// The page, kept alive by this handle.
    pub page: P,
    /// First byte; a multiple of 512.
    pub offset_bytes: u16,
    /// Number of bytes, 512 to 4096; the run stays inside the page.
    pub length_bytes: u16,
}

/// What a job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Disk to memory.
    Read,
    /// Memory to disk.
    Write,
    /// Makes every write that has completed durable. No extents.
    Flush,
    /// Tells that these bytes are not needed any more. No extents.
    Discard {
        /// How many.
        length_bytes: u64,
    },
}

/// One job.
#[derive(Debug)]
pub struct Job<P> {
    /// The session's name for it, given back in [`Done`]. Not given twice at a time.
    pub tag: u32,
    /// What to do.
    pub verb: Verb,
    /// Where on the disk; a multiple of 512. The session has checked that the end is inside.
    pub offset_bytes: u64,
    /// The memory, in the order of the disk's bytes.
    pub extents: Vec<Extent<P>>,
}

impl<P> Job<P> {
    /// How many bytes the extents hold.
    pub fn length_bytes(&self) -> u64 {
        self.extents.iter().map(|extent| u64::from(extent.length_bytes)).sum()
    }
}

/// Why a job failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskError {
    /// The device or the file system said so (an errno).
    Errno(i32),
    /// The image ended before the job did: it was cut short behind our back.
    Short,
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Errno(number) => std::io::Error::from_raw_os_error(*number).fmt(f),
            Self::Short => f.write_str("the image is shorter than it was"),
        }
    }
}

impl std::error::Error for DiskError {}

/// How a job ended.
#[derive(Debug)]
pub struct Done<P> {
    /// The job's tag.
    pub tag: u32,
    /// The job's memory.
    pub extents: Vec<Extent<P>>,
    /// How many bytes were read or written before the failure, if there was one.
    pub done_bytes: u64,
    /// What became of it.
    pub result: Result<(), DiskError>,
}

/// What a disk can do besides reading and writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Sectors of 512 bytes.
    pub sectors: u64,
    /// The unit in which the device works, in bytes: advice for the guest.
    pub physical_sector_size: u32,
    /// Whether writes are refused.
    pub read_only: bool,
    /// The unit of discards, in bytes, if the disk takes any.
    pub discard_granularity: Option<u32>,
}

/// A disk that takes its memory as handles `P`.
///
/// Jobs may end in any order; ordering between a flush and the writes before it is the caller's,
/// who gives a flush only when those writes have ended.
pub trait Disk<P> {
    /// The size and the abilities, as they were when the disk was taken into use: since then it may
    /// have grown.
    fn profile(&self) -> Profile;

    /// Takes all of `batch`, in its order, and leaves it empty. Nothing is waited for.
    fn submit(&mut self, batch: &mut Vec<Job<P>>);

    /// One job that ended, if any has. Nothing is waited for.
    fn reap(&mut self) -> Option<Done<P>>;
}

/// No memory for a disk of this size.
pub type NoMemory = TryReserveError;
