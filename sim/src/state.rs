//! The one machine that all domains of a simulation share.
//!
//! Everything sits behind one lock, so that the simulator can be used from several threads. It
//! must never call back into a driver while it holds the lock.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use xen::DomainId;

use crate::calls::{Doom, Fate};
use crate::clock::Clock;
use crate::domain::Domain;
use crate::events::Ports;
use crate::faults::{Faults, Limits, Strike, Tally};
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
    pub(crate) strike: Option<Strike>,
    pub(crate) fate: Option<Fate>,
    pub(crate) tally: Tally,
    pub(crate) limits: Limits,
    pub(crate) clock: Clock,
    /// A hash of every call so far and of what it met.
    pub(crate) trace: u64,
    /// How many calls there were.
    pub(crate) calls: u64,
    /// How many programs were started.
    pub(crate) lives: u32,
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
    /// Pages of others that it has mapped.
    pub(crate) mapped: usize,
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
    pub(crate) fn release(&mut self, id: DomainId) {
        let held: Vec<u64> =
            self.mappings.iter().filter(|(_, m)| m.mapper == id).map(|(&n, _)| n).collect();
        for number in held {
            self.unmap(number);
        }
        self.close_all(id);
        self.store.disconnect(id);
        self.lives += 1;
        let life = self.lives;
        let resident = self.resident(id);
        (resident.life, resident.pages) = (life, 0);
    }

    /// Ends a domain.
    pub(crate) fn bury(&mut self, id: DomainId) {
        self.release(id);
        let resident = self.resident(id);
        resident.dead = true;
        resident.grants.bury();
        self.store.farewell();
    }
}

impl Sim {
    /// A machine without domains and without faults, whose every choice comes from `seed`.
    pub fn new(seed: u64) -> Self {
        Self::at(seed, Clock::new())
    }

    /// The same, with a clock that others have too.
    pub fn at(seed: u64, clock: Clock) -> Self {
        let state = State {
            random: Random::new(seed),
            faults: Faults::default(),
            strike: None,
            fate: None,
            tally: Tally::default(),
            limits: Limits::default(),
            clock,
            trace: 0,
            calls: 0,
            lives: 0,
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
        let state = &mut *self.shared.lock();
        if let Entry::Vacant(place) = state.residents.entry(id) {
            state.lives += 1;
            place.insert(Resident { life: state.lives, ..Resident::default() });
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
        self.shared.lock().bury(id);
    }

    /// Power is cut and comes back: no domain is there, nor anything that one had. Handles from
    /// before are dead. Faults, limits, time and tally go on.
    pub fn restart(&self) {
        let mut state = self.shared.lock();
        state.residents.clear();
        state.mappings.clear();
        state.store = Xenstore::new();
        state.fate = None;
    }

    /// Lets the program in `id` make so many more calls and ends it, or its domain, at the next
    /// one, which unwinds with [`Died`](crate::Died). One death at a time is to come.
    pub fn doom(&self, id: DomainId, calls: u64, doom: Doom) {
        self.shared.lock().fate = Some(Fate { who: id, calls, doom });
    }

    /// Calls a death off that has not come; tells how many calls were left.
    pub fn spare(&self) -> Option<u64> {
        self.shared.lock().fate.take().map(|fate| fate.calls)
    }

    /// Has the n-th call of a kind fail, in place of a strike from before that is to come still.
    pub fn strike(&self, strike: Option<Strike>) {
        self.shared.lock().strike = strike;
    }

    /// What was done badly so far.
    pub fn tally(&self) -> Tally {
        self.shared.lock().tally.clone()
    }

    /// The machine's time.
    pub fn clock(&self) -> Clock {
        self.shared.lock().clock.clone()
    }

    /// A hash of all calls so far, what they met, and when: the same seed and the same calls give
    /// the same one.
    pub fn trace(&self) -> u64 {
        let state = self.shared.lock();
        crate::calls::mixed(state.trace, state.clock.now())
    }

    /// Draws everything from now on from another seed.
    pub fn reseed(&self, seed: u64) {
        self.shared.lock().random = Random::new(seed);
    }

    /// The time of the first event or fired watch that nobody has taken.
    pub fn next_due(&self) -> Option<u64> {
        let state = self.shared.lock();
        let events = state.residents.values().filter_map(|resident| resident.ports.next_due());
        events.chain(state.store.next_due()).min()
    }

    /// The value of a node, for the tester: no call of anybody, and no time passes.
    pub fn peek(&self, path: &str) -> Option<String> {
        self.look(path, |value| value.map(str::to_owned))
    }

    /// The same, where it is: `at` must not ask the machine for anything.
    pub fn look<T>(&self, path: &str, at: impl FnOnce(Option<&str>) -> T) -> T {
        at(self.shared.lock().store.peek(path))
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
