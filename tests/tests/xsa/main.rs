//! The security history of this boundary as tests: one for each bug of an existing driver or of
//! Xen that could have been ours, named after it. SECURITY.md has the table.

mod back;
mod front;
mod grants;
mod source;
mod store;

use std::collections::BTreeMap;

use blkif::{Abi, Operation, Request, Segment, Status};
use tests::{Platter, RawFront, Wanted, World};
use xen::{DomainId, GrantRef, XenbusState};

const SECTORS: usize = 1024;
const WANTED: Wanted<'static> = Wanted::new(5, 51712, "/d.img");

/// A front without manners at our back.
struct Scene {
    world: World,
    front: RawFront,
    platter: Platter,
}

impl Scene {
    /// A connected front that keeps its grants.
    fn new() -> Self {
        Self::with(Abi::X86_64, true)
    }

    /// A connected front that keeps its grants or does not.
    fn with(abi: Abi, keeps: bool) -> Self {
        let mut world = World::new(1);
        let platter = world.image(WANTED.image, SECTORS);
        let guest = world.guest(5);
        WANTED.attach(&world.dom0).expect("attached");
        let back = DomainId::ZERO;
        let front = RawFront::prepare(&guest.domain, &WANTED.front(), back, abi, 0);
        front.write("feature-persistent", if keeps { "1" } else { "0" }).expect("its own");
        front.set_state(XenbusState::Initialised);
        let mut scene = Self { world, front, platter };
        scene.settle();
        assert_eq!(scene.state().as_deref(), Some("4"));
        scene
    }

    fn state(&self) -> Option<String> {
        WANTED.back_node(&self.world.dom0, "state")
    }

    fn settle(&mut self) {
        for _ in 0..20 {
            self.world.turn_back();
        }
    }

    /// Puts requests and shows them.
    fn put(&mut self, requests: &[Request]) {
        for request in requests {
            assert!(self.front.put(&request.words(self.front.abi(), 0)));
        }
        self.front.publish();
    }

    /// The answers that are there, by id.
    fn answers(&mut self) -> BTreeMap<u64, Status> {
        let mut answers = BTreeMap::new();
        while let Some(response) = self.front.take().expect("an honest back") {
            assert_eq!(answers.insert(response.id, response.status), None, "answered twice");
        }
        answers
    }

    /// Has requests done and gives their statuses in their order.
    fn carry_out(&mut self, requests: &[Request]) -> Vec<Status> {
        self.put(requests);
        self.settle();
        let answers = self.answers();
        assert_eq!(answers.len(), requests.len(), "one answer each");
        requests.iter().map(|request| answers[&request.id]).collect()
    }

    /// How many of the front's pages are mapped.
    fn mapped(&self) -> usize {
        self.world.sim.audit().mappings.iter().filter(|it| it.1 == DomainId(5)).count()
    }

    /// The front closes; everything comes back.
    fn end(mut self) {
        self.front.set_state(XenbusState::Closing);
        self.settle();
        self.front.set_state(XenbusState::Closed);
        WANTED.detach(&self.world.dom0).expect("detached");
        self.settle();
        assert_eq!(self.mapped(), 0);
        self.front.disconnect();
        WANTED.remove(&self.world.dom0).expect("removed");
        self.world.settle_back();
        self.world.end();
    }
}

/// A request for whole pages.
fn whole(operation: Operation, id: u64, sector: u64, grants: &[GrantRef]) -> Request {
    let segments = grants.iter().map(|&it| Segment::whole(it)).collect();
    Request::transfer(id, operation, sector, segments)
}

fn read(id: u64, sector: u64, grants: &[GrantRef]) -> Request {
    whole(Operation::Read, id, sector, grants)
}

fn write(id: u64, sector: u64, grants: &[GrantRef]) -> Request {
    whole(Operation::Write, id, sector, grants)
}
