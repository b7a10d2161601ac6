//! Page tables: built once at boot, grown by 2 MiB at a time, changed by hypercall only.
//!
//! Xen lets a frame be a page table only while nothing maps it writable, checks the whole tree
//! once when its root is pinned, and from then on checks each change. So a table is filled while
//! it is ordinary memory, then made read only, then handed over. It stays mapped read only, which
//! is how the tree is walked.

use core::ptr::NonNull;

use volatile::VolatilePtr;
use x86_64::structures::paging::page_table::PageTableEntry;
use x86_64::structures::paging::{PageTable, PageTableFlags};
use x86_64::{PhysAddr, VirtAddr};
use xen::abi::{FlushFlags, Hypercall, MmuExtension, MmuExtensionOp, MmuUpdate};
use xen::{DomainId, Mfn, Pfn};

use super::hypercall::{Errno, hypercall};
use super::memory::{machine_frame, own_frame};
use crate::layout::{BootMap, FRAMES_PER_TABLE, SHARED_INFO, Use, address_of, table_flags};

/// Frames below one entry of level 3.
const FRAMES_PER_SECOND: u64 = FRAMES_PER_TABLE * FRAMES_PER_TABLE;
/// The highest entry of a table.
const LAST: usize = 511;

/// The machine address of a frame of ours.
fn machine_address(frame: Pfn) -> PhysAddr {
    let machine = machine_frame(frame).expect("a table lies in memory");
    PhysAddr::new(machine.0 << 12)
}

/// The table in `frame`, to be filled.
///
/// # Safety
/// `frame` is mapped writable, nobody else uses it, and it is not a page table yet.
unsafe fn table_in<'a>(frame: Pfn) -> &'a mut PageTable {
    // SAFETY: the caller promises a page that is mapped, aligned as every frame is, and his alone;
    // any bits are a table.
    unsafe { &mut *address_of(frame).as_mut_ptr::<PageTable>() }
}

/// Makes `frame` a table with nothing in it.
///
/// # Safety
/// As [`table_in`].
unsafe fn clear(frame: Pfn) {
    // SAFETY: the caller's promise.
    unsafe { table_in(frame) }.zero();
}

/// Enters the table `below` into the table `above`.
///
/// # Safety
/// As [`table_in`], for `above`.
unsafe fn enter(above: Pfn, index: usize, below: Pfn) {
    // SAFETY: the caller's promise.
    let table = unsafe { table_in(above) };
    table[index].set_addr(machine_address(below), table_flags());
}

/// Fills a first level for the 512 frames from `first` on; those at or behind `end`, and those
/// without memory, get no entry.
///
/// # Safety
/// As [`table_in`].
unsafe fn fill(frame: Pfn, first: u64, end: u64, purpose: impl Fn(u64) -> Use) {
    // SAFETY: the caller's promise.
    let table = unsafe { table_in(frame) };
    for (frame, slot) in (first..).zip(table.iter_mut()) {
        slot.set_unused();
        let flags = purpose(frame).flags().filter(|_| frame < end);
        if let (Some(flags), Some(machine)) = (flags, machine_frame(Pfn(frame))) {
            slot.set_addr(PhysAddr::new(machine.0 << 12), flags);
        }
    }
}

