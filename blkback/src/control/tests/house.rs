//! Whom the control plane has to do with in its tests: a simulated xenstore, a guest that writes what
//! it is told to, and workers that do nothing and note their orders.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::rc::Rc;

use sim::{Domain, Sim};

use super::super::*;
use crate::attach;
use crate::disk::Profile;
use crate::spec::DiskSpec;

pub(super) const GUEST: DomainId = DomainId(3);
pub(super) const KEEP: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Open(PathBuf, bool),
    Connect(Box<Connect>),
    Measure,
    Stop,
    Dismiss,
}

pub(super) type Happening = Option<Box<dyn FnOnce()>>;

/// Workers that note their orders.
#[derive(Clone, Default)]
pub(super) struct Idlers {
    pub(super) orders: Rc<RefCell<Vec<(WorkerId, Order)>>>,
    pub(super) reports: Rc<RefCell<VecDeque<(WorkerId, Report)>>>,
    /// What happens in the middle of the next work, behind the first look at events.
    pub(super) meanwhile: Rc<RefCell<Happening>>,
}

impl Idlers {
    fn note(&self, worker: WorkerId, order: Order) {
        self.orders.borrow_mut().push((worker, order));
    }

    /// The orders since the last look.
    pub(super) fn orders(&self) -> Vec<Order> {
        self.orders.borrow_mut().drain(..).map(|(_, order)| order).collect()
    }

    pub(super) fn say(&self, worker: u64, report: Report) {
        self.reports.borrow_mut().push_back((WorkerId(worker), report));
    }
}

impl Crew for Idlers {
    fn open(&mut self, worker: WorkerId, _: &str, image: PathBuf, read_only: bool) {
        self.note(worker, Order::Open(image, read_only));
    }

    fn connect(&mut self, worker: WorkerId, connect: Connect) {
        self.note(worker, Order::Connect(Box::new(connect)));
    }

    fn measure(&mut self, worker: WorkerId) {
        self.note(worker, Order::Measure);
    }

    fn stop(&mut self, worker: WorkerId) {
        self.note(worker, Order::Stop);
    }

    fn dismiss(&mut self, worker: WorkerId) {
        self.note(worker, Order::Dismiss);
    }

    fn report(&mut self) -> Option<(WorkerId, Report)> {
        if let Some(happen) = self.meanwhile.take() {
            happen();
        }
        self.reports.borrow_mut().pop_front()
    }
}

pub(super) struct House {
    pub(super) sim: Sim,
    pub(super) dom0: Domain,
    pub(super) guest: Domain,
    pub(super) crew: Idlers,
    pub(super) control: Control<Domain, Idlers>,
}

pub(super) const PROFILE: Profile = Profile {
    sectors: 4096,
    physical_sector_size: 4096,
    read_only: false,
    discard_granularity: Some(4096),
};

impl House {
    pub(super) fn new() -> Self {
        let sim = Sim::new(1);
        let (dom0, guest) = (sim.domain(DomainId::ZERO), sim.domain(GUEST));
        let crew = Idlers::default();
        let control = Control::new(dom0.clone(), crew.clone(), DomainId::ZERO, KEEP).unwrap();
        Self { sim, dom0, guest, crew, control }
    }

    pub(super) fn attach(&mut self, vdev: &str) -> DeviceId {
        let spec = DiskSpec::parse(&format!("vdev={vdev},target=/images/{vdev}.img")).unwrap();
        let id = attach::attach(&self.dom0, DomainId::ZERO, GUEST, &spec).unwrap();
        self.work();
        id
    }

    pub(super) fn work(&mut self) {
        for _ in 0..20 {
            if !self.control.work().unwrap() {
                return;
            }
        }
        panic!("the control plane finds no rest");
    }

    pub(super) fn back(&self, id: DeviceId, key: &str) -> Option<String> {
        let path = format!("{}/{key}", id.back(DomainId::ZERO));
        self.guest.read(Transaction::NONE, &path).unwrap()
    }

    pub(super) fn say(&mut self, worker: u64, report: Report) {
        self.crew.say(worker, report);
        self.work();
    }

    /// The front writes nodes, its state last.
    pub(super) fn front(&mut self, id: DeviceId, nodes: &[(&str, &str)]) {
        for (key, value) in nodes {
            let path = format!("{}/{key}", id.front());
            self.guest.write(Transaction::NONE, &path, value).unwrap();
        }
        self.work();
    }

    /// Brings a device of worker `worker` to state 4.
    pub(super) fn bring_up(&mut self, id: DeviceId, worker: u64) {
        self.say(worker, Report::Opened(PROFILE));
        self.front(id, RING);
        self.say(worker, Report::Connected);
        self.crew.orders();
    }
}

pub(super) const RING: &[(&str, &str)] = &[
    ("protocol", "x86_64-abi"),
    ("ring-ref", "8"),
    ("event-channel", "9"),
    ("feature-persistent", "1"),
    ("state", "3"),
];

pub(super) fn state(house: &House, id: DeviceId) -> Option<String> {
    house.back(id, "state")
}
