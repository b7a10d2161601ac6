//! Operations on virtual processors (`vcpu.h`).

use core::mem::size_of;

use bitflags::bitflags;

/// The operation of [`Hypercall::VcpuOp`](super::Hypercall::VcpuOp) (`VCPUOP_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum VcpuOp {
    /// Fills a [`RunstateInfo`](super::RunstateInfo), the present stay counted.
    GetRunstateInfo = 4,
    /// Has Xen keep a [`RunstateInfo`](super::RunstateInfo) of ours up to date:
    /// [`RegisterRunstate`].
    RegisterRunstateMemoryArea = 5,
    /// Stops the timer that Xen starts every PV processor with. No argument.
    StopPeriodicTimer = 7,
    /// Sets the one-shot timer: [`SetSingleshotTimer`].
    SetSingleshotTimer = 8,
    /// Stops it. No argument.
    StopSingleshotTimer = 9,
}

bitflags! {
    /// How the one-shot timer is set (`VCPU_SSHOTTMR_*`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[repr(transparent)]
    pub struct TimerFlags: u32 {
        /// Refuse (`-ETIME`) a time that has passed, instead of raising the event at once.
        const FUTURE = 1;
    }
}

/// Argument of [`VcpuOp::SetSingleshotTimer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct SetSingleshotTimer {
    /// System time, in nanoseconds.
    pub timeout_abs_ns: u64,
    /// How.
    pub flags: TimerFlags,
}

/// Argument of [`VcpuOp::RegisterRunstateMemoryArea`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct RegisterRunstate {
    /// Virtual address of a [`RunstateInfo`](super::RunstateInfo) that stays where it is.
    pub addr: u64,
}

const _: () = assert!(size_of::<SetSingleshotTimer>() == 16);
const _: () = assert!(size_of::<RegisterRunstate>() == 8);
