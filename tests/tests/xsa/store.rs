//! Xenstore that is flooded, or fails.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use blkback::Control;
use blkif::Abi;
use sim::{Faults, Sim};
use tests::{Hook, Hooked, KEEP, Platter, RawFront, SimCrew, Wanted, World};
use xen::{DomainId, Store, StoreError, Transaction, XenbusState};

use crate::{SECTORS, Scene, WANTED};

#[test]
fn xsa_115_what_counts_is_what_is_there_when_it_is_read() {
    // The watch fired for the first of these; acted on is the last.
    let mut scene = Scene::new();
    for state in ["5", "6", "1", "3", "4"] {
        scene.front.write("state", state).expect("its own");
    }
    scene.settle();
    assert_eq!((scene.state().as_deref(), scene.mapped()), (Some("4"), 1));
    // And one that fired for a device that is gone when somebody looks.
    scene.front.write("state", "4").expect("its own");
    scene.front.set_state(XenbusState::Closed);
    scene.world.dom0.remove(Transaction::NONE, &WANTED.front()).expect("domain 0 may");
    scene.settle();
    assert_eq!((scene.state(), scene.mapped(), scene.world.devices()), (None, 0, 0));
    scene.front.disconnect();
    WANTED.remove(&scene.world.dom0).expect("removed");
    scene.world.settle_back();
    scene.world.end();
}

#[test]
fn xsa_322_no_node_and_no_watch_is_left_by_a_disk_that_came_and_went() {
    let mut world = World::new(322);
    world.image("/d.img", SECTORS);
    let guest = world.guest(5);
    let below = |world: &World, path: &str| {
        world.dom0.list(Transaction::NONE, path).expect("domain 0 may").len()
    };
    let figures = |world: &World| {
        let watches = world.sim.audit().watches.len();
        [watches, below(world, "/local/domain/0/backend/pvblk"), below(world, &guest_devices())]
    };
    let before = figures(&world);
    for vdev in (0..50).map(|nth| 51712 + 16 * (nth % 7)) {
        let wanted = Wanted::new(5, vdev, "/d.img");
        wanted.attach(&world.dom0).expect("attached");
        world.settle_back();
        let back = DomainId::ZERO;
        let front = RawFront::connect(&guest.domain, &wanted.front(), back, Abi::X86_64, 1);
        world.settle_back();
        assert_eq!(wanted.back_node(&world.dom0, "state").as_deref(), Some("4"));
        front.set_state(XenbusState::Closed);
        wanted.detach(&world.dom0).expect("detached");
        world.settle_back();
        front.disconnect();
        wanted.remove(&world.dom0).expect("removed");
        world.settle_back();
        assert_eq!(figures(&world), before);
    }
    world.end();
}

fn guest_devices() -> String {
    "/local/domain/5/device/vbd".to_owned()
}

#[test]
fn xsa_349_a_node_that_is_written_without_end_is_looked_at_once() {
    let mut scene = Scene::new();
    for _ in 0..5000 {
        scene.front.set_state(XenbusState::Connected);
    }
    let before = scene.world.sim.calls(DomainId::ZERO);
    scene.settle();
    let calls = scene.world.sim.calls(DomainId::ZERO) - before;
    // One look at the device, and those of twenty idle rounds.
    assert!(calls < 20 * 5 + 30, "{calls} calls");
    // And when it is told of a hundred times, it takes in each, and still looks once.
    scene.world.sim.set_faults(Faults { repeated_watches: 990, ..Faults::default() });
    let before = scene.world.sim.calls(DomainId::ZERO);
    for _ in 0..50 {
        scene.front.set_state(XenbusState::Connected);
        scene.world.turn_back();
    }
    let calls = scene.world.sim.calls(DomainId::ZERO) - before;
    assert!(calls < 50 * 200, "{calls} calls");
    scene.world.sim.set_faults(Faults::default());
    scene.end();
}

/// One answer of xenstore is an error.
#[derive(Clone)]
struct Flaky {
    /// How many operations go well before the one that does not.
    left: Rc<Cell<u64>>,
    error: StoreError,
}

impl Hook for Flaky {
    fn pass(&self) -> Result<(), StoreError> {
        let left = self.left.get();
        self.left.set(left.wrapping_sub(1));
        if left == 0 { Err(self.error.clone()) } else { Ok(()) }
    }
}

/// Has a disk come up while one answer of xenstore, after `left` others, is an error; `waiting`: it
/// was attached before the daemon was there. Tells whether the error came at all.
fn comes_up(left: u64, error: StoreError, waiting: bool) -> bool {
    let sim = Sim::new(1);
    let [dom0, guest] = [0, 5].map(|id| sim.domain(DomainId(id)));
    let countdown = Rc::new(Cell::new(u64::MAX));
    let hook = Flaky { left: countdown.clone(), error: error.clone() };
    let store = Hooked { domain: dom0.clone(), hook };
    let platters = BTreeMap::from([("/d.img".into(), Platter::new(SECTORS))]);
    let crew = SimCrew::new(dom0.clone(), platters, 1);
    if waiting {
        WANTED.attach(&dom0).expect("attached");
    }
    let mut control = Control::new(store, crew.clone(), DomainId::ZERO, KEEP).expect("xenstore");
    countdown.set(left);
    if !waiting {
        WANTED.attach(&dom0).expect("attached");
    }
    let mut settle = || {
        for _ in 0..30 {
            control.work().expect("only a lost connection ends a daemon");
            crew.turn();
        }
    };
    settle();
    let front = RawFront::connect(&guest, &WANTED.front(), DomainId::ZERO, Abi::X86_64, 0);
    settle();
    let state = WANTED.back_node(&dom0, "state");
    assert_eq!(state.as_deref(), Some("4"), "{error} after {left} operations");
    drop((control, crew));
    front.disconnect();
    countdown.get() > left
}

#[test]
fn xsa_481_483_484_a_disk_comes_up_whichever_answer_of_xenstore_is_an_error() {
    for error in [StoreError::Other("EIO".into()), StoreError::Quota] {
        for waiting in [true, false] {
            let comes_up = |&left: &u64| comes_up(left, error.clone(), waiting);
            let failed = (0..1000).take_while(comes_up).count();
            assert!((20..1000).contains(&failed), "{failed} operations");
        }
    }
}
