//! The back's workers in one process: what threads, files and `io_uring` are to the daemon.
//!
//! A worker is given its turn only when its event channel or its disk has woken it, as in the
//! daemon, so that a notification that is never sent leaves a request unanswered for ever.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use blkback::crew::{Connect, Crew, Report, WorkerId};
use blkback::disk::Disk;
use blkback::{Buffer, Counters, Link, Past, RingPages, Session, Turn};
use ring::Broken;
use sim::{Clock, Domain, MappedPage, Random};
use xen::{Access, Events, Maps, Port};

use crate::{Platter, SeededDisk};

type Served = Session<Domain, SeededDisk<Buffer<MappedPage>>, Domain>;

struct Worker {
    platter: Platter,
    joined: Option<Joined>,
    past: Past,
    measuring: bool,
}

struct Joined {
    session: Served,
    port: Port,
    woken: bool,
    stopping: bool,
}

struct State {
    domain: Domain,
    clock: Clock,
    random: Random,
    platters: BTreeMap<PathBuf, Platter>,
    workers: BTreeMap<WorkerId, Worker>,
    reports: VecDeque<(WorkerId, Report)>,
}

/// All workers of one daemon. Clones are the same crew.
#[derive(Clone)]
pub struct SimCrew(Arc<Mutex<State>>);

impl SimCrew {
    /// A crew in `domain` that finds `platters` by the names of their images.
    pub fn new(domain: Domain, platters: BTreeMap<PathBuf, Platter>, seed: u64) -> Self {
        let clock = domain.clock();
        let (workers, reports) = (BTreeMap::new(), VecDeque::new());
        let random = Random::new(seed);
        let state = State { domain, clock, random, platters, workers, reports };
        Self(Arc::new(Mutex::new(state)))
    }

    /// One more image.
    pub fn add(&self, image: PathBuf, platter: Platter) {
        self.lock().platters.insert(image, platter);
    }

    /// Gives every worker that something has woken its turn; tells whether one had something
    /// to do.
    pub fn turn(&self) -> bool {
        self.lock().turn(1000)
    }

    /// The same, but of 1000 workers with something to do so many get their turn.
    pub fn turn_some(&self, per_mille: u16) -> bool {
        self.lock().turn(per_mille)
    }

    /// Whether a ring is served from this medium.
    pub fn serves(&self, platter: &Platter) -> bool {
        let state = self.lock();
        state.workers.values().any(|worker| worker.joined.is_some() && worker.platter.is(platter))
    }

    /// Draws everything from now on from another seed.
    pub fn reseed(&self, seed: u64) {
        self.lock().random = Random::new(seed);
    }

    /// When the next worker has something to do; `None` if none has by itself.
    pub fn next_due(&self) -> Option<u64> {
        let state = self.lock();
        let due = |worker: &Worker| match &worker.joined {
            _ if worker.measuring => Some(0),
            Some(joined) if joined.woken => Some(0),
            joined => joined.as_ref()?.session.disk().next_due(),
        };
        state.workers.values().filter_map(due).min()
    }

    /// What the sessions that are up have counted, summed by `field`.
    pub fn count(&self, field: impl Fn(&Counters) -> u64) -> u64 {
        let state = self.lock();
        let joined = state.workers.values().filter_map(|worker| worker.joined.as_ref());
        joined.map(|joined| field(joined.session.counters())).sum()
    }

    /// How many images are open.
    pub fn images(&self) -> usize {
        self.lock().workers.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn turn(&mut self, per_mille: u16) -> bool {
        while let Some(port) = self.domain.take_event() {
            let joined = self.workers.values_mut().filter_map(|worker| worker.joined.as_mut());
            joined.filter(|joined| joined.port == port).for_each(|joined| joined.woken = true);
        }
        let mut busy = false;
        for (&id, worker) in &mut self.workers {
            if worker.measuring && self.random.chance(per_mille) {
                busy = true;
                self.reports.push_back((id, worker.measure()));
            }
            let Some(joined) = &mut worker.joined else { continue };
            let due = joined.woken || joined.session.disk().is_due();
            if !(due || joined.is_done()) || !self.random.chance(per_mille) {
                continue;
            }
            busy = true;
            joined.session.disk_mut().reseed(self.random.next());
            let ended = match if due { joined.turn() } else { Ok(()) } {
                Err(broken) => Some(Report::Broken(broken.to_string())),
                Ok(()) => joined.is_done().then_some(Report::Stopped),
            };
            if let Some(report) = ended {
                worker.leave();
                self.reports.push_back((id, report));
            }
        }
        busy
    }
}

impl Joined {
    fn turn(&mut self) -> Result<(), Broken> {
        self.woken = false;
        self.woken = self.session.turn()? == Turn::Again;
        Ok(())
    }

