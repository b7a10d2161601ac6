//! Which event channel ports have had an event, and for whom it is kept.
//!
//! Xen's pending bits are collected into bits of our own, at explicit points. Somebody who waits
//! for one port takes that bit only: an event that comes for somebody else meanwhile stays, and
//! makes his next wait return at once. So no event is lost between two that wait in turn; the
//! price is a wait that returns for something already seen, which every caller must bear anyway.

use core::sync::atomic::{AtomicU64, Ordering};

use xen::Port;
use xen::abi::{EVENT_CHANNELS_MAX, SharedInfo};

const WORDS: usize = EVENT_CHANNELS_MAX as usize / 64;

/// One bit for each port.
#[derive(Debug)]
pub struct Arrivals {
    words: [AtomicU64; WORDS],
}

impl Arrivals {
    /// Nothing has arrived.
    pub const fn new() -> Self {
        Self { words: [const { AtomicU64::new(0) }; WORDS] }
    }

    /// Moves the events that Xen has pending for the first virtual processor over here.
    ///
    /// In the order that `xen.h` prescribes: the flag is cleared before the selector is read, the
    /// selector before the words, and each pending bit before anybody looks for the work that it
    /// announces. An event that comes meanwhile sets the flag again.
    pub fn collect(&self, shared: &SharedInfo) {
        let vcpu = &shared.vcpu_info[0];
        vcpu.evtchn_upcall_pending.swap(0, Ordering::SeqCst);
        let mut selected = vcpu.evtchn_pending_sel.swap(0, Ordering::SeqCst);
        while selected != 0 {
            let word = selected.trailing_zeros() as usize;
            selected &= selected - 1;
            let mask = shared.evtchn_mask[word].load(Ordering::Relaxed);
            let fired = shared.evtchn_pending[word].fetch_and(mask, Ordering::SeqCst) & !mask;
            self.words[word].fetch_or(fired, Ordering::Relaxed);
        }
    }

    /// Takes the event of one port, if there is one.
    pub fn take(&self, port: Port) -> bool {
        let bit = 1 << (port.0 % 64);
        let word = self.words.get(port.0 as usize / 64);
        word.is_some_and(|word| word.fetch_and(!bit, Ordering::Relaxed) & bit != 0)
    }

    /// Puts an event of one port back, for whoever waits next.
    pub fn put(&self, port: Port) {
        if let Some(word) = self.words.get(port.0 as usize / 64) {
            word.fetch_or(1 << (port.0 % 64), Ordering::Relaxed);
        }
    }

    /// Takes all events, tells each port to `note`, and tells whether there was any.
    pub fn take_all(&self, mut note: impl FnMut(Port)) -> bool {
        let mut any = false;
        for (base, word) in (0..).step_by(64).zip(&self.words) {
            let mut bits = word.swap(0, Ordering::Relaxed);
            any |= bits != 0;
            while bits != 0 {
                note(Port(base + bits.trailing_zeros()));
                bits &= bits - 1;
            }
        }
        any
    }
}

impl Default for Arrivals {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec;

    use core::array::from_fn;
    use core::sync::atomic::{AtomicI8, AtomicU8, AtomicU32};

    use xen::abi::{ArchSharedInfo, ArchVcpuInfo, TimeInfo, VcpuInfo};

    use super::*;