/// Builds the kernel's own tables in `map.own_tables` for the frames below `end`, maps the shared
/// page, switches to them, and tells their root.
///
/// # Errors
/// What Xen said; then the boot tables are in place still.
///
/// # Safety
/// Runs once, on Xen's boot tables, which map `map.own_tables` writable; those frames are unused,
/// and their number is `tables_for(end)`. `shared_info` is what Xen passed at entry.
pub(super) unsafe fn switch(map: &BootMap, end: u64, shared_info: u64) -> Result<Pfn, Errno> {
    let mut tables = map.own_tables.clone().map(Pfn);
    let mut fresh = || {
        let frame = tables.next().expect("the tables were counted");
        // SAFETY: an unused frame among those that the caller promised.
        unsafe { clear(frame) };
        frame
    };
    let (root, third) = (fresh(), fresh());
    // SAFETY: `root` is fresh.
    unsafe { enter(root, 0, third) };
    for (index, start) in (0..end).step_by(512 * 512).enumerate() {
        let second = fresh();
        // SAFETY: `third` is fresh.
        unsafe { enter(third, index, second) };
        let stop = end.min(start + FRAMES_PER_SECOND);
        for (index, first) in (start..stop).step_by(512).enumerate() {
            let table = fresh();
            // SAFETY: `table` is fresh.
            unsafe { fill(table, first, end, |frame| map.purpose(frame)) };
            // SAFETY: `second` is fresh.
            unsafe { enter(second, index, table) };
        }
    }
    let high = [root, fresh(), fresh(), fresh()];
    for pair in high.windows(2) {
        // SAFETY: all four are fresh.
        unsafe { enter(pair[0], LAST, pair[1]) };
    }
    // SAFETY: fresh, too.
    let fixed = unsafe { table_in(high[3]) };
    let flags = Use::Data.flags().expect("data is mapped");
    fixed[usize::from(SHARED_INFO.p1_index())].set_addr(PhysAddr::new(shared_info), flags);
    // SAFETY: the tree maps everything in use at the address that it has now, with its rights.
    unsafe { hand_over(map, root) }.map(|()| root)
}

/// Makes the own tables read only, has Xen check them, and switches over.
///
/// # Safety
/// The tree below `root` maps all memory in use where it is mapped now.
unsafe fn hand_over(map: &BootMap, root: Pfn) -> Result<(), Errno> {
    for frame in map.own_tables.clone() {
        // SAFETY: the filling is done; from here on nobody writes the tables but Xen.
        unsafe { set_page(Pfn(frame), Use::Constant) }?;
    }
    // SAFETY: pinning changes no mapping.
    unsafe { on_table(MmuExtensionOp::PinL4Table, root) }?;
    // SAFETY: the caller's promise.
    unsafe { on_table(MmuExtensionOp::NewBaseptr, root) }?;
    // SAFETY: the boot tables are not in use any more.
    unsafe { on_table(MmuExtensionOp::UnpinTable, Pfn(map.boot_tables.start)) }
}

/// Does one operation on a page table.
///
/// # Safety
/// The operation changes no mapping that is in use.
unsafe fn on_table(operation: MmuExtensionOp, frame: Pfn) -> Result<(), Errno> {
    let machine = machine_frame(frame).expect("a table lies in memory");
    let argument = MmuExtension::on_frame(operation, machine);
    let arguments = [(&raw const argument).addr() as u64, 1, 0, u64::from(DomainId::SELF.0)];
    // SAFETY: Xen reads one argument; the caller promises the rest.
    unsafe { hypercall(Hypercall::MmuextOp, arguments) }.map(drop)
}

/// Sets what the page of an own frame is for.
///
/// # Errors
/// Refused, for one, if the page is to be writable and its frame is still a page table.
///
/// # Safety
/// No reference into the page relies on a right that is taken away, and if it is made writable,
/// nobody relies on its staying as it is.
pub(super) unsafe fn set_page(frame: Pfn, purpose: Use) -> Result<(), Errno> {
    let mut entry = PageTableEntry::new();
    if let Some(flags) = purpose.flags() {
        entry.set_addr(machine_address(frame), flags);
    }
    // SAFETY: the caller's promise.
    unsafe { set_mapping(address_of(frame), &entry) }
}

/// Maps a page of Xen's own at `address`, for reading and writing.
///
/// # Safety
/// `machine` is a page that Xen shares with this domain, and nothing else is mapped at `address`.
pub(super) unsafe fn map_shared(address: VirtAddr, machine: Mfn) -> Result<(), Errno> {
    let mut entry = PageTableEntry::new();
    let flags = Use::Data.flags().expect("data is mapped");
    entry.set_addr(PhysAddr::new(machine.0 << 12), flags);
    // SAFETY: the caller's promise.
    unsafe { set_mapping(address, &entry) }
}