    /// Whether nothing is left to do before it stops, as it was told to.
    fn is_done(&self) -> bool {
        self.stopping && !self.woken && self.session.pending() == 0
    }
}

impl Worker {
    fn measure(&mut self) -> Report {
        self.measuring = false;
        let sectors = self.platter.sectors() as u64;
        if let Some(joined) = &mut self.joined {
            joined.session.grow(sectors);
        }
        Report::Measured(Ok(sectors))
    }

    /// Drops the session, which gives its mappings and its port back.
    fn leave(&mut self) {
        if let Some(joined) = self.joined.take() {
            self.past = joined.session.past();
        }
    }
}

impl Crew for SimCrew {
    fn open(&mut self, worker: WorkerId, _name: &str, image: PathBuf, read_only: bool) {
        let mut state = self.lock();
        let report = match state.platters.get(&image).cloned() {
            None => Report::Unopened(format!("{}: no such file", image.display())),
            // As the lock on the file does it.
            Some(platter) if state.workers.values().any(|it| it.platter.is(&platter)) => {
                Report::Unopened(format!("{}: in use by another disk", image.display()))
            }
            Some(platter) => {
                if read_only {
                    platter.protect();
                }
                platter.opened();
                let clock = state.clock.clone();
                let profile = SeededDisk::<Buffer<MappedPage>>::new(&platter, clock, 0).profile();
                let new = Worker { platter, joined: None, past: Past::default(), measuring: false };
                state.workers.insert(worker, new);
                Report::Opened(profile)
            }
        };
        state.reports.push_back((worker, report));
    }

    fn connect(&mut self, id: WorkerId, connect: Connect) {
        let mut state = self.lock();
        let seed = state.random.next();
        let (domain, clock) = (state.domain.clone(), state.clock.clone());
        let Some(worker) = state.workers.get_mut(&id) else { return };
        // Orders are carried out one after the other.
        let measured = worker.measuring.then(|| worker.measure());
        let disk = SeededDisk::new(&worker.platter, clock, seed);
        let Connect { peer, ring, port, agreed, geometry } = connect;
        let report = match domain.map(peer, &ring, Access::Write) {
            Err(error) => Report::Unconnected(format!("the ring: {error}")),
            Ok(ring) => match domain.bind(peer, port) {
                Err(error) => Report::Unconnected(error.to_string()),
                Ok(port) => {
                    let (ring, past) = (RingPages(ring), worker.past);
                    let link = Link { peer, ring, port, agreed, geometry, past };
                    let session = Session::new(domain.clone(), domain, disk, link);
                    worker.joined = Some(Joined { session, port, woken: true, stopping: false });
                    Report::Connected
                }
            },
        };
        state.reports.extend(measured.into_iter().chain([report]).map(|report| (id, report)));
    }

    fn measure(&mut self, id: WorkerId) {
        if let Some(worker) = self.lock().workers.get_mut(&id) {
            worker.measuring = true;
        }
    }

    fn stop(&mut self, id: WorkerId) {
        let mut state = self.lock();
        if let Some(joined) = state.workers.get_mut(&id).and_then(|w| w.joined.as_mut()) {
            joined.session.stop_taking();
            (joined.stopping, joined.woken) = (true, true);
        }
    }

    fn dismiss(&mut self, id: WorkerId) {
        let mut state = self.lock();
        if let Some(mut worker) = state.workers.remove(&id) {
            worker.leave();
        }
        state.reports.push_back((id, Report::Gone));
    }

    fn report(&mut self) -> Option<(WorkerId, Report)> {
        self.lock().reports.pop_front()
    }
}
