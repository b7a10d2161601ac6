//! How long our processor ran, waited, and could not run: written by Xen, read here.

use xen::abi::{RunstateInfo, RunstateSample};

use super::hypercall::{self, Errno};

/// Aligned so that it lies in one page.
#[repr(align(64))]
struct Area(RunstateInfo);

static AREA: Area = Area(RunstateInfo::new());

/// Has Xen keep the area up to date. Runs when the kernel's own page tables are in use, which map
/// it for good.
///
/// # Errors
/// What Xen said; then all times are 0.
pub(super) fn register() -> Result<(), Errno> {
    // An older Xen does not know the mark. Then the version check alone must do, and does: Xen
    // writes the area of a processor that runs from that same processor only.
    let _ = hypercall::mark_runstate_changes();
    hypercall::register_runstate(&AREA.0)
}

/// What Xen says now.
pub(crate) fn runstate() -> Option<RunstateSample> {
    AREA.0.sample()
}