/// Sets the first-level entry of a virtual address.
///
/// # Safety
/// As [`set_page`].
unsafe fn set_mapping(address: VirtAddr, entry: &PageTableEntry) -> Result<(), Errno> {
    let value = entry.addr().as_u64() | entry.flags().bits();
    let arguments = [address.as_u64(), value, FlushFlags::INVLPG.bits(), 0];
    // SAFETY: the caller's promise.
    unsafe { hypercall(Hypercall::UpdateVaMapping, arguments) }.map(drop)
}

/// Maps the 512 frames from `first` on, as far as they are below `end`, as data. `spare` gives a
/// frame for a new table; up to two are asked for.
///
/// # Errors
/// What Xen said; `None` if `spare` gave none.
///
/// # Safety
/// `root` is the root in use, and `first` is the first frame that is not mapped yet. The frames
/// that `spare` gives are mapped writable, unused, and never used for anything else again.
pub(super) unsafe fn grow(
    root: Pfn,
    first: u64,
    end: u64,
    mut spare: impl FnMut() -> Option<Pfn>,
) -> Option<Result<(), Errno>> {
    let third = below(root, 0).expect("the root has a table for the identity");
    let index = index_of(first / FRAMES_PER_SECOND);
    let second = match below(third, index) {
        Some(second) => second,
        None => {
            let second = spare()?;
            // SAFETY: the caller promises that what `spare` gives may become a table.
            unsafe { clear(second) };
            // SAFETY: the same.
            if let Err(error) = unsafe { add_table(third, index, second) } {
                return Some(Err(error));
            }
            second
        }
    };
    let table = spare()?;
    // SAFETY: the caller promises that what `spare` gives may become a table.
    unsafe { fill(table, first, end, |_| Use::Data) };
    // SAFETY: the same.
    Some(unsafe { add_table(second, index_of(first / FRAMES_PER_TABLE % FRAMES_PER_TABLE), table) })
}

/// Makes `table` read only and enters it into `above`, which is in use.
///
/// # Safety
/// `table` is filled, unused otherwise, and maps nothing but unused memory; the entry is empty.
unsafe fn add_table(above: Pfn, index: usize, table: Pfn) -> Result<(), Errno> {
    // SAFETY: nobody writes the table any more.
    unsafe { set_page(table, Use::Constant) }?;
    let mut entry = PageTableEntry::new();
    entry.set_addr(machine_address(table), table_flags());
    let slot = machine_address(above).as_u64() + 8 * index as u64;
    let update = MmuUpdate::entry(slot, entry.addr().as_u64() | entry.flags().bits());
    let arguments = [(&raw const update).addr() as u64, 1, 0, u64::from(DomainId::SELF.0)];
    // SAFETY: Xen reads one update; the entry was empty, so no mapping in use changes.
    unsafe { hypercall(Hypercall::MmuUpdate, arguments) }.map(drop)
}

/// The table that entry `index` of the table in `above` leads to.
fn below(above: Pfn, index: usize) -> Option<Pfn> {
    let address = address_of(above).as_mut_ptr::<u64>().wrapping_add(index);
    let slot = NonNull::new(address).expect("no table lies in the first page");
    // SAFETY: tables are mapped, read only, and `index` is one of its 512 words; Xen and the
    // processor may change it meanwhile, hence volatile.
    let slot = unsafe { VolatilePtr::new_read_only(slot) };
    let entry = slot.read();
    let present = entry & PageTableFlags::PRESENT.bits() != 0;
    // SAFETY: our tables lead to our own frames.
    present.then(|| unsafe { own_frame(Mfn(entry >> 12 & 0xff_ffff_ffff)) })
}

fn index_of(entry: u64) -> usize {
    usize::try_from(entry).expect("an index of a table")
}
