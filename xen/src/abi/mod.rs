//! The words of Xen: layouts and numbers of `xen/include/public/` for a 64-bit PV guest on x86.
//!
//! Data only. Field and constant names follow Xen's where a reader would look them up; every size,
//! offset and number is held against a table that a C compiler printed from the public headers
//! (`abi/oracle.c`, `abi/layout.txt`, `tests`). Memory that Xen or another domain changes
//! while we look is made of atomic words; argument structures of hypercalls are plain values, in
//! which guest addresses are plain numbers. Nothing here makes a hypercall.

mod clock;
mod console;
mod elf;
mod event;
mod grant;
mod memory;
mod sched;
mod shared;
mod start;
mod store;
#[cfg(test)]
mod tests;
mod trap;
mod vcpu;
mod version;

pub use clock::{
    RUNSTATE_UPDATE, RunstateInfo, RunstateSample, RunstateState, TIME_INFO_TRIES_MAX, TimeInfo,
    TimeSample,
};
pub use console::ConsoleOp;
pub use elf::{ELF_NOTE_NAME, ElfNote};
pub use event::{
    AllocUnbound, BindInterdomain, BindVirq, ChannelState, ChannelStatus, EVENT_CHANNELS_MAX,
    EventOp, OnePort, Virq,
};
pub use grant::{
    GRANT_ENTRIES_PER_FRAME, GRANT_ENTRIES_RESERVED, GRANT_REVOKE_TRIES_MAX, GrantEntry,
    GrantFlags, GrantOp, GrantStatus, QuerySize, SetupTable,
};
pub use memory::{
    FlushFlags, HYPERVISOR_VIRT_END, HYPERVISOR_VIRT_START, MachphysMapping, MemoryOp,
    MemoryReservation, MmuExtension, MmuExtensionOp, MmuUpdate, MmuUpdateKind, VmAssist,
    VmAssistKind,
};
pub use sched::{POLL_PORTS_MAX, Poll, SchedOp, Shutdown, ShutdownReason};
pub use shared::{ArchSharedInfo, ArchVcpuInfo, SharedInfo, VCPUS_LEGACY_MAX, VcpuInfo};
pub use start::{COMMAND_LINE_MAX, StartConsole, StartFlags, StartInfo};
pub use store::{
    STORE_ERRORS, STORE_PATH_ABSOLUTE_MAX, STORE_PATH_RELATIVE_MAX, STORE_PAYLOAD_MAX, StoreHeader,
    StoreMessage,
};
pub use trap::{
    CallbackFlags, CallbackKind, CallbackOp, CallbackRegister, FLAT_CS64, FLAT_DS64, FLAT_SS64,
    IretContext, IretFlags, SegmentBase, TrapFlags, TrapInfo,
};
pub use vcpu::{RegisterRunstate, SetSingleshotTimer, TimerFlags, VcpuOp};
pub use version::{Feature, FeatureInfo, VersionOp};

/// The number of a hypercall (`xen.h`, `__HYPERVISOR_*`): goes into `rax`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Hypercall {
    /// Registers handlers for exceptions: [`TrapInfo`] entries, ended by one of zeros.
    SetTrapTable = 0,
    /// Changes page-table entries: [`MmuUpdate`] entries.
    MmuUpdate = 1,
    /// Installs a descriptor table.
    SetGdt = 2,
    /// Sets the stack that Xen switches to on entry from user mode.
    StackSwitch = 3,
    /// Sets the event, failsafe and system-call entry points.
    SetCallbacks = 4,
    /// Sets or clears the task-switched flag.
    FpuTaskswitch = 5,
    /// Sets a debug register.
    SetDebugreg = 8,
    /// Reads a debug register.
    GetDebugreg = 9,
    /// Changes one segment descriptor.
    UpdateDescriptor = 10,
    /// Memory reservation: [`MemoryOp`].
    MemoryOp = 12,
    /// Several hypercalls in one.
    Multicall = 13,
    /// Changes the page-table entry of one of our virtual addresses.
    UpdateVaMapping = 14,
    /// Sets the one-shot timer of this virtual processor.
    SetTimerOp = 15,
    /// Tells what this Xen is: [`VersionOp`].
    XenVersion = 17,
    /// The emergency console: [`ConsoleOp`].
    ConsoleIo = 18,
    /// Grant table: [`GrantOp`].
    GrantTableOp = 20,
    /// Switches optional behaviour on or off: [`VmAssist`].
    VmAssist = 21,
    /// Returns from an exception or event: [`IretContext`] is on the stack.
    Iret = 23,
    /// Virtual processors: [`VcpuOp`].
    VcpuOp = 24,
    /// Sets the base of `fs` or `gs`: [`SegmentBase`].
    SetSegmentBase = 25,
    /// Page tables and TLB: [`MmuExtension`] entries.
    MmuextOp = 26,
    /// The scheduler: [`SchedOp`].
    SchedOp = 29,
    /// Registers one entry point: [`CallbackOp`].
    CallbackOp = 30,
    /// Event channels: [`EventOp`].
    EventChannelOp = 32,
}
