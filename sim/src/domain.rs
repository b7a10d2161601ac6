//! One domain, as the program in it sees it.
//!
//! A handle belongs to one life of the domain's program. After [`Sim::crash`](crate::Sim::crash)
//! or [`Sim::kill`](crate::Sim::kill) it is dead: what it is asked for fails, and what is dropped
//! or closed through it was given back already. A dead program cannot make a mistake.

use std::fmt;
use std::sync::MutexGuard;

use xen::DomainId;

use crate::clock::Clock;
use crate::state::{Shared, State};

/// One domain of a simulated machine. Clones are the same program.
#[derive(Clone)]
pub struct Domain {
    pub(crate) shared: Shared,
    pub(crate) id: DomainId,
    pub(crate) life: u32,
}

impl Domain {
    /// Which domain this is.
    pub fn id(&self) -> DomainId {
        self.id
    }

    /// The machine's time, which goes on after the program's end.
    pub fn clock(&self) -> Clock {
        self.shared.lock().clock.clone()
    }

    /// The machine, if this program runs still.
    pub(crate) fn alive(&self) -> Option<MutexGuard<'_, State>> {
        let mut state = self.shared.lock();
        let resident = state.residents.get_mut(&self.id)?;
        resident.calls += 1;
        (!resident.dead && resident.life == self.life).then_some(state)
    }
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Domain({})", self.id)
    }
}
