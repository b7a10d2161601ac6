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
use sim::{Domain, MappedPage};
use xen::{Access, Events, Maps, Port};

use crate::{Platter, SeededDisk};

type Served = Session<Domain, SeededDisk<Buffer<MappedPage>>, Domain>;

struct Worker {
    platter: Platter,
    joined: Option<Joined>,
    past: Past,
}

struct Joined {
    session: Served,
    port: Port,
    woken: bool,
    stopping: bool,
}

struct State {
    domain: Domain,
    seed: u64,
    platters: BTreeMap<PathBuf, Platter>,
    workers: BTreeMap<WorkerId, Worker>,
    reports: VecDeque<(WorkerId, Report)>,
    connections: u64,
}

/// All workers of one daemon. Clones are the same crew.
#[derive(Clone)]
pub struct SimCrew(Arc<Mutex<State>>);

impl SimCrew {
    /// A crew in `domain` that finds `platters` by the names of their images.
    pub fn new(domain: Domain, platters: BTreeMap<PathBuf, Platter>, seed: u64) -> Self {
        let (workers, reports) = (BTreeMap::new(), VecDeque::new());
        let state = State { domain, seed, platters, workers, reports, connections: 0 };
        Self(Arc::new(Mutex::new(state)))
    }

    /// One more image.
    pub fn add(&self, image: PathBuf, platter: Platter) {
        self.lock().platters.insert(image, platter);
    }

    /// Gives every worker that something has woken its turn; tells whether one had something
    /// to do.
    pub fn turn(&self) -> bool {
        self.lock().turn()
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
    fn turn(&mut self) -> bool {
        while let Some(port) = self.domain.take_event() {
            let joined = self.workers.values_mut().filter_map(|worker| worker.joined.as_mut());
            joined.filter(|joined| joined.port == port).for_each(|joined| joined.woken = true);
        }
        let ids: Vec<WorkerId> = self.workers.keys().copied().collect();
        let mut busy = false;
        for id in ids {
            busy |= self.turn_one(id);
        }
        busy
    }

    fn turn_one(&mut self, id: WorkerId) -> bool {
        let Some(worker) = self.workers.get_mut(&id) else { return false };
        let Some(joined) = &mut worker.joined else { return false };
        let due = joined.woken || joined.session.disk().is_due();
        let ended = match if due { joined.turn() } else { Ok(()) } {
            Err(broken) => Some(Report::Broken(broken.to_string())),
            Ok(()) if joined.stopping && joined.session.pending() == 0 => Some(Report::Stopped),
            Ok(()) => None,
        };
        if let Some(report) = ended {
            worker.leave();
            self.reports.push_back((id, report));
            return true;
        }
        due
    }
}

impl Joined {
    fn turn(&mut self) -> Result<(), Broken> {
        self.woken = false;
        self.woken = self.session.turn()? == Turn::Again;
        Ok(())
    }
}

impl Worker {
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
            Some(platter) => {
                if read_only {
                    platter.protect();
                }
                let profile = SeededDisk::<Buffer<MappedPage>>::new(&platter, 0).profile();
                let new = Worker { platter, joined: None, past: Past::default() };
                state.workers.insert(worker, new);
                Report::Opened(profile)
            }
        };
        state.reports.push_back((worker, report));
    }

    fn connect(&mut self, id: WorkerId, connect: Connect) {
        let mut state = self.lock();
        state.connections += 1;
        let seed = state.seed ^ state.connections;
        let domain = state.domain.clone();
        let Some(worker) = state.workers.get_mut(&id) else { return };
        let disk = SeededDisk::new(&worker.platter, seed);
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
        state.reports.push_back((id, report));
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
