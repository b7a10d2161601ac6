//! Pages that a guest granted, over `/dev/xen/gntdev` (`include/uapi/xen/gntdev.h` of Linux).
//!
//! Many references are mapped by one ioctl and one `mmap`, and unmapped together when the last
//! handle to any of them is dropped. It must never hand out a page past that moment, nor leave a
//! mapping behind when a step fails.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use ring::{PAGE_SIZE, Page};
use rustix::ioctl::Opcode;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use xen::{Access, Direction, DomainId, GrantCopy, GrantRef, MapError, Maps, Port};

use super::{call, opcode};

pub(super) const MAP_GRANT_REF: Opcode = opcode(b'G', 0, 24);
pub(super) const UNMAP_GRANT_REF: Opcode = opcode(b'G', 1, 16);
pub(super) const SET_UNMAP_NOTIFY: Opcode = opcode(b'G', 7, 16);
pub(super) const GRANT_COPY: Opcode = opcode(b'G', 8, 16);

/// `UNMAP_NOTIFY_SEND_EVENT`.
const SEND_EVENT: u32 = 2;
/// `GNTCOPY_source_gref` and `GNTCOPY_dest_gref`.
const SOURCE_IS_GRANT: u16 = 1;
const DESTINATION_IS_GRANT: u16 = 2;
/// `GNTST_okay`.
const OKAY: i16 = 0;

/// The right to map what one or more guests granted.
#[derive(Clone, Debug)]
pub struct GrantDevice {
    node: Arc<File>,
}

impl GrantDevice {
    /// Opens the node.
    ///
    /// # Errors
    /// What the kernel says: not on Xen, no such module, no permission.
    pub fn open() -> io::Result<Self> {
        let node = OpenOptions::new().read(true).write(true).open("/dev/xen/gntdev")?;
        Ok(Self { node: Arc::new(node) })
    }

    /// Asks the kernel to raise an event on `port` when the mapping that `page` belongs to ends,
    /// be it because this process was killed: the peer wakes and can look at our state.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn notify_on_unmap(&self, page: &MappedPage, port: Port) -> io::Result<()> {
        let mapping = &page.mapping;
        let mut words = [mapping.index, u64::from(SEND_EVENT) | u64::from(port.0) << 32];
        // SAFETY: `struct ioctl_gntdev_unmap_notify` is a 64-bit index, the action and the port.
        unsafe { call(&*self.node, SET_UNMAP_NOTIFY, &mut words) }?;
        Ok(())
    }

    /// Reserves a range of the node for the references and tells its index.
    fn reserve(&self, from: DomainId, references: &[GrantRef]) -> Result<u64, MapError> {
        let count = u32::try_from(references.len()).map_err(|_| MapError::NoRoom)?;
        let mut words = vec![u64::from(count), 0];
        words.extend(references.iter().map(|gref| u64::from(from.0) | u64::from(gref.0) << 32));
        // SAFETY: `struct ioctl_gntdev_map_grant_ref` is a 32-bit count, padding, a 64-bit index
        // that is written, then `count` pairs of 32-bit domain id and reference, which are read.
        unsafe { call(&*self.node, MAP_GRANT_REF, &mut words) }.map_err(|_| MapError::NoRoom)?;
        Ok(words[1])
    }

    /// Gives a reserved range back.
    fn release(&self, index: u64, count: usize) {
        let mut words = [index, count as u64];
        // SAFETY: `struct ioctl_gntdev_unmap_grant_ref` is a 64-bit index, a 32-bit count and
        // padding. The range is not mapped: `mmap` failed or `munmap` was done.
        let done = unsafe { call(&*self.node, UNMAP_GRANT_REF, &mut words) };
        if let Err(error) = done {
            log::warn!("grant range {index:#x} of {count} pages: unmap: {error}");
        }
    }
}

impl From<OwnedFd> for GrantDevice {
    /// The node, opened by another process.
    fn from(node: OwnedFd) -> Self {
        Self { node: Arc::new(node.into()) }
    }
}

impl AsFd for GrantDevice {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.node.as_fd()
    }
}

/// One `mmap`ed range of granted pages.
#[derive(Debug)]
struct Mapping {
    device: GrantDevice,
    index: u64,
    base: NonNull<Page>,
    pages: usize,
}

// SAFETY: the range is plain shared memory, made of atomic words, that any thread may access and
// unmap.
unsafe impl Send for Mapping {}
// SAFETY: as above; a `Page` is `Sync`.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        let base = self.base.as_ptr().cast();
        // SAFETY: the range is ours alone, and no `MappedPage` refers to it any more: each holds
        // a count of this value.
        let done = unsafe { munmap(base, self.pages * PAGE_SIZE) };
        match done {
            Ok(()) => self.device.release(self.index, self.pages),
            Err(error) => log::error!("grant range {:#x}: munmap: {error}", self.index),
        }
    }
}

