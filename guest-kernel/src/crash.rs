//! How the kernel dies of its own mistakes: one report on the console, then a shutdown with the
//! reason *crash*, which the toolstack sees.
//!
//! It must work in any state, and must not call itself: a mistake in here ends the domain at once.

use core::fmt;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

use spin::Once;
use xen::abi::ShutdownReason;

use crate::arch::{self, ConsoleWire};
use crate::console;
use crate::kernel::Status;

static WIRE: Once<ConsoleWire> = Once::new();
static DYING: AtomicBool = AtomicBool::new(false);

/// Tells where to report to.
pub(crate) fn report_to(wire: ConsoleWire) {
    WIRE.call_once(|| wire);
}

/// Reports and ends the domain.
pub(crate) fn die(reason: fmt::Arguments<'_>) -> ! {
    if !DYING.swap(true, Ordering::SeqCst) {
        let text =
            format_args!("\npvblk: crash: {reason}\npvblk: exit status {}\n", Status::CRASHED.0);
        console::last_words(WIRE.get(), text);
    }
    arch::shutdown(ShutdownReason::Crash)
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    match info.location() {
        Some(at) => die(format_args!("panic at {at}: {}", info.message())),
        None => die(format_args!("panic: {}", info.message())),
    }
}
