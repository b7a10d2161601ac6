//! What the kernel offers to its programs.

use core::cell::RefCell;
use core::fmt;
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use core::time::Duration;

use xen::abi::{SharedInfo, ShutdownReason, TimeSample};

use crate::arch;
use crate::command_line::CommandLine;
use crate::console::{self, Keyboard};
use crate::cpu::CpuTimes;
use crate::events::{Channels, Woken};
use crate::grants::GrantTable;
use crate::insmod::Modules;
use crate::programs::Disks;
use crate::store::GuestStore;
use crate::time::{Instant, Monotonic};
use crate::timeline::{Report, Timeline};
use crate::user::swap::Area;

/// How long the console's backend gets to read the last lines.
const FAREWELL: Duration = Duration::from_secs(5);

/// What a program says about its success, as the lab and the shell count: 0 is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(pub u8);

impl Status {
    /// It did what it was asked.
    pub const OKAY: Self = Self(0);
    /// It failed.
    pub const FAILED: Self = Self(1);
    /// It was asked for something that does not exist.
    pub const USAGE: Self = Self(2);
    /// Something that it needs is missing.
    pub const ENVIRONMENT: Self = Self(3);
    /// The guest died of a bug.
    pub const CRASHED: Self = Self(4);
    /// There is no such command.
    pub const NO_COMMAND: Self = Self(127);
    /// It was stopped by Ctrl-C.
    pub const INTERRUPTED: Self = Self(130);
}

/// How much memory there is, in KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Of the domain.
    pub total_kib: u64,
    /// Mapped so far.
    pub mapped_kib: u64,
    /// Free, mapped or not.
    pub free_kib: u64,
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { total_kib, mapped_kib, free_kib } = self;
        write!(f, "{total_kib} KiB, {free_kib} KiB free, {mapped_kib} KiB mapped")
    }
}

fn sample() -> Option<TimeSample> {
    arch::shared_info()?.vcpu_info[0].time.sample()
}

/// The system time; `None` before the kernel has taken over its memory.
pub(crate) fn now() -> Option<Instant> {
    static CLOCK: Monotonic = Monotonic::new();
    let sample = sample()?;
    Some(CLOCK.advance(sample.system_time_ns(arch::tsc())))
}

/// The machine as a program sees it. There is one, made by the boot code.
#[derive(Debug)]
pub struct Kernel {
    /// Whether Xen started it itself, without a tool stack.
    pub(crate) initial_domain: bool,
    pub(crate) command_line: CommandLine,
    pub(crate) keyboard: Keyboard,
    pub(crate) events: Channels,
    pub(crate) grants: GrantTable,
    pub(crate) store: Option<GuestStore>,
    pub(crate) timeline: Timeline,
    pub(crate) status: AtomicU8,
    /// Nanoseconds in programs of users.
    pub(crate) user_ns: AtomicU64,
    /// Nanoseconds of waiting for disks.
    pub(crate) wait_ns: AtomicU64,
    /// Borrowed by one program at a time.
    pub(crate) disks: RefCell<Disks<Self>>,
    pub(crate) modules: RefCell<Modules>,
    /// The swap area in use.
    pub(crate) swap: RefCell<Option<Area>>,
}

impl Kernel {
    /// The system time.
    ///
    /// # Panics
    /// If Xen changes the time without an end, which it does not.
    pub fn now(&self) -> Instant {
        now().expect("the shared page is mapped, and Xen lets us read the time")
    }

    /// Where the processor's time went since the start; all zeros if Xen does not tell.
    pub fn cpu_times(&self) -> CpuTimes {
        let Some(sample) = arch::runstate() else { return CpuTimes::default() };
        let times = sample.times_ns(self.now().as_nanos());
        let [user, wait] = [&self.user_ns, &self.wait_ns].map(|it| it.load(Ordering::Relaxed));
        CpuTimes::new(times, user, wait)
    }

    /// The time since the begin of 1970. Zero if Xen does not tell it.
    pub fn wall_clock(&self) -> Duration {
        let begin = arch::shared_info().and_then(SharedInfo::wall_clock);
        begin.map_or(Duration::ZERO, |begin| begin + self.now().since(Instant::from_nanos(0)))
    }

    /// The time-stamp counter: one count is an instruction under counted emulation.
    pub fn tsc(&self) -> u64 {
        arch::tsc()
    }

    /// Waits until an event comes, or until `until`; see [`Channels::wait`].
    pub fn wait(&self, until: Option<Instant>) -> Woken {
        self.events.wait(until)
    }

    /// Whether the user, by Ctrl-C, or the toolstack wants the program to end. A program that runs
    /// for long asks between two steps.
    pub fn interrupted(&self) -> bool {
        self.keyboard.interrupted() || self.shutdown_wanted().is_some()
    }

    /// How the toolstack wants the guest to end (`xl shutdown`, `xl reboot`), if it does.
    pub fn shutdown_wanted(&self) -> Option<ShutdownReason> {
        // A store that is lost asks for nothing; whoever uses it next will say that it is lost.
        self.store.as_ref()?.wanted().ok().flatten()
    }

    /// The kernel command line.
    pub fn command_line(&self) -> &CommandLine {
        &self.command_line
    }

    /// Console input. Output is [`print!`](crate::print) and [`println!`](crate::println).
    pub fn keyboard(&self) -> &Keyboard {
        &self.keyboard
    }

    /// Event channels. The handle can be copied.
    pub fn events(&self) -> Channels {
        self.events
    }

    /// The grant table. The handle can be copied.
    pub fn grants(&self) -> GrantTable {
        self.grants
    }

    /// Xenstore; the initial domain has none.
    pub fn store(&self) -> Option<&GuestStore> {
        self.store.as_ref()
    }

    /// How much memory there is.
    pub fn memory(&self) -> Memory {
        let figures = arch::memory_figures();
        let [total_kib, mapped_kib, free_kib] =
            [figures.total, figures.mapped, figures.free].map(|frames| frames * 4);
        Memory { total_kib, mapped_kib, free_kib }
    }

    /// Notes that something was reached for the first time.
    pub fn mark(&self, name: &'static str) {
        self.timeline.mark(name, arch::tsc(), arch::ran_ns());
    }

    /// When what was reached. `None` if Xen does not let us read the time.
    pub fn timeline(&self) -> Option<Report> {
        Some(self.timeline.report(sample()?))
    }

    /// Notes how a command went; the first failure becomes the status of the guest.
    pub fn note(&self, status: Status) {
        let first = self.status.load(Ordering::Relaxed) == Status::OKAY.0;
        if first {
            self.status.store(status.0, Ordering::Relaxed);
        }
    }

    /// Prints the status as the last line and ends the domain.
    pub fn shutdown(&self, reason: ShutdownReason) -> ! {
        farewell(Status(self.status.load(Ordering::Relaxed)), reason)
    }
}

/// Prints the status as the last line, waits until it was read, and ends the domain.
pub(crate) fn farewell(Status(status): Status, reason: ShutdownReason) -> ! {
    crate::println!("pvblk: exit status {status}");
    console::drain(FAREWELL);
    arch::shutdown(reason)
}
