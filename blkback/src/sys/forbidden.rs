//! For tests: calls that nothing here makes, to see them refused.

use std::io;
use std::os::fd::AsFd;

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

use super::{call, opcode};

const PAGE_BYTES: usize = 4096;

/// `IOCTL_PRIVCMD_HYPERCALL` (`include/uapi/xen/privcmd.h` of Linux) with arguments of zeros.
pub(crate) fn hypercall(node: impl AsFd) -> io::Result<()> {
    // SAFETY: `struct privcmd_hypercall` is the number and five arguments of 64 bits each.
    unsafe { call(node, opcode(b'P', 0, 48), &mut [0_u64; 6]) }?;
    Ok(())
}

/// `TIOCSTI`: types into the terminal of whoever started us.
pub(crate) fn terminal(node: impl AsFd) -> io::Result<()> {
    // SAFETY: the argument is one byte.
    unsafe { call(node, 0x5412, &mut [b'x']) }?;
    Ok(())
}

/// A page that can be written and executed.
pub(crate) fn executable_memory() -> io::Result<()> {
    let rights = ProtFlags::READ | ProtFlags::WRITE | ProtFlags::EXEC;
    map(rights).map(drop)
}

/// A page that was written and is to be executed.
pub(crate) fn executable_later() -> io::Result<()> {
    let page = map(ProtFlags::READ | ProtFlags::WRITE)?;
    let rights = MprotectFlags::READ | MprotectFlags::EXEC;
    // SAFETY: the page is ours alone.
    unsafe { mprotect(page.0, PAGE_BYTES, rights) }?;
    Ok(())
}

struct Mapped(*mut core::ffi::c_void);

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the page is ours alone, and nothing refers to it.
        let _ = unsafe { munmap(self.0, PAGE_BYTES) };
    }
}

fn map(rights: ProtFlags) -> io::Result<Mapped> {
    let nowhere = std::ptr::null_mut();
    // SAFETY: a new mapping at an address of the kernel's choice touches no memory in use.
    let page = unsafe { mmap_anonymous(nowhere, PAGE_BYTES, rights, MapFlags::PRIVATE) };
    Ok(Mapped(page?))
}