/// A page that a guest granted, mapped here for as long as this handle or a clone lives.
#[derive(Clone, Debug)]
pub struct MappedPage {
    mapping: Arc<Mapping>,
    number: usize,
}

impl Deref for MappedPage {
    type Target = Page;

    fn deref(&self) -> &Page {
        // SAFETY: `number` is below the number of pages of the mapping.
        let page = unsafe { self.mapping.base.add(self.number) };
        // SAFETY: the page is mapped while `mapping` lives, aligned, and made of atomic words, of
        // which every bit pattern is valid and which the guest may change at any time.
        unsafe { page.as_ref() }
    }
}

impl Maps for GrantDevice {
    type Page = MappedPage;

    fn map(
        &self,
        from: DomainId,
        references: &[GrantRef],
        access: Access,
    ) -> Result<Vec<MappedPage>, MapError> {
        if references.is_empty() {
            return Ok(Vec::new());
        }
        let pages = references.len();
        let index = self.reserve(from, references)?;
        let protection = match access {
            Access::Read => ProtFlags::READ,
            Access::Write => ProtFlags::READ | ProtFlags::WRITE,
        };
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory in use.
        let mapped = unsafe {
            mmap(
                std::ptr::null_mut(),
                pages * PAGE_SIZE,
                protection,
                MapFlags::SHARED,
                &*self.node,
                index,
            )
        };
        let Some(base) = mapped.ok().and_then(|base| NonNull::new(base.cast::<Page>())) else {
            self.release(index, pages);
            return Err(MapError::Refused);
        };
        let mapping = Arc::new(Mapping { device: self.clone(), index, base, pages });
        Ok((0..pages).map(|number| MappedPage { mapping: mapping.clone(), number }).collect())
    }

    fn copy(&self, peer: DomainId, copies: &mut [GrantCopy<'_>]) {
        let mut segments: Vec<[u64; 3]> = copies.iter().map(|copy| segment(peer, copy)).collect();
        let pointer = segments.as_mut_ptr().expose_provenance();
        let mut words = [segments.len() as u64, pointer as u64];
        // SAFETY: `struct ioctl_gntdev_grant_copy` is a 32-bit count, padding, and a pointer to
        // that many 24-byte segments, which live to the end of this function. Each names bytes
        // inside one local page of atomic words that is borrowed for as long.
        let done = unsafe { call(&*self.node, GRANT_COPY, &mut words) };
        for (copy, [_, _, tail]) in copies.iter_mut().zip(segments) {
            let [_, _, _, _, low, high, _, _] = tail.to_ne_bytes();
            copy.done = done.is_ok() && i16::from_ne_bytes([low, high]) == OKAY;
        }
    }
}

/// `struct gntdev_grant_copy_segment`: source, destination (each a pointer, or reference, offset
/// and domain), then length, flags and status of 16 bits each and padding.
fn segment(peer: DomainId, copy: &GrantCopy<'_>) -> [u64; 3] {
    let offset = copy.offset_bytes;
    let granted = u64::from(copy.reference.0) | u64::from(offset) << 32 | u64::from(peer.0) << 48;
    let local: *const Page = copy.local;
    let local = local.expose_provenance() as u64 + u64::from(offset);
    let (source, destination, flags) = match copy.direction {
        Direction::FromPeer => (granted, local, SOURCE_IS_GRANT),
        Direction::ToPeer => (local, granted, DESTINATION_IS_GRANT),
    };
    assert!(usize::from(offset + copy.length_bytes) <= PAGE_SIZE, "copy past the end of a page");
    // The status is anything but okay until the kernel has written it.
    let tail = u64::from(copy.length_bytes) | u64::from(flags) << 16 | 0xffff << 32;
    [source, destination, tail]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_segment_has_the_layout_of_the_kernel_header() {
        let page = Page::new();
        let mut copy = GrantCopy {
            reference: GrantRef(0x1122_3344),
            local: &page,
            offset_bytes: 512,
            length_bytes: 1024,
            direction: Direction::FromPeer,
            done: false,
        };
        let address = (&raw const page).addr() as u64 + 512;
        let granted = 0x0007_0200_1122_3344;
        assert_eq!(segment(DomainId(7), &copy), [granted, address, 0xffff_0001_0400]);
        copy.direction = Direction::ToPeer;
        assert_eq!(segment(DomainId(7), &copy), [address, granted, 0xffff_0002_0400]);
    }
}
