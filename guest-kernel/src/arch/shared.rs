//! The page that Xen shares with this domain, and waiting for what Xen writes into it.

use core::sync::atomic::{AtomicBool, Ordering};

use xen::abi::SharedInfo;

use super::hypercall;
use crate::layout::SHARED_INFO;

static MAPPED: AtomicBool = AtomicBool::new(false);

/// Notes that the page is mapped at its place.
///
/// # Safety
/// It is, for good.
pub(super) unsafe fn set_mapped() {
    MAPPED.store(true, Ordering::Release);
}

/// The shared page; `None` while Xen's boot page tables are in use.
pub(crate) fn shared_info() -> Option<&'static SharedInfo> {
    // SAFETY: mapped at this address for good, as `set_mapped` was promised; all fields are atomic.
    MAPPED.load(Ordering::Acquire).then(|| unsafe { &*SHARED_INFO.as_ptr::<SharedInfo>() })
}

/// The address of the last page fault; 0 if it cannot be known.
pub(super) fn fault_address() -> u64 {
    shared_info().map_or(0, |shared| shared.vcpu_info[0].arch.cr2.load(Ordering::Relaxed))
}

/// Waits until an event is pending; returns at once if one is already.
///
/// Upcalls are masked while code of ours runs, so nothing here is ever interrupted. They are
/// unmasked inside the hypercall only, and this cannot lose a wake-up:
///
/// * Xen clears the mask, marks us blocked, and only then looks whether an event is pending. One
///   that came before that look ends the wait; one that comes later finds us blocked and wakes us.
/// * On the way back, the mask being clear, Xen makes the upcall: it masks again and enters
///   `event_upcall`, which touches nothing and returns with the mask set. The pending bits stay,
///   for the caller to collect in his own time; one that is set after he collected has set
///   `evtchn_upcall_pending` again, which the next wait sees in its look.
pub(crate) fn block() {
    hypercall::sched_block();
}
