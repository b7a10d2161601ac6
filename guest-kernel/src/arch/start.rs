//! The start info page, copied once at entry.

use ring::Page;
use x86_64::VirtAddr;
use xen::abi::{StartFlags, StartInfo};
use xen::{Mfn, Pfn, Port};

use super::memory;
use crate::layout::frame_of;

/// What Xen and the toolstack tell a domain at its entry. Both are trusted by their guest.
pub(crate) struct Start {
    info: StartInfo,
    /// Where the page was: it holds nothing else, and is free memory after the copy.
    page: Pfn,
    /// The time-stamp counter at the first instruction.
    pub(crate) entry_tsc: u64,
}

/// What the kernel prints on and reads from.
pub(crate) enum ConsoleWire {
    /// Hypercalls: the initial domain has no other.
    Hypervisor,
    /// A page with two byte rings and its event channel.
    Ring(&'static Page, Port),
}

impl Start {
    /// Copies the page at `info`.
    ///
    /// # Safety
    /// `info` is what Xen passed at entry, and the boot page tables are still in place.
    pub(super) unsafe fn copy(info: *const StartInfo, entry_tsc: u64) -> Self {
        let page = frame_of(VirtAddr::from_ptr(info));
        // SAFETY: the caller promises a mapped, aligned start info page that stays as it is; any
        // bits are one.
        let info = unsafe { info.read() };
        Self { info, page, entry_tsc }
    }

    pub(super) fn info(&self) -> &StartInfo {
        &self.info
    }

    pub(super) fn page(&self) -> Pfn {
        self.page
    }

    /// The frames of the console's and the store's pages, if there are any.
    pub(super) fn ring_frames(&self) -> [Option<Pfn>; 2] {
        let machine = [self.info.console.mfn, self.info.store_mfn];
        machine.map(|machine| {
            let ours = !self.is_initial_domain();
            // SAFETY: the toolstack put both pages into our memory.
            ours.then(|| unsafe { memory::own_frame(Mfn(machine)) })
        })
    }

    /// Whether Xen started this domain itself: then there is no toolstack, no console ring and no
    /// xenstore.
    pub(crate) fn is_initial_domain(&self) -> bool {
        self.info.flags.contains(StartFlags::INITIAL_DOMAIN)
    }

    /// The kernel command line, at most 1023 bytes.
    pub(crate) fn command_line(&self) -> &[u8] {
        self.info.command_line()
    }

    /// The console.
    pub(crate) fn console(&self) -> ConsoleWire {
        if self.is_initial_domain() {
            return ConsoleWire::Hypervisor;
        }
        let console = &self.info.console;
        // SAFETY: this is the console's frame.
        let page = unsafe { memory::ring_page(Mfn(console.mfn)) };
        ConsoleWire::Ring(page, Port(console.evtchn))
    }

    /// The xenstore page and its event channel, if there is a xenstore.
    pub(crate) fn store(&self) -> Option<(&'static Page, Port)> {
        if self.is_initial_domain() {
            return None;
        }
        // SAFETY: this is xenstore's frame.
        let page = unsafe { memory::ring_page(Mfn(self.info.store_mfn)) };
        Some((page, Port(self.info.store_evtchn)))
    }
}
