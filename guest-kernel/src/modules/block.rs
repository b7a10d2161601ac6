//! A module's block device as the medium of a disk.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::ffi::c_void;
use core::sync::atomic::{AtomicPtr, Ordering};

use blkfront::Medium;
use blkif::{Geometry, Info, SECTORS_PER_PAGE, Status};
use module_abi::{BlockTable, DONE, Refused, TRANSFER_SECTORS_MAX};

use super::Block;

// A local disk is asked for a page at a time.
const _: () = assert!(TRANSFER_SECTORS_MAX == SECTORS_PER_PAGE as u64);

/// What the names of Xen's disks begin with, those that are not there yet too.
const XENS: [&str; 2] = ["xvd", "vbd"];

/// A device of a module. It ends when this is dropped: its code must be in memory until then.
#[derive(Debug)]
pub(super) struct Served {
    /// Only for one at a time, but by whom does not matter.
    state: AtomicPtr<c_void>,
    destroy: extern "C" fn(*mut c_void),
    read: extern "C" fn(*mut c_void, u64, *mut u8, u64) -> u32,
    write: extern "C" fn(*mut c_void, u64, *const u8, u64) -> u32,
    flush: extern "C" fn(*mut c_void) -> u32,
}

impl Served {
    /// Takes the device over from the module.
    pub(super) fn new(table: &BlockTable) -> Self {
        let BlockTable { state, destroy, read, write, flush, .. } = *table;
        Self { state: AtomicPtr::new(state), destroy, read, write, flush }
    }

    fn state(&self) -> *mut c_void {
        self.state.load(Ordering::Relaxed)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        (self.destroy)(self.state());
    }
}

impl Block {
    /// What serves the disk. It holds on to `code`, without which its functions are not in memory.
    pub fn medium<C: 'static>(self, code: &Arc<C>) -> Box<dyn Medium> {
        Box::new(Loaded { served: self.served, _code: Arc::clone(code) })
    }
}

/// A device of a module, and its code.
struct Loaded<C> {
    served: Served,
    /// Dropped last.
    _code: Arc<C>,
}

impl<C> Medium for Loaded<C> {
    fn read(&mut self, sector: u64, out: &mut [u8]) -> Status {
        let sectors = (out.len() / 512) as u64;
        status((self.served.read)(self.served.state(), sector, out.as_mut_ptr(), sectors))
    }

    fn write(&mut self, sector: u64, data: &[u8]) -> Status {
        let sectors = (data.len() / 512) as u64;
        status((self.served.write)(self.served.state(), sector, data.as_ptr(), sectors))
    }

    fn flush(&mut self) -> Status {
        status((self.served.flush)(self.served.state()))
    }
}

fn status(answer: u32) -> Status {
    if answer == DONE { Status::Okay } else { Status::Error }
}

/// The size and the nature of a device.
pub(super) fn geometry(table: &BlockTable) -> Result<Geometry, Refused> {
    let size = Some(table.sectors).filter(|&size| size > 0);
    let plain = size.and_then(|size| Geometry::new(size).ok()).ok_or(Refused::BadSize)?;
    let info = if table.read_only == 0 { Info::empty() } else { Info::READ_ONLY };
    Ok(Geometry { info, ..plain })
}

/// Passes what a disk can be called: letters and then digits, so that it never looks like a
/// partition of another one (`ram0p1`); and never what a disk of Xen's may be called.
pub(super) fn check_name(name: &str) -> Result<(), Refused> {
    if XENS.iter().any(|prefix| name.starts_with(prefix)) {
        return Err(Refused::NameTaken);
    }
    let digits = name.trim_start_matches(|c: char| c.is_ascii_lowercase());
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if is_number && digits.len() < name.len() { Ok(()) } else { Err(Refused::BadName) }
}

#[cfg(test)]
mod tests;
