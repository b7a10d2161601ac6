//! Event channels: ports with a pending bit.
//!
//! The bit has edge semantics: many notifications before it is cleared are one event, which comes
//! when the first of them would have. A bind
//! leaves one event pending that nobody sent, and a port that closes leaves its other end unbound,
//! both as Xen does. The lowest free port is used next, so that a stale port number hits something.

use xen::{DomainId, Events, NoPort, Port};

use crate::calls::Call;
use crate::domain::Domain;
use crate::state::State;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Waits for `peer` to bind.
    Offered(DomainId),
    /// The other end is that port of that domain.
    Bound(DomainId, Port),
}

#[derive(Clone, Copy, Debug)]
struct Channel {
    end: End,
    /// When the event arrives that was sent and not taken.
    pending: Option<u64>,
}

/// The ports of one domain; index 0 is never used.
#[derive(Default)]
pub(crate) struct Ports(Vec<Option<Channel>>);

impl Ports {
    fn get(&mut self, port: Port) -> Option<&mut Channel> {
        self.0.get_mut(usize::try_from(port.0).ok()?)?.as_mut()
    }

    fn open(&mut self, end: End, limit: u32) -> Result<Port, NoPort> {
        let free = self.0.iter().skip(1).position(Option::is_none).map(|at| at + 1);
        let at = free.unwrap_or(self.0.len().max(1));
        let port = u32::try_from(at).ok().filter(|&port| port < limit).ok_or(NoPort)?;
        if at >= self.0.len() {
            self.0.resize(at + 1, None);
        }
        self.0[at] = Some(Channel { end, pending: None });
        Ok(Port(port))
    }

    fn shut(&mut self, port: Port) -> Option<Channel> {
        self.0.get_mut(usize::try_from(port.0).ok()?)?.take()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Port> + '_ {
        (0..).zip(&self.0).filter(|(_, channel)| channel.is_some()).map(|(at, _)| Port(at))
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.next_due().is_none()
    }

    pub(crate) fn next_due(&self) -> Option<u64> {
        self.0.iter().flatten().filter_map(|channel| channel.pending).min()
    }

    /// The lowest port whose event has arrived.
    fn arrived(&self, now: u64) -> Option<Port> {
        let open = (0..).zip(&self.0);
        let due = |channel: &Channel| channel.pending.is_some_and(|due| due <= now);
        open.filter(|(_, channel)| channel.as_ref().is_some_and(due)).map(|(at, _)| Port(at)).next()
    }
}

impl State {
    fn port(&mut self, id: DomainId, port: Port) -> Option<&mut Channel> {
        self.residents.get_mut(&id)?.ports.get(port)
    }

    /// Makes an event pending at a port.
    fn send(&mut self, id: DomainId, port: Port) {
        let (due, late) = self.heard(self.faults.late_events);
        let Some(channel) = self.port(id, port) else { return };
        let merged = channel.pending.is_some();
        channel.pending = Some(channel.pending.unwrap_or(due).min(due));
        self.tally.late_events += u64::from(late);
        self.tally.merged_events += u64::from(merged);
    }

    /// Closes a port. The other end is then offered to the domain that closed.
    fn shut(&mut self, id: DomainId, port: Port) -> bool {
        let Some(channel) = self.resident(id).ports.shut(port) else { return false };
        if let End::Bound(peer, theirs) = channel.end
            && let Some(other) = self.port(peer, theirs)
        {
            other.end = End::Offered(id);
        }
        true
    }

    pub(crate) fn close_all(&mut self, id: DomainId) {
        let open: Vec<Port> = self.resident(id).ports.iter().collect();
        for port in open {
            self.shut(id, port);
        }
    }
}

impl Events for Domain {
    fn offer(&self, peer: DomainId) -> Result<Port, NoPort> {
        let mut state = self.call(Call::Offer).ok_or(NoPort)?;
        if state.fails(self.id, Call::Offer) {
            return Err(NoPort);
        }
        let limit = state.limits.ports;
        state.resident(self.id).ports.open(End::Offered(peer), limit)
    }

    fn bind(&self, peer: DomainId, offered: Port) -> Result<Port, NoPort> {
        let mut state = self.call(Call::Bind).ok_or(NoPort)?;
        if state.fails(self.id, Call::Bind) {
            return Err(NoPort);
        }
        let limit = state.limits.ports;
        let remote = state.port(peer, offered).ok_or(NoPort)?;
        if remote.end != End::Offered(self.id) {
            return Err(NoPort);
        }
        let ours = state.resident(self.id).ports.open(End::Bound(peer, offered), limit)?;
        if let Some(remote) = state.port(peer, offered) {
            remote.end = End::Bound(self.id, ours);
        }
        state.send(self.id, ours);
        Ok(ours)
    }

    /// # Panics
    /// If the port is not open here.
    fn notify(&self, port: Port) {
        let Some(mut state) = self.call(Call::Notify) else { return };
        let id = self.id;
        let channel = state.port(id, port);
        let channel = channel.unwrap_or_else(|| panic!("domain {id} notifies closed port {port}"));
        if let End::Bound(peer, theirs) = channel.end {
            state.send(peer, theirs);
        }
    }

    /// # Panics
    /// If the port is not open here.
    fn close(&self, port: Port) {
        let Some(mut state) = self.call(Call::Close) else { return };
        assert!(state.shut(self.id, port), "domain {} closes closed port {port}", self.id);
    }
}

impl Domain {
    /// Takes one event that has arrived, lowest port first, and clears its bit. With
    /// [`spurious_events`](crate::Faults::spurious_events), now and then one that was never sent.
    pub fn take_event(&self) -> Option<Port> {
        let state = &mut *self.call(Call::TakeEvent)?;
        let now = state.clock.now();
        let Some(port) = state.resident(self.id).ports.arrived(now) else {
            return state.unsent(self.id);
        };
        let again = state.draws(state.faults.repeated_events);
        let (due, _) = state.heard(if again { 1000 } else { 0 });
        state.tally.repeated_events += u64::from(again);
        if let Some(channel) = state.port(self.id, port) {
            channel.pending = again.then_some(due);
        }
        Some(port)
    }
}

impl State {
    fn unsent(&mut self, id: DomainId) -> Option<Port> {
        let drawn = self.draws(self.faults.spurious_events);
        let count = self.resident(id).ports.iter().count();
        if !drawn || count == 0 {
            return None;
        }
        self.tally.spurious_events += 1;
        let at = self.random.below(count);
        self.resident(id).ports.iter().nth(at)
    }
}