    fn shared_page() -> SharedInfo {
        let time = || TimeInfo {
            version: AtomicU32::new(0),
            pad0: AtomicU32::new(0),
            tsc_timestamp: AtomicU64::new(0),
            system_time: AtomicU64::new(0),
            tsc_to_system_mul: AtomicU32::new(0),
            tsc_shift: AtomicI8::new(0),
            flags: AtomicU8::new(0),
            pad1: from_fn(|_| AtomicU8::new(0)),
        };
        SharedInfo {
            vcpu_info: from_fn(|_| VcpuInfo {
                evtchn_upcall_pending: AtomicU8::new(0),
                evtchn_upcall_mask: AtomicU8::new(1),
                evtchn_pending_sel: AtomicU64::new(0),
                arch: ArchVcpuInfo { cr2: AtomicU64::new(0), pad: AtomicU64::new(0) },
                time: time(),
            }),
            evtchn_pending: from_fn(|_| AtomicU64::new(0)),
            evtchn_mask: from_fn(|_| AtomicU64::new(0)),
            wc_version: AtomicU32::new(0),
            wc_sec: AtomicU32::new(0),
            wc_nsec: AtomicU32::new(0),
            wc_sec_hi: AtomicU32::new(0),
            arch: ArchSharedInfo {
                max_pfn: AtomicU64::new(0),
                pfn_to_mfn_frame_list_list: AtomicU64::new(0),
                nmi_reason: AtomicU64::new(0),
                p2m_cr3: AtomicU64::new(0),
                p2m_vaddr: AtomicU64::new(0),
                p2m_generation: AtomicU64::new(0),
            },
        }
    }

    /// What Xen does when an event comes.
    fn raise(shared: &SharedInfo, port: u32) {
        let (word, bit) = (port as usize / 64, 1_u64 << (port % 64));
        let before = shared.evtchn_pending[word].fetch_or(bit, Ordering::SeqCst);
        if before & bit == 0 && shared.evtchn_mask[word].load(Ordering::SeqCst) & bit == 0 {
            let vcpu = &shared.vcpu_info[0];
            if vcpu.evtchn_pending_sel.fetch_or(1 << word, Ordering::SeqCst) & (1 << word) == 0 {
                vcpu.evtchn_upcall_pending.store(1, Ordering::SeqCst);
            }
        }
    }

    #[test]
    fn an_event_is_taken_once_by_its_port() {
        let (shared, arrivals) = (shared_page(), Arrivals::new());
        raise(&shared, 5);
        arrivals.collect(&shared);
        assert_eq!(shared.vcpu_info[0].evtchn_upcall_pending.load(Ordering::SeqCst), 0);
        assert!(!arrivals.take(Port(4)));
        assert!(arrivals.take(Port(5)));
        assert!(!arrivals.take(Port(5)));
        raise(&shared, 5);
        assert_eq!(shared.vcpu_info[0].evtchn_upcall_pending.load(Ordering::SeqCst), 1);
        arrivals.collect(&shared);
        assert!(arrivals.take(Port(5)), "a second event raises the flag again");
        arrivals.put(Port(5));
        assert!(arrivals.take(Port(5)), "an event that was put back is there");
    }

    #[test]
    fn an_event_for_another_port_stays_for_the_next_who_waits() {
        let (shared, arrivals) = (shared_page(), Arrivals::new());
        raise(&shared, 64);
        raise(&shared, 3);
        arrivals.collect(&shared);
        assert!(arrivals.take(Port(3)));
        raise(&shared, 64 + 63);
        arrivals.collect(&shared);
        let mut ports = vec![];
        assert!(arrivals.take_all(|port| ports.push(port)));
        assert_eq!(ports, [Port(64), Port(127)]);
        assert!(!arrivals.take_all(|_| panic!("nothing is left")));
    }

    #[test]
    fn a_masked_event_stays_with_xen() {
        let (shared, arrivals) = (shared_page(), Arrivals::new());
        shared.evtchn_mask[1].store(1 << 6, Ordering::SeqCst);
        raise(&shared, 70);
        raise(&shared, 71);
        arrivals.collect(&shared);
        assert!(!arrivals.take(Port(70)));
        assert!(arrivals.take(Port(71)));
        assert_eq!(shared.evtchn_pending[1].load(Ordering::SeqCst), 1 << 6);
    }

    #[test]
    fn the_last_port_arrives_and_one_past_it_does_not_exist() {
        let (shared, arrivals) = (shared_page(), Arrivals::new());
        raise(&shared, EVENT_CHANNELS_MAX - 1);
        arrivals.collect(&shared);
        assert!(!arrivals.take(Port(EVENT_CHANNELS_MAX)));
        assert!(arrivals.take(Port(EVENT_CHANNELS_MAX - 1)));
    }
}
