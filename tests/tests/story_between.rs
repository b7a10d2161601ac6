//! Xenstore between two operations of one program: what another does there, or an error.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use blkback::Control;
use blkback::attach::{Progress, progress};
use sim::Sim;
use tests::{Hook, Hooked, KEEP, Platter, SimCrew, Wanted, World};
use xen::{DomainId, Store, StoreError, Transaction};

const DISK: Wanted<'static> = Wanted::new(5, 51712, "/a.img");

/// The daemon has time for all that it has to do before one operation of another program.
struct Meanwhile<'a> {
    /// How many operations come before.
    left: Cell<u32>,
    world: &'a RefCell<World>,
}

impl Hook for Meanwhile<'_> {
    fn pass(&self) -> Result<(), StoreError> {
        let left = self.left.get();
        self.left.set(left.wrapping_sub(1));
        if left == 0 {
            self.world.borrow_mut().settle_back();
        }
        Ok(())
    }
}

#[test]
fn who_asks_while_a_disk_is_refused_hears_the_reason_or_nothing_yet() {
    for left in 0..6 {
        let world = World::new(u64::from(left));
        let dom0 = world.dom0.clone();
        let _guest = world.guest(5);
        // There is no such image.
        DISK.attach(&dom0).expect("attached");
        let world = RefCell::new(world);
        let store = Hooked {
            domain: dom0.clone(),
            hook: Meanwhile { left: Cell::new(left), world: &world },
        };
        for _ in 0..3 {
            let seen = progress(&store, DomainId::ZERO, DISK.id()).expect("xenstore");
            let reason = DISK.back_node(&dom0, "error").unwrap_or_default();
            assert!(
                seen == Progress::Underway || seen == Progress::Refused(reason),
                "{left}: {seen:?}"
            );
        }
        world.borrow_mut().settle_back();
        let end = progress(&store, DomainId::ZERO, DISK.id()).expect("xenstore");
        assert!(matches!(end, Progress::Refused(_)), "{left}: {end:?}");
    }
}

/// One operation fails.
#[derive(Clone)]
struct Failing {
    left: Rc<Cell<u64>>,
    error: StoreError,
}

impl Hook for Failing {
    fn pass(&self) -> Result<(), StoreError> {
        let left = self.left.get();
        self.left.set(left.wrapping_sub(1));
        if left == 0 { Err(self.error.clone()) } else { Ok(()) }
    }
}

/// A disk follows its guest to the next life while one of the daemon's operations, after `left`
/// others, fails; tells whether it came to that.
fn follows(left: u64, error: StoreError) -> bool {
    let sim = Sim::new(1);
    let dom0 = sim.domain(DomainId::ZERO);
    let life = |id: u16| sim.guest(DomainId(id), &[("vm", "/vm/web"), ("name", "web")]);
    let first = life(5);
    let countdown = Rc::new(Cell::new(u64::MAX));
    let hook = Failing { left: countdown.clone(), error: error.clone() };
    let crew = SimCrew::new(dom0.clone(), BTreeMap::from([("/a.img".into(), Platter::new(64))]), 1);
    let store = Hooked { domain: dom0.clone(), hook };
    let mut control = Control::new(store, crew.clone(), DomainId::ZERO, KEEP).expect("xenstore");
    let mut settle = || {
        for _ in 0..30 {
            control.work().expect("only a lost connection ends a daemon");
            crew.turn();
        }
    };
    DISK.attach(&dom0).expect("attached");
    settle();
    countdown.set(left);
    sim.kill(first.id());
    dom0.remove(Transaction::NONE, "/local/domain/5").expect("domain 0 may");
    settle();
    let second = life(6);
    settle();
    let next = Wanted { guest: second.id(), ..DISK };
    let state = next.back_node(&dom0, "state");
    assert_eq!(state.as_deref(), Some("2"), "{error} after {left} operations");
    assert_eq!(DISK.back_node(&dom0, "state"), None, "{error} after {left} operations");
    countdown.get() > left
}

#[test]
fn a_disk_follows_its_guest_whichever_answer_of_xenstore_is_an_error() {
    for error in [StoreError::Other("EIO".into()), StoreError::Quota, StoreError::Denied] {
        let failed = (0..1000).take_while(|&left| follows(left, error.clone())).count();
        assert!((30..1000).contains(&failed), "{failed} operations");
    }
}
