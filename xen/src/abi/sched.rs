//! Scheduler operations (`sched.h`).

use core::mem::size_of;

/// The most ports that one [`Poll`] may list.
pub const POLL_PORTS_MAX: usize = 128;

/// The operation of [`Hypercall::SchedOp`](super::Hypercall::SchedOp) (`SCHEDOP_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum SchedOp {
    /// Lets others run. No argument.
    Yield = 0,
    /// Clears the upcall mask and waits for an event. No argument.
    Block = 1,
    /// Ends the domain: [`Shutdown`].
    Shutdown = 2,
    /// Waits, with the upcall mask as it is, for one of some ports: [`Poll`].
    Poll = 3,
}

/// Why a domain ends (`SHUTDOWN_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ShutdownReason {
    /// It has finished.
    Poweroff = 0,
    /// It wants to start again.
    Reboot = 1,
    /// It is to be suspended.
    Suspend = 2,
    /// It has crashed.
    Crash = 3,
}

/// Argument of [`SchedOp::Shutdown`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Shutdown {
    /// A [`ShutdownReason`].
    pub reason: u32,
}

/// Argument of [`SchedOp::Poll`]. A port that is pending ends it at once; an event at a port that
/// is not listed may be slept through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Poll {
    /// Address of the ports, one `u32` each.
    pub ports: u64,
    /// How many, at most [`POLL_PORTS_MAX`].
    pub nr_ports: u32,
    /// System time at which to give up, in nanoseconds; 0 for never.
    pub timeout: u64,
}

const _: () = assert!(size_of::<Poll>() == 24);
