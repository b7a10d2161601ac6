//! The part of the kernel that touches the machine: the only one with `unsafe` in it.
//!
//! Entry and exit, hypercalls, page tables, the shared page, exceptions, the heap. It offers safe
//! verbs upwards and holds no policy: what to print, when to wait and what to run is decided by
//! safe code above. Nothing here allocates before the heap stands, and nothing but `entry` and
//! `traps` is reached from assembly.
//!
//! The kernel has one virtual processor and takes no upcall while its code runs (see [`shared`]),
//! so what is here is never re-entered, except by an exception, which is a bug and ends the
//! domain.
#![allow(unsafe_code, reason = "hypercalls, page tables and shared memory live here only")]

use core::sync::atomic::{AtomicBool, Ordering};

mod balloon;
mod entry;
mod grant_frames;
mod heap;
mod hypercall;
mod memory;
mod module;
mod paging;
mod probe;
mod runstate;
mod shared;
mod start;
mod traps;
mod user;

pub(crate) use balloon::balloon;
pub(crate) use grant_frames::GrantFrames;
pub(crate) use hypercall::{
    Errno, bind_interdomain, bind_virq, close_port, console_read, console_write, grant_table_size,
    hypercalls, offer_port, poll, ran_ns, reservation, send_event, set_timer, shutdown,
    stop_periodic_timer, yield_now,
};
pub use memory::OwnedPage;
pub(crate) use memory::{MemoryError, memory_figures, own_page, regions};
pub(crate) use module::{ModuleCode, ModulePages, export};
pub(crate) use probe::{check_rights, fault};
pub(crate) use runstate::runstate;
pub(crate) use shared::{block, shared_info};
pub(crate) use start::{ConsoleWire, Start};
pub(crate) use user::{UserSpace, run_user};

/// The time-stamp counter.
pub(crate) fn tsc() -> u64 {
    // SAFETY: reading the counter has no effect on memory, and a PV guest may do it in ring 3.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Takes over from Xen's boot environment: exceptions are reported, memory is ours, the shared
/// page is mapped.
///
/// # Errors
/// [`MemoryError`].
///
/// # Panics
/// If it is called twice.
pub(crate) fn take_over(start: &Start) -> Result<(), MemoryError> {
    static ONCE: AtomicBool = AtomicBool::new(false);
    assert!(!ONCE.swap(true, Ordering::SeqCst), "memory can be taken over once");
    traps::register().map_err(MemoryError::Refused)?;
    // SAFETY: runs once, and nothing else leaves the boot page tables.
    unsafe { memory::take_over(start) }?;
    // Without it the guest lives as well; it only cannot tell how much of its time was stolen.
    let _ = runstate::register();
    Ok(())
}
