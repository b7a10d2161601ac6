//! Event channels, and waiting: the one place where the kernel stops.

use spin::Once;
use xen::abi::Virq;
use xen::{DomainId, Events, NoPort, Port};

use crate::arch;
use crate::kernel::now;
use crate::ports::Arrivals;
use crate::time::Instant;

static ARRIVALS: Arrivals = Arrivals::new();
static TIMER: Once<Port> = Once::new();

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// Some event came, perhaps one that was dealt with already.
    Event,
    /// The time has come.
    Deadline,
}

/// The event channels of this domain. A handle: all copies mean the same.
#[derive(Clone, Copy, Debug)]
pub struct Channels(());

impl Channels {
    /// Stops the tick that Xen starts with and takes over the timer.
    ///
    /// # Errors
    /// [`NoPort`] if the timer cannot be had.
    pub(crate) fn open() -> Result<Self, NoPort> {
        arch::stop_periodic_timer();
        let timer = arch::bind_virq(Virq::Timer).map_err(|_| NoPort)?;
        TIMER.call_once(|| timer);
        Ok(Self(()))
    }

    /// Waits until an event comes on any port, or until `until`. Returns at once if one came since
    /// the last call: nobody sleeps through an event that another wait of the kernel's saw.
    ///
    /// Whoever waits looks for work after every wake-up, not only when the event was his.
    pub fn wait(self, until: Option<Instant>) -> Woken {
        self.wait_noting(until, |_| {})
    }

    /// The same, and tells `note` each port that had an event, for counting.
    pub fn wait_noting(self, until: Option<Instant>, mut note: impl FnMut(Port)) -> Woken {
        wait_until(|| ARRIVALS.take_all(&mut note), until)
    }

    /// The same for one port; events on others are kept for [`wait`](Self::wait).
    pub fn wait_for(self, port: Port, until: Option<Instant>) -> Woken {
        wait_until(|| ARRIVALS.take(port), until)
    }

    /// Has the next wait return at once, as if an event had come on `port`.
    pub(crate) fn keep(self, port: Port) {
        ARRIVALS.put(port);
    }

    /// Takes the event of a port that came since it was last taken or waited for.
    pub fn arrived(self, port: Port) -> bool {
        collect();
        ARRIVALS.take(port)
    }
}

/// Collects what is pending, for whoever waits next. After it, `arch::poll` waits for news.
pub(crate) fn collect() {
    if let Some(shared) = arch::shared_info() {
        ARRIVALS.collect(shared);
    }
}

fn wait_until(mut came: impl FnMut() -> bool, until: Option<Instant>) -> Woken {
    loop {
        collect();
        // The timer says nothing but that time has passed, which is looked at below.
        TIMER.get().map(|&timer| ARRIVALS.take(timer));
        if came() {
            return Woken::Event;
        }
        if let Some(until) = until {
            if now().is_none_or(|now| now >= until) {
                return Woken::Deadline;
            }
            arch::set_timer(until.as_nanos()).expect("any time is good for the timer");
        }
        arch::block();
    }
}

impl Events for Channels {
    fn offer(&self, peer: DomainId) -> Result<Port, NoPort> {
        arch::offer_port(peer).map_err(|_| NoPort)
    }

    fn bind(&self, peer: DomainId, offered: Port) -> Result<Port, NoPort> {
        arch::bind_interdomain(peer, offered).map_err(|_| NoPort)
    }

    fn notify(&self, port: Port) {
        // The only error is that the peer, or the port, is gone.
        let _ = arch::send_event(port);
    }

    fn close(&self, port: Port) {
        let _ = arch::close_port(port);
        // An event of the old use must not be taken for one of the next.
        self.arrived(port);
    }
}
