//! The kernel as the machine that programs run on.

use alloc::string::String;
use core::fmt;
use core::sync::atomic::Ordering;
use core::time::Duration;

use xen::Port;

use crate::cpu::CpuTimes;
use crate::events::Channels;
use crate::files::{self, Access};
use crate::grants::GrantTable;
use crate::kernel::{Kernel, Status};
use crate::process;
use crate::programs::observe::Plan;
use crate::programs::{CONNECT_PATIENCE, Disks, Failure, Machine, Program, root, stream};
use crate::store::GuestStore;
use crate::sysctl::number;
use crate::time::Instant;
use crate::user::image::FILE_BYTES_MAX;
use crate::user::swap;

impl Machine for Kernel {
    type Grants = GrantTable;
    type Events = Channels;
    type Store = GuestStore;

    fn ends(&self) -> (GrantTable, Channels) {
        (self.grants, self.events)
    }

    fn store(&self) -> Option<&GuestStore> {
        self.store.as_ref()
    }

    fn now(&self) -> Instant {
        Kernel::now(self)
    }

    fn wall_clock(&self) -> Duration {
        Kernel::wall_clock(self)
    }

    fn wait(&self, until: Option<Instant>, note: &mut dyn FnMut(Port)) {
        // Programs look for themselves whether time is over.
        let _ = self.events.wait_noting(until, note);
    }

    fn hypercalls(&self) -> u64 {
        crate::arch::hypercalls()
    }

    fn wait_for_disks(&self, until: Option<Instant>, note: &mut dyn FnMut(Port)) {
        // Exact, and counted where it is spent: Xen's own time of being blocked, before and after.
        let before = self.cpu_times();
        Machine::wait(self, until, note);
        let spent = self.cpu_times().since(&before);
        // What was not added yet counts as idle.
        self.wait_ns.fetch_add(spent.idle, Ordering::Relaxed);
    }

    fn cpu_times(&self) -> CpuTimes {
        Kernel::cpu_times(self)
    }

    fn key(&self) -> Option<u8> {
        self.keyboard.key()
    }

    fn interrupted(&self) -> bool {
        Kernel::interrupted(self)
    }

    fn free_pages(&self) -> u64 {
        self.memory().free_kib / 4
    }

    fn mark(&self, name: &'static str) {
        Kernel::mark(self, name);
    }

    fn print(&self, line: fmt::Arguments<'_>) {
        println!("{line}");
    }
}

impl Kernel {
    /// Connects the disks that xenstore has for us.
    pub(crate) fn connect_disks(&self) {
        let mut disks = self.disks.borrow_mut();
        let all = self.command_line.value("elevator");
        disks.want_elevators(self, all, self.command_line.values("elevator."));
        disks.connect(self, CONNECT_PATIENCE);
        drop(disks);
        self.mark("disks");
    }

    /// Mounts what `root=` names, read-only unless `rw` is given; without it, nothing. If that
    /// fails, it is told, and the shell goes on without.
    pub(crate) fn mount_root(&self) {
        let Some(spec) = self.command_line.value("root") else { return };
        let access = match (self.command_line.has("rw"), self.command_line.has("ro")) {
            (true, false) => Access::ReadWrite,
            _ => Access::ReadOnly,
        };
        let mount = |disks: &mut Disks<Self>| {
            let seconds = match self.command_line.value("rootwait") {
                Some(text) => number("rootwait", text, 0..=root::WAIT_SECONDS_MAX)?,
                None => root::WAIT_SECONDS,
            };
            root::mount(self, disks, spec, access, seconds)
        };
        self.note(self.with_disks("root", mount));
        self.mark("root");
    }

    /// Follows what happened to the disks while nobody used them.
    pub(crate) fn look_after_disks(&self) {
        self.disks.borrow_mut().look_after(self);
    }

    /// Takes the swap area out of use and closes the disks in good order.
    pub(crate) fn close_disks(&self) {
        if self.swap.borrow().is_some() {
            // It is there, so it can be taken out of use.
            let _ = swap::off(self, &mut self.swap.borrow_mut());
        }
        self.disks.borrow_mut().close(self);
    }

    /// Shows what happens while `run` does: `name` is the command that it runs.
    pub(crate) fn watched(&self, plan: Plan, name: &str, run: impl FnOnce() -> Status) -> Status {
        self.disks.borrow_mut().begin_report(self, plan, name);
        let status = run();
        self.disks.borrow_mut().end_report(self);
        status
    }

    /// Runs a program, prints why it failed, and waits for what it left in flight.
    pub(crate) fn program(&self, name: &str, program: Program<Self>, words: &[String]) -> Status {
        self.with_disks(name, |disks| program(self, disks, words))
    }

    /// Does something with the disks, prints why it failed, and waits for what it left in flight.
    pub(crate) fn with_disks(
        &self,
        name: &str,
        action: impl FnOnce(&mut Disks<Self>) -> Result<(), Failure>,
    ) -> Status {
        let mut disks = self.disks.borrow_mut();
        let ended = action(&mut disks);
        disks.settle(self);
        match ended {
            Ok(()) => Status::OKAY,
            Err(failure) => {
                println!("{name}: {failure}");
                Status(failure.status)
            }
        }
    }

    /// Runs the program that the first word names: a file by its path, a disk that holds one
    /// (`/dev/xvdb`), or by its name alone what is in `/bin`. `None` if there is none of this name.
    pub(crate) fn run_program(&self, words: &[String]) -> Option<Status> {
        let name = words.first()?;
        let file = {
            let mut disks = self.disks.borrow_mut();
            match (name.strip_prefix("/dev/"), name.contains('/')) {
                (Some(disk), _) => stream::whole(self, &mut disks, disk, FILE_BYTES_MAX),
                (None, true) => files::read(self, &mut disks, name, FILE_BYTES_MAX),
                (None, false) => {
                    let path = alloc::format!("/bin/{name}");
                    match files::read(self, &mut disks, &path, FILE_BYTES_MAX) {
                        // Nothing is mounted, or there is no such file.
                        Err(failure) if failure.status == Status::ENVIRONMENT.0 => return None,
                        file => file,
                    }
                }
            }
        };
        Some(match file {
            Ok(file) => process::run(self, &file, words),
            Err(failure) => {
                println!("{name}: {failure}");
                Status(failure.status)
            }
        })
    }
}
