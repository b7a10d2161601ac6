//! The kernel as the machine that programs run on.

use alloc::string::String;
use core::fmt;

use xen::Port;

use crate::events::Channels;
use crate::grants::GrantTable;
use crate::kernel::{Kernel, Status};
use crate::programs::{CONNECT_PATIENCE, Machine, Program};
use crate::store::GuestStore;
use crate::time::Instant;

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

    fn wait(&self, until: Option<Instant>, note: &mut dyn FnMut(Port)) {
        // Programs look for themselves whether time is over.
        let _ = self.events.wait_noting(until, note);
    }

    fn hypercalls(&self) -> u64 {
        crate::arch::hypercalls()
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
        self.disks.borrow_mut().connect(self, CONNECT_PATIENCE);
        self.mark("disks");
    }

    /// Follows what happened to the disks while nobody used them.
    pub(crate) fn look_after_disks(&self) {
        self.disks.borrow_mut().look_after(self);
    }

    /// Closes the disks in good order.
    pub(crate) fn close_disks(&self) {
        self.disks.borrow_mut().close(self);
    }

    /// Runs a program, prints why it failed, and waits for what it left in flight.
    pub(crate) fn program(&self, name: &str, program: Program<Self>, words: &[String]) -> Status {
        let mut disks = self.disks.borrow_mut();
        let ended = program(self, &mut disks, words);
        disks.settle(self);
        match ended {
            Ok(()) => Status::OKAY,
            Err(failure) => {
                println!("{name}: {failure}");
                Status(failure.status)
            }
        }
    }
}
