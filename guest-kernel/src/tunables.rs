//! The kernel's table of tunables, and its word on the kernel command line.
//!
//! A new tunable is a new row here. Its number is a static of the code that heeds it.

use alloc::string::String;

use crate::cpu::STEAL_WARN;
use crate::kernel::{Kernel, Status};
use crate::programs::{Disks, Failure, scheduler};
use crate::sysctl::{self, Tunable};

/// Every tunable of the kernel.
static TUNABLES: &[Tunable<Kernel>] = &[
    Tunable::number(
        "kernel.steal_warn",
        "warns when others take more than so many percent of the processor's time for seconds",
        &STEAL_WARN,
    ),
    Tunable::fact("kernel.version", "the version of this kernel", |_| {
        String::from(env!("CARGO_PKG_VERSION"))
    }),
    scheduler::tunables(),
];

/// What a tunable is called on the kernel command line, before its key.
const PREFIX: &str = "sysctl.";

/// The command `sysctl`, as a program.
///
/// # Errors
/// [`Failure`], of one line.
pub(crate) fn run(
    kernel: &Kernel,
    disks: &mut Disks<Kernel>,
    words: &[String],
) -> Result<(), Failure> {
    sysctl::run(kernel, disks, (TUNABLES, words))
}

/// Heeds every `sysctl.KEY=VALUE` of the kernel command line.
pub(crate) fn heed_command_line(kernel: &Kernel) {
    let mut disks = kernel.disks.borrow_mut();
    for (key, value) in kernel.command_line().values(PREFIX) {
        if let Err(failure) = sysctl::set(kernel, &mut disks, TUNABLES, (key, value)) {
            println!("pvblk: {PREFIX}{failure}");
            kernel.note(Status(failure.status));
        }
    }
}
