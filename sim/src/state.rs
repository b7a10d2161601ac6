//! The one machine that all domains of a simulation share.
//!
//! Everything sits behind one lock, so that the simulator can be used from several threads. It
//! must never call back into a driver while it holds the lock.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use xen::DomainId;

use crate::domain::Domain;
use crate::events::Ports;
use crate::faults::{Faults, Limits};
use crate::grants::GrantTable;
use crate::maps::Mapping;
use crate::random::Random;
use crate::xenstore::Xenstore;

/// A simulated machine: the toolstack's and the tester's view.
///
/// Clones are the same machine.
#[derive(Clone)]
pub struct Sim {
    pub(crate) shared: Shared,
}

/// The machine behind its lock.
#[derive(Clone)]
pub(crate) struct Shared(Arc<Mutex<State>>);

impl Shared {
    /// The machine. A panic elsewhere does not make it unusable: values that are dropped while
    /// that panic unwinds come through here.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

pub(crate) struct State {
    pub(crate) random: Random,
    pub(crate) faults: Faults,
    pub(crate) limits: Limits,
    pub(crate) residents: BTreeMap<DomainId, Resident>,
    /// Live mappings by a number that is never used twice.
    pub(crate) mappings: BTreeMap<u64, Mapping>,
    pub(crate) mappings_made: u64,
    pub(crate) store: Xenstore,
}

/// What the hypervisor keeps for one domain.
#[derive(Default)]
pub(crate) struct Resident {
    pub(crate) dead: bool,
    /// Which program runs in the domain; handles of former ones are dead.
    pub(crate) life: u32,
    /// How often its programs asked for something.
    pub(crate) calls: u64,
    pub(crate) pages: usize,
    pub(crate) grants: GrantTable,
    pub(crate) ports: Ports,
}

impl State {
    /// What is kept for `id`, if it ever existed.
    ///
    /// # Panics
    /// If it did not. A handle exists only for a domain that does.
    pub(crate) fn resident(&mut self, id: DomainId) -> &mut Resident {
        self.residents.get_mut(&id).expect("a domain that was never created has no handle")
    }

    /// Gives back what the program in `id` held.
    fn release(&mut self, id: DomainId) {
        let held: Vec<u64> =
            self.mappings.iter().filter(|(_, m)| m.mapper == id).map(|(&n, _)| n).collect();
        for number in held {
            self.unmap(number);
        }
        self.close_all(id);
        self.store.disconnect(id);
        let resident = self.resident(id);
        resident.life += 1;
        resident.pages = 0;
    }
}

impl Sim {
    /// A machine without domains and without faults, whose every choice comes from `seed`.
    pub fn new(seed: u64) -> Self {
        let state = State {
            random: Random::new(seed),
            faults: Faults::default(),
            limits: Limits::default(),
            residents: BTreeMap::new(),
            mappings: BTreeMap::new(),
            mappings_made: 0,
            store: Xenstore::new(),
        };
        Self { shared: Shared(Arc::new(Mutex::new(state))) }
    }

    /// Sets how often each fault happens from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.shared.lock().faults = faults;
    }

    /// Sets the limits from now on. What exists beyond them stays.
    pub fn set_limits(&self, limits: Limits) {
        self.shared.lock().limits = limits;
    }

    /// The domain `id` as its own program sees it. Creates the domain, with its directory in
    /// xenstore, the first time.
    ///
    /// # Panics
    /// If the domain is dead: ids of dead domains are not used again.
    pub fn domain(&self, id: DomainId) -> Domain {
        self.guest(id, &[])
    }

    /// The same; a domain that is created has `nodes` in its directory, which it cannot write,
    /// before anybody is told of it.
    ///
    /// # Panics
    /// If the domain is dead.
    pub fn guest(&self, id: DomainId, nodes: &[(&str, &str)]) -> Domain {
        let mut state = self.shared.lock();
        if let Entry::Vacant(place) = state.residents.entry(id) {
            place.insert(Resident::default());
            state.store.introduce(id, nodes);
        }
        let resident = state.resident(id);
        assert!(!resident.dead, "domain {id} is dead");
        Domain { shared: self.shared.clone(), id, life: resident.life }
    }

    /// Ends the program in `id`, as `kill -9` ends a daemon: its kernel gives back mappings,
    /// ports, watches and transactions. The domain and its grants stay. Handles to the domain
    /// from before are dead.
    pub fn crash(&self, id: DomainId) {
        self.shared.lock().release(id);
    }

    /// Ends the domain `id`. Its grants go as soon as nobody has them mapped. Nodes in xenstore
    /// stay, as it is the toolstack that removes them; who watches `@releaseDomain` is told.
    pub fn kill(&self, id: DomainId) {
        let mut state = self.shared.lock();
        state.release(id);
        let resident = state.resident(id);
        resident.dead = true;
        resident.grants.bury();
        state.store.farewell();
    }

    /// How often programs in `id` have asked Xen or xenstore for something, each copy by itself: the
    /// work that one domain can make for another is measured by it.
    pub fn calls(&self, id: DomainId) -> u64 {
        self.shared.lock().residents.get(&id).map_or(0, |resident| resident.calls)
    }

    /// Whether no event is pending and no watch event waits anywhere.
    pub fn is_quiet(&self) -> bool {
        let state = self.shared.lock();
        state.store.is_quiet() && state.residents.values().all(|resident| resident.ports.is_quiet())
    }
}
