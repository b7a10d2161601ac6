//! What a block device is to the kernel.
//!
//! A call does what it is asked before it returns: it never waits. The kernel makes one call at a
//! time, asks only for sectors that are on the device, and never to write one that is read only.
//! So there is no queue and no elevator; the device sees requests in the order in which programs
//! made them.

use core::ffi::c_void;

use crate::Text;

/// Sectors of 512 bytes that one call is about, at most: a page.
pub const TRANSFER_SECTORS_MAX: u64 = 8;

/// What a call of a [`BlockTable`] answers if it did all that it was asked.
pub const DONE: u32 = 0;
/// And if it did not. Any other number but [`DONE`] means the same.
pub const FAILED: u32 = 1;

/// A block device.
///
/// `state` goes with every call; nobody else uses it. If the kernel takes the registration, the
/// state is the kernel's, to be ended once with `destroy`, which is the last call. If it does not,
/// the state stays the module's.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct BlockTable {
    /// What users call it: small letters and then digits, such as `ram0`, at most
    /// [`WORD_MAX`](crate::WORD_MAX) bytes. Names that begin with `xvd` or `vbd` are Xen's.
    pub name: Text,
    /// How many sectors of 512 bytes it has: at least 1, and at most 2^54.
    pub sectors: u64,
    /// 1 if it is never to be written, 0 if it may be.
    pub read_only: u32,
    /// 0.
    pub reserved: u32,
    /// Any word, null too.
    pub state: *mut c_void,
    /// Ends the device. No call of it is made later.
    pub destroy: extern "C" fn(state: *mut c_void),
    /// Reads `sectors` sectors from `sector` on to `data`: 1 to [`TRANSFER_SECTORS_MAX`]. What is
    /// there after [`FAILED`] is not looked at.
    pub read: extern "C" fn(state: *mut c_void, sector: u64, data: *mut u8, sectors: u64) -> u32,
    /// Writes as many from `data`.
    pub write: extern "C" fn(state: *mut c_void, sector: u64, data: *const u8, sectors: u64) -> u32,
    /// Makes durable what was written.
    pub flush: extern "C" fn(state: *mut c_void) -> u32,
}

/// A request that a device did not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed;

/// A block device in Rust.
pub trait BlockDevice {
    /// How many sectors of 512 bytes it has, for good.
    fn sectors(&self) -> u64;

    /// Whether it is never to be written.
    fn is_read_only(&self) -> bool {
        false
    }

    /// Reads the sectors from `sector` on: as many as `out` has room for, 1 to
    /// [`TRANSFER_SECTORS_MAX`].
    ///
    /// # Errors
    /// [`Failed`]: then what is in `out` is not looked at.
    fn read(&mut self, sector: u64, out: &mut [u8]) -> Result<(), Failed>;

    /// Writes as many.
    ///
    /// # Errors
    /// [`Failed`].
    fn write(&mut self, sector: u64, data: &[u8]) -> Result<(), Failed>;

    /// Makes durable what was written.
    ///
    /// # Errors
    /// [`Failed`]: then nothing that was written since the last good flush is.
    fn flush(&mut self) -> Result<(), Failed>;
}
