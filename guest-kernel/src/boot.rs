//! From the first instruction to a kernel that is up, and what the images do then.
//!
//! The order is forced: the console first, so that whatever goes wrong can be told; then memory,
//! on which everything else stands; then time and events; then what needs them.

use alloc::vec::Vec;
use core::cell::RefCell;
use core::sync::atomic::{AtomicU8, AtomicU64};

use xen::abi::ShutdownReason;

use crate::arch::{self, MemoryError, Start};
use crate::command_line::CommandLine;
use crate::commands::ending;
use crate::console::{self, Keyboard};
use crate::events::Channels;
use crate::grants::GrantTable;
use crate::kernel::{Kernel, Status, farewell};
use crate::programs::Disks;
use crate::store::GuestStore;
use crate::timeline::Timeline;
use crate::{blktest, commands, crash, memory, println, tunables};

/// Brings the kernel up and hands it to `main`.
pub(crate) fn boot(start: Start, main: fn(&Kernel) -> !) -> ! {
    console::open_output(&start.console());
    crash::report_to(start.console());
    let timeline = Timeline::new(start.entry_tsc);
    if let Err(error) = arch::take_over(&start) {
        refuse(&start, error);
    }
    timeline.mark("memory", arch::tsc(), arch::ran_ns());
    let events = Channels::open().expect("every domain has a timer");
    let grants = GrantTable::open().expect("every domain has a grant table");
    let store = start.store().and_then(|(page, port)| {
        let store = GuestStore::open(page, port, events);
        store.inspect_err(|error| println!("pvblk: no xenstore: {error}")).ok()
    });
    let command_line = CommandLine::parse(start.command_line()).unwrap_or_else(|error| {
        println!("pvblk: kernel command line: {error}");
        farewell(Status::USAGE, ending(start.is_initial_domain()))
    });
    let keyboard = Keyboard::open(&start.console());
    let status = AtomicU8::new(Status::OKAY.0);
    let disks = RefCell::new(Disks::new());
    let kernel = Kernel {
        initial_domain: start.is_initial_domain(),
        command_line,
        keyboard,
        events,
        grants,
        store,
        timeline,
        status,
        user_ns: AtomicU64::new(0),
        wait_ns: AtomicU64::new(0),
        disks,
        modules: RefCell::default(),
        swap: RefCell::new(None),
    };
    kernel.mark("ready");
    println!("pvblk {}: {}", env!("CARGO_PKG_VERSION"), kernel.memory());
    main(&kernel)
}

/// What `pvblk` does: it uses its disks and runs commands.
pub fn shell(kernel: &Kernel) -> ! {
    warn_of_unknown_words(&kernel.command_line);
    memory::heed_command_line(kernel);
    kernel.connect_disks();
    tunables::heed_command_line(kernel);
    kernel.mount_root();
    commands::run(kernel)
}

/// What `blktest` does: it tests the back of one disk, `disk=` or the first, with the tests that
/// `tests=` names.
pub fn test_back(kernel: &Kernel) -> ! {
    let line = kernel.command_line();
    let words: Vec<&str> = line.value("tests").into_iter().flat_map(|it| it.split(',')).collect();
    let verdict = blktest::run(kernel, line.value("disk"), &words);
    kernel.note(Status(verdict.status()));
    kernel.shutdown(ending(kernel.initial_domain))
}

/// Tells the words of the command line that nothing heeds: one may be a slip of the pen.
fn warn_of_unknown_words(line: &CommandLine) {
    let unknown = line.unknown();
    if !unknown.is_empty() {
        println!("pvblk: warning: unknown on the kernel command line: {}", unknown.join(" "));
    }
}

/// Ends a domain whose memory does not do, with one line that says why.
fn refuse(start: &Start, error: MemoryError) -> ! {
    println!("pvblk: {error}");
    match error {
        MemoryError::TooLittle(..) => {
            farewell(Status::ENVIRONMENT, ending(start.is_initial_domain()))
        }
        _ => farewell(Status::FAILED, ShutdownReason::Crash),
    }
}
