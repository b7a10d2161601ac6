//! Ctrl-C and SIGTERM as a flag that every wait looks at.
//!
//! The first signal asks: waits end with [`LabError::Interrupted`], and dropping the lab ends QEMU.
//! The second one leaves at once with 130; QEMU then dies by its parent-death signal.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGINT, SIGTERM};

use crate::error::{LabError, Result};

static ASKED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Installs the handlers; called once by a program's `main`. Without it signals kill as usual.
pub fn install() {
    let asked = ASKED.get_or_init(|| Arc::new(AtomicBool::new(false)));
    for signal in [SIGINT, SIGTERM] {
        // Order matters: the shutdown is conditional on the flag that an earlier signal has set.
        let second = signal_hook::flag::register_conditional_shutdown(signal, 130, asked.clone());
        let first = signal_hook::flag::register(signal, asked.clone());
        if let Err(error) = second.and(first) {
            eprintln!("warning: no handler for signal {signal}: {error}");
        }
    }
}

/// Fails with [`LabError::Interrupted`] once a signal has been seen.
pub fn check() -> Result<()> {
    match ASKED.get() {
        Some(asked) if asked.load(Ordering::Relaxed) => Err(LabError::Interrupted),
        _ => Ok(()),
    }
}
