//! Page tables, TLB and memory reservation (`xen.h`, `memory.h`).

use core::mem::size_of;

use bitflags::bitflags;

use crate::{DomainId, Mfn};

/// First virtual address that belongs to Xen. The table from machine frame to own frame begins
/// there, one `u64` for each machine frame, readable.
pub const HYPERVISOR_VIRT_START: u64 = 0xffff_8000_0000_0000;
/// First virtual address behind the part that belongs to Xen.
pub const HYPERVISOR_VIRT_END: u64 = 0xffff_8800_0000_0000;

/// What an [`MmuUpdate`] changes (`MMU_*`): the two low bits of its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum MmuUpdateKind {
    /// A page-table entry.
    Normal = 0,
    /// The entry of a machine frame in the table from machine frame to own frame.
    Machphys = 1,
    /// A page-table entry, except its accessed and dirty bits.
    PreserveAd = 2,
}

/// One element of [`Hypercall::MmuUpdate`](super::Hypercall::MmuUpdate).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct MmuUpdate {
    /// Machine address of the entry, with a [`MmuUpdateKind`] in the two low bits.
    pub ptr: u64,
    /// The new entry.
    pub val: u64,
}

impl MmuUpdate {
    /// Sets the page-table entry at machine address `entry` to `value`.
    pub const fn entry(entry: u64, value: u64) -> Self {
        Self { ptr: entry & !3 | MmuUpdateKind::Normal as u64, val: value }
    }
}

bitflags! {
    /// What [`Hypercall::UpdateVaMapping`](super::Hypercall::UpdateVaMapping) flushes afterwards
    /// (`UVMF_*`). One of `TLB_FLUSH` and `INVLPG`, or neither.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[repr(transparent)]
    pub struct FlushFlags: u64 {
        /// The whole TLB of this virtual processor.
        const TLB_FLUSH = 1;
        /// Only this address, on this virtual processor.
        const INVLPG = 2;
        /// On all virtual processors.
        const ALL = 1 << 2;
    }
}

/// The operation of an [`MmuExtension`] (`MMUEXT_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum MmuExtensionOp {
    /// Checks a level-1 page table once and keeps it checked.
    PinL1Table = 0,
    /// The same for level 2.
    PinL2Table = 1,
    /// The same for level 3.
    PinL3Table = 2,
    /// The same for level 4.
    PinL4Table = 3,
    /// Ends a pin.
    UnpinTable = 4,
    /// Switches to another top page table.
    NewBaseptr = 5,
    /// Flushes the TLB of this virtual processor.
    TlbFlushLocal = 6,
    /// Flushes one address from it.
    InvlpgLocal = 7,
    /// Flushes the TLBs of all virtual processors.
    TlbFlushAll = 10,
    /// Flushes one address from them.
    InvlpgAll = 11,
    /// Sets the local descriptor table.
    SetLdt = 13,
    /// Switches to another top page table for user mode.
    NewUserBaseptr = 15,
}

/// One element of [`Hypercall::MmuextOp`](super::Hypercall::MmuextOp).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct MmuExtension {
    /// An [`MmuExtensionOp`].
    pub cmd: u32,
    /// Machine frame or virtual address, as the operation says.
    pub arg1: u64,
    /// Count or address, as the operation says; else 0.
    pub arg2: u64,
}

impl MmuExtension {
    /// An operation on a page table, or a switch to it.
    pub const fn on_frame(op: MmuExtensionOp, frame: Mfn) -> Self {
        Self { cmd: op as u32, arg1: frame.0, arg2: 0 }
    }

    /// An operation on a virtual address; 0 where the operation takes none.
    pub const fn on_address(op: MmuExtensionOp, address: u64) -> Self {
        Self { cmd: op as u32, arg1: address, arg2: 0 }
    }
}

/// The operation of [`Hypercall::MemoryOp`](super::Hypercall::MemoryOp) (`XENMEM_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum MemoryOp {
    /// Gives frames back: [`MemoryReservation`].
    DecreaseReservation = 1,
    /// Tells how many pages a domain has; the argument is the address of its `u16` id.
    CurrentReservation = 3,
    /// Tells how many pages a domain may have; the argument likewise.
    MaximumReservation = 4,
    /// Fills own frames with memory: [`MemoryReservation`].
    PopulatePhysmap = 6,
    /// Tells where the table from machine frame to own frame lies: [`MachphysMapping`].
    MachphysMapping = 12,
}

/// Argument of [`MemoryOp::DecreaseReservation`] and [`MemoryOp::PopulatePhysmap`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct MemoryReservation {
    /// Address of the frames, one `u64` each.
    pub extent_start: u64,
    /// How many.
    pub nr_extents: u64,
    /// Each is 2 to this power pages.
    pub extent_order: u32,
    /// 0, or what kind of memory.
    pub mem_flags: u32,
    /// Whose: [`DomainId::SELF`].
    pub domid: DomainId,
}

/// Argument of [`MemoryOp::MachphysMapping`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct MachphysMapping {
    /// Answer: first virtual address of the table.
    pub v_start: u64,
    /// Answer: first virtual address behind it.
    pub v_end: u64,
    /// Answer: the highest machine frame in it.
    pub max_mfn: u64,
}

/// The command of [`Hypercall::VmAssist`](super::Hypercall::VmAssist) (`VMASST_CMD_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum VmAssist {
    /// Switches a behaviour on.
    Enable = 0,
    /// Switches it off.
    Disable = 1,
}

/// A behaviour that can be switched (`VMASST_TYPE_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum VmAssistKind {
    /// Xen emulates stores to read-only page tables. Ours are changed by hypercall only.
    WritablePagetables = 2,
    /// The level of input and output privilege acts as on the bare machine.
    ArchitecturalIopl = 4,
    /// Xen marks a runstate area while it changes it.
    RunstateUpdateFlag = 5,
    /// The table from machine frame to own frame is hidden from user mode.
    M2pStrict = 32,
}

const _: () = assert!(size_of::<MmuUpdate>() == 16);
const _: () = assert!(size_of::<MmuExtension>() == 24);
const _: () = assert!(size_of::<MemoryReservation>() == 32);
