//! A front that says anything: every request gets its one lawful answer or the device closes with
//! a reason, nothing leaves the disk, and an honest neighbour notices nothing.

mod nodes;
mod requests;
mod ring;

use blkfront::Wishes;
use blkif::{Abi, Operation, Request, Segment};
use tests::{Guest, Ledger, Platter, RawFront, Wanted, World};
use xen::{DomainId, GrantRef, XenbusState};

const SECTORS: usize = 1024;
const XVDA: u32 = 51712;
const WISHES: Wishes = Wishes { order: 0, pool_pages: 100 };
const HOSTILE: Wanted<'static> = Wanted::new(5, XVDA, "/hostile.img");
const HONEST: Wanted<'static> = Wanted::new(6, XVDA, "/honest.img");

/// A world with an honest guest at work and a hostile one about to connect.
struct Stage {
    world: World,
    honest: Guest,
    honest_platter: Platter,
    ledger: Ledger,
    platter: Platter,
}

impl Stage {
    fn new(seed: u64) -> Self {
        let mut world = World::new(seed);
        let honest_platter = world.image(HONEST.image, SECTORS);
        let platter = world.image(HOSTILE.image, SECTORS);
        let mut honest = world.guest(6);
        world.plug(&mut honest, &HONEST, WISHES);
        let _ = world.guest(5);
        HOSTILE.attach(&world.dom0).expect("attached");
        let ledger = Ledger::new(SECTORS);
        let mut stage = Self { world, honest, honest_platter, ledger, platter };
        stage.settle();
        stage
    }

    fn connect(&mut self, abi: Abi, order: u32) -> RawFront {
        let domain = self.world.sim.domain(DomainId(5));
        let front = RawFront::connect(&domain, &HOSTILE.front(), DomainId::ZERO, abi, order);
        self.settle();
        assert_eq!(self.state(), "4");
        front
    }

    fn state(&self) -> String {
        HOSTILE.back_node(&self.world.dom0, "state").unwrap_or_default()
    }

    fn settle(&mut self) {
        for _ in 0..20 {
            self.world.turn_back();
            self.honest.turn();
            self.honest.listen(XVDA, &mut self.ledger);
        }
    }

    /// The device is closed, and says why in words.
    fn assert_refused(&self, what: &str) -> String {
        let state = self.state();
        assert!(["5", "6"].contains(&state.as_str()), "{what}: state {state}");
        let reason = HOSTILE.back_node(&self.world.dom0, "error").expect("a reason");
        assert!(!reason.is_empty() && !reason.contains('\n'), "{reason:?}");
        reason
    }

    /// The honest guest does some work and finds nothing wrong.
    fn neighbour_is_well(&mut self) {
        for _ in 0..10 {
            self.ledger.submit(self.honest.disk(XVDA), &mut self.world.random);
        }
        let done = self.ledger.done;
        self.world.drain(&mut self.honest, XVDA, &mut self.ledger);
        assert!(self.ledger.done > done && self.ledger.failed == 0);
        self.ledger.check(0, &self.honest_platter.read(0, SECTORS));
    }

    /// The hostile guest closes, and everything comes back.
    fn end(mut self, front: RawFront) {
        self.neighbour_is_well();
        front.set_state(XenbusState::Closing);
        self.settle();
        front.set_state(XenbusState::Closed);
        HOSTILE.detach(&self.world.dom0).expect("detached");
        self.settle();
        front.disconnect();
        HOSTILE.remove(&self.world.dom0).expect("removed");
        self.world.unplug(&mut self.honest, &HONEST);
        self.world.end();
    }
}

/// The words of a request for one whole page.
fn one_page(operation: Operation, id: u64, sector: u64, reference: GrantRef) -> Vec<u32> {
    let segments = &[Segment::whole(reference)][..];
    Request::transfer(id, operation, sector, segments).words(Abi::X86_64, 0).to_vec()
}
