//! Event channels: ports with a pending bit.
//!
//! The bit has edge semantics: many notifications before it is cleared are one event. A bind
//! leaves one event pending that nobody sent, and a port that closes leaves its other end unbound,
//! both as Xen does. The lowest free port is used next, so that a stale port number hits something.

use xen::{DomainId, Events, NoPort, Port};

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
    pending: bool,
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
        self.0[at] = Some(Channel { end, pending: false });
        Ok(Port(port))
    }

    fn shut(&mut self, port: Port) -> Option<Channel> {
        self.0.get_mut(usize::try_from(port.0).ok()?)?.take()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Port> + '_ {
        (0..).zip(&self.0).filter(|(_, channel)| channel.is_some()).map(|(at, _)| Port(at))
    }

    pub(crate) fn is_quiet(&self) -> bool {
        !self.0.iter().flatten().any(|channel| channel.pending)
    }

    fn pending(&self) -> Option<Port> {
        let open = (0..).zip(&self.0);
        open.filter(|(_, c)| c.is_some_and(|c| c.pending)).map(|(at, _)| Port(at)).next()
    }
}

impl State {
    fn port(&mut self, id: DomainId, port: Port) -> Option<&mut Channel> {
        self.residents.get_mut(&id)?.ports.get(port)
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
        let mut state = self.alive().ok_or(NoPort)?;
        let limit = state.limits.ports;
        state.resident(self.id).ports.open(End::Offered(peer), limit)
    }

    fn bind(&self, peer: DomainId, offered: Port) -> Result<Port, NoPort> {
        let mut state = self.alive().ok_or(NoPort)?;
        let limit = state.limits.ports;
        let remote = state.port(peer, offered).ok_or(NoPort)?;
        if remote.end != End::Offered(self.id) {
            return Err(NoPort);
        }
        let ours = state.resident(self.id).ports.open(End::Bound(peer, offered), limit)?;
        if let Some(remote) = state.port(peer, offered) {
            remote.end = End::Bound(self.id, ours);
        }
        if let Some(local) = state.port(self.id, ours) {
            local.pending = true;
        }
        Ok(ours)
    }

    /// # Panics
    /// If the port is not open here.
    fn notify(&self, port: Port) {
        let Some(mut state) = self.alive() else { return };
        let id = self.id;
        let channel = state.port(id, port);
        let channel = channel.unwrap_or_else(|| panic!("domain {id} notifies closed port {port}"));
        if let End::Bound(peer, theirs) = channel.end
            && let Some(other) = state.port(peer, theirs)
        {
            other.pending = true;
        }
    }

    /// # Panics
    /// If the port is not open here.
    fn close(&self, port: Port) {
        let Some(mut state) = self.alive() else { return };
        assert!(state.shut(self.id, port), "domain {} closes closed port {port}", self.id);
    }
}

impl Domain {
    /// Takes one pending event, lowest port first, and clears its bit. With
    /// [`spurious_events`](crate::Faults::spurious_events), now and then one that was never sent.
    pub fn take_event(&self) -> Option<Port> {
        let mut state = self.alive()?;
        let chance = state.faults.spurious_events;
        let spurious = chance > 0 && state.random.chance(chance);
        let open: Vec<Port> = state.resident(self.id).ports.iter().collect();
        let pending = state.resident(self.id).ports.pending();
        if let Some(port) = pending
            && let Some(channel) = state.port(self.id, port)
        {
            channel.pending = false;
        }
        if pending.is_none() && spurious && !open.is_empty() {
            let at = state.random.below(open.len());
            return Some(open[at]);
        }
        pending
    }
}
