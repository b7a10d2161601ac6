//! Exceptions, entry points and the way back from them (`arch-x86/xen.h`, `arch-x86/xen-x86_64.h`,
//! `callback.h`).

use core::mem::size_of;

use bitflags::bitflags;

/// Code segment of a 64-bit PV kernel (`FLAT_KERNEL_CS64`).
pub const FLAT_CS64: u16 = 0xe033;
/// Data segment of a 64-bit PV kernel: the null selector (`FLAT_KERNEL_DS64`).
pub const FLAT_DS64: u16 = 0;
/// Stack segment of a 64-bit PV kernel (`FLAT_KERNEL_SS64`).
pub const FLAT_SS64: u16 = 0xe02b;

bitflags! {
    /// How an exception is delivered: the `flags` of [`TrapInfo`].
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[repr(transparent)]
    pub struct TrapFlags: u8 {
        /// User mode may raise it with an `int` instruction (privilege level 3).
        const FROM_USER = 3;
        /// Upcalls are masked on entry, as behind an interrupt gate.
        const MASK_EVENTS = 1 << 2;
    }
}

/// One element of [`Hypercall::SetTrapTable`](super::Hypercall::SetTrapTable); one with address 0
/// ends the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct TrapInfo {
    /// Which exception.
    pub vector: u8,
    /// How it is delivered.
    pub flags: TrapFlags,
    /// Code segment: [`FLAT_CS64`].
    pub cs: u16,
    /// The handler.
    pub address: u64,
}

/// The operation of [`Hypercall::CallbackOp`](super::Hypercall::CallbackOp) (`CALLBACKOP_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum CallbackOp {
    /// Sets an entry point: [`CallbackRegister`].
    Register = 0,
    /// Removes it.
    Unregister = 1,
}

/// An entry point (`CALLBACKTYPE_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum CallbackKind {
    /// Events: the upcall.
    Event = 0,
    /// A segment that could not be loaded, on the way back to the guest.
    Failsafe = 1,
    /// The `syscall` instruction in user mode.
    Syscall = 2,
    /// Non-maskable interrupts.
    Nmi = 4,
}

bitflags! {
    /// How an entry point is called (`CALLBACKF_*`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[repr(transparent)]
    pub struct CallbackFlags: u16 {
        /// Upcalls are masked on entry. Always so for the upcall itself.
        const MASK_EVENTS = 1;
    }
}

/// Argument of [`CallbackOp::Register`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct CallbackRegister {
    /// A [`CallbackKind`].
    pub kind: u16,
    /// How it is called.
    pub flags: CallbackFlags,
    /// The entry point.
    pub address: u64,
}

/// What [`Hypercall::SetSegmentBase`](super::Hypercall::SetSegmentBase) sets (`SEGBASE_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum SegmentBase {
    /// `fs`.
    Fs = 0,
    /// `gs` of user mode.
    GsUser = 1,
    /// `gs` of the kernel.
    GsKernel = 2,
}

bitflags! {
    /// Where an [`IretContext`] goes (`VGCF_*`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[repr(transparent)]
    pub struct IretFlags: u64 {
        /// Back by `sysret`: `rcx` and `r11` are not restored.
        const IN_SYSCALL = 1 << 8;
    }
}

/// What lies at the stack pointer when [`Hypercall::Iret`](super::Hypercall::Iret) is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct IretContext {
    /// Goes to `rax`.
    pub rax: u64,
    /// Goes to `r11`.
    pub r11: u64,
    /// Goes to `rcx`.
    pub rcx: u64,
    /// Where it goes.
    pub flags: IretFlags,
    /// Instruction pointer.
    pub rip: u64,
    /// Code segment. Its privilege level tells kernel (0, or 3 with Xen's own selectors) from user.
    pub cs: u64,
    /// Flags. The interrupt flag says whether upcalls shall be unmasked.
    pub rflags: u64,
    /// Stack pointer.
    pub rsp: u64,
    /// Stack segment.
    pub ss: u64,
}

const _: () = assert!(size_of::<TrapInfo>() == 16);
const _: () = assert!(size_of::<CallbackRegister>() == 16);
const _: () = assert!(size_of::<IretContext>() == 72);
