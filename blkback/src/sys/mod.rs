//! The device nodes and the `io_uring` of Dom0: the one place with unsafe code.
//!
//! Exists so that everything else can be written against the seam and tested without Xen. Each
//! unsafe block does one operation and names the rule that makes it sound. It must never decide
//! anything: policy is above.
#![allow(unsafe_code, reason = "ioctls, mappings and io_uring cannot be had without it")]

mod evtchn;
#[cfg(test)]
pub(crate) mod forbidden;
mod gntdev;
mod uring;

pub use evtchn::Channels;
pub use gntdev::{GrantDevice, MappedPage};
pub use uring::{Patience, UringDisk, Woken};

/// The ioctls that serving takes.
pub(crate) const DEVICE_REQUESTS: [Opcode; 7] = [
    evtchn::BIND_INTERDOMAIN,
    evtchn::UNBIND,
    evtchn::NOTIFY,
    gntdev::MAP_GRANT_REF,
    gntdev::UNMAP_GRANT_REF,
    gntdev::SET_UNMAP_NOTIFY,
    gntdev::GRANT_COPY,
];
/// The ioctl that ties a handle on event channels to one guest.
pub(crate) const RESTRICT: Opcode = evtchn::RESTRICT;

use rustix::fd::AsFd;
use rustix::ioctl::{self, Direction, IoctlOutput, Opcode};

/// An ioctl of a Xen device node: all of them are numbered without a direction and take a pointer
/// to a structure that the kernel may write to.
struct Call {
    opcode: Opcode,
    argument: *mut core::ffi::c_void,
}

// SAFETY: `Call` is made by `call` only, whose callers vouch for opcode and argument; it is always
// declared as mutating, and its output is the plain number that the kernel returned.
unsafe impl ioctl::Ioctl for Call {
    type Output = IoctlOutput;
    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        self.opcode
    }

    fn as_ptr(&mut self) -> *mut core::ffi::c_void {
        self.argument
    }

    unsafe fn output_from_ptr(
        out: IoctlOutput,
        _: *mut core::ffi::c_void,
    ) -> rustix::io::Result<IoctlOutput> {
        Ok(out)
    }
}

/// `_IOC(_IOC_NONE, group, number, size_bytes)`.
const fn opcode(group: u8, number: u8, size_bytes: usize) -> Opcode {
    ioctl::opcode::from_components(Direction::None, group, number, size_bytes)
}

/// Makes an ioctl whose argument is the structure at `words`.
///
/// # Safety
/// `words` has the layout that the driver behind `fd` expects for `opcode`: at least as long as
/// what the driver reads and writes there, and every pointer in it is valid for what the driver
/// does through it.
unsafe fn call<T>(fd: impl AsFd, opcode: Opcode, words: &mut [T]) -> rustix::io::Result<i32> {
    let call = Call { opcode, argument: words.as_mut_ptr().cast() };
    // SAFETY: the caller vouches for opcode and argument.
    unsafe { ioctl::ioctl(fd, call) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opcodes_are_those_of_the_kernel_headers() {
        assert_eq!(opcode(b'G', 0, 24), 0x18_4700);
        assert_eq!(opcode(b'G', 1, 16), 0x10_4701);
        assert_eq!(opcode(b'G', 7, 16), 0x10_4707);
        assert_eq!(opcode(b'G', 8, 16), 0x10_4708);
        assert_eq!(opcode(b'E', 1, 8), 0x08_4501);
        assert_eq!(opcode(b'E', 3, 4), 0x04_4503);
        assert_eq!(opcode(b'E', 4, 4), 0x04_4504);
        assert_eq!(opcode(b'E', 6, 2), 0x02_4506);
    }
}
