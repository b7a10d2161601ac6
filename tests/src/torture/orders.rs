//! Every order of six xenbus states that a peer can say, with a silly value among them: nothing
//! hangs or leaks, and an honest peer that comes afterwards is served.

use blkfront::Wishes;
use blkif::{Abi, Status};
use xen::{DomainId, Store, Transaction};

use crate::torture::silly::{BACK_KEYS, FRONT_KEYS, VALUES};
use crate::{Guest, Liar, Platter, RawBack, RawFront, Wanted, World};

/// How many states a peer says.
const LENGTH: u32 = 6;
/// The states; the last stands for everything that is none.
const STATES: [&str; 7] = ["1", "2", "3", "4", "5", "6", "?"];
/// What stands for the last of them.
const NONE: [&str; 6] = ["", "0", "7", "8", "rubbish", "99999999999999999999"];
/// How many orders there are.
pub const ORDERS: u64 = STATES.len().pow(LENGTH) as u64;
/// Rounds in which everybody must come to rest after one write.
const ROUNDS_MAX: usize = 64;
const XVDA: u32 = 51712;
const SECTORS: usize = 64;

/// Who says the states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaker {
    /// A front, to our back.
    Front,
    /// A back, to our front.
    Back,
}

/// One order, and when which node gets which value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The states in their order.
    pub states: Vec<&'static str>,
    /// Before which state a node is written, which, and what.
    pub silly: Option<(usize, &'static str, Option<&'static str>)>,
}

impl Order {
    /// The order of a number below [`ORDERS`]; `turn` chooses what is silly about it, and goes
    /// through every value of every node at every place.
    pub fn new(speaker: Speaker, number: u64, turn: u64) -> Self {
        let keys: &[&str] = match speaker {
            Speaker::Front => &FRONT_KEYS,
            Speaker::Back => &BACK_KEYS,
        };
        let digit = |at: u32| usize::try_from(number / 7_u64.pow(at) % 7).unwrap_or(0);
        let none = NONE[usize::try_from(number % NONE.len() as u64).unwrap_or(0)];
        let state = |at| if digit(at) == 6 { none } else { STATES[digit(at)] };
        let mut rest = usize::try_from(turn).unwrap_or(0);
        let mut choose = |of: usize| {
            let chosen = rest % of;
            rest /= of;
            chosen
        };
        // One in so many is without.
        let (key, value, at) = (choose(keys.len() + 1), choose(VALUES.len()), choose(6));
        let silly = keys.get(key).map(|&key| (at, key, VALUES[value]));
        Self { states: (0..LENGTH).map(state).collect(), silly }
    }

    /// Tells `say` everything in its order.
    fn tell(&self, mut say: impl FnMut(&str, Option<&str>)) {
        for (at, state) in self.states.iter().enumerate() {
            if let Some((place, key, value)) = self.silly
                && place == at
            {
                say(key, value);
            }
            say("state", Some(state));
        }
    }
}

/// A machine for one order after the other.
pub struct Stage {
    world: World,
    platter: Platter,
}

impl Default for Stage {
    fn default() -> Self {
        Self::new()
    }
}

const WANTED: Wanted<'static> = Wanted::new(5, XVDA, "/hostile.img");
const WISHES: Wishes = Wishes { order: 0, pool_pages: 2 };

impl Stage {
    /// A machine with one guest and one disk.
    pub fn new() -> Self {
        let mut world = World::new(1);
        let platter = world.image(WANTED.image, SECTORS);
        let _ = [5, 7].map(|id| world.sim.domain(DomainId(id)));
        Self { world, platter }
    }

    /// Plays one order.
    ///
    /// # Panics
    /// If anything hangs, leaks, or serves nobody afterwards.
    pub fn play(&mut self, speaker: Speaker, order: &Order) {
        match speaker {
            Speaker::Front => self.front(order),
            Speaker::Back => self.back(order),
        }
    }

    /// Gives everybody turns until there is nothing to do.
    fn settle(&mut self, mut guest: Option<&mut Guest>, order: &Order) {
        for _ in 0..ROUNDS_MAX {
            let mut busy = self.world.turn_back();
            if let Some(guest) = &mut guest {
                busy |= guest.turn();
            }
            while self.world.sim.domain(DomainId(7)).take_event().is_some() {}
            while self.world.sim.domain(DomainId(5)).take_event().is_some() {}
            if !busy && self.world.sim.is_quiet() {
                return;
            }
        }
        panic!("no rest after {ROUNDS_MAX} rounds in {order:?}");
    }

    /// A front says the states to our back.
    fn front(&mut self, order: &Order) {
        let domain = self.world.sim.domain(DomainId(5));
        WANTED.attach(&self.world.dom0).expect("attached");
        let mut front = RawFront::prepare(&domain, &WANTED.front(), DomainId::ZERO, Abi::X86_64, 0);
        self.settle(None, order);
        let write = |key: &str, value: Option<&str>| {
            let path = format!("{}/{key}", Liar::FRONT);
            // Of what xenstore refuses the back hears nothing.
            let _ = match value {
                Some(value) => domain.write(Transaction::NONE, &path, value),
                None => domain.remove(Transaction::NONE, &path),
            };
        };
        order.tell(|key, value| {
            write(key, value);
            self.settle(None, order);
            let theirs = self.mappings_of_the_guest();
            assert!(theirs <= 1, "{theirs} pages mapped in {order:?}");
        });
        // What comes afterwards: it closes, comes back with an honest ring, and is served.
        if let Some((_, key, _)) = order.silly {
            write(key, None);
        }
        for state in ["6", "1"] {
            write("state", Some(state));
            self.settle(None, order);
        }
        assert_eq!(self.mappings_of_the_guest(), 0, "mapped after the close in {order:?}");
        front.reconnect();
        self.settle(None, order);
        let state = WANTED.back_node(&self.world.dom0, "state");
        assert_eq!(state.as_deref(), Some("4"), "an honest front is not served after {order:?}");
        self.one_flush(&mut front, order);
        write("state", Some("6"));
        WANTED.detach(&self.world.dom0).expect("detached");
        self.settle(None, order);
        front.disconnect();
        WANTED.remove(&self.world.dom0).expect("removed");
        self.settle(None, order);
        self.assert_clean(order);
    }

    fn mappings_of_the_guest(&self) -> usize {
        self.world.sim.audit().mappings.iter().filter(|it| it.1 == DomainId(5)).count()
    }

    fn one_flush(&mut self, front: &mut RawFront, order: &Order) {
        let flushes = self.platter.flushes();
        assert!(front.put(&[3, 0, 7, 0, 0, 0]));
        front.publish();
        self.settle(None, order);
        let answer = front.take().expect("an honest back").expect("an answer");
        assert_eq!((answer.id, answer.status), (7, Status::Okay), "{order:?}");
        assert_eq!(self.platter.flushes(), flushes + 1);
    }

    /// A back says the states to our front.
    fn back(&mut self, order: &Order) {
        let liar = Liar::new(&self.world.sim, &self.world.dom0);
        liar.say(&[("max-ring-page-order", "4"), ("sectors", "64")]);
        liar.say(&[("feature-persistent", "1"), ("feature-flush-cache", "1")]);
        let mut guest = self.world.guest(5);
        guest.open(XVDA, WISHES);
        self.settle(Some(&mut guest), order);
        order.tell(|key, value| {
            liar.try_say(key, value);
            self.settle(Some(&mut guest), order);
        });
        // What comes afterwards: it has nothing mapped, closes, and everything is given back.
        liar.say(&[("state", "6")]);
        self.settle(Some(&mut guest), order);
        guest.look(XVDA);
        assert!(!guest.is_connected(XVDA), "connected to nobody after {order:?}");
        let audit = self.world.sim.audit();
        assert!(audit.grants.is_empty() && audit.pages.is_empty(), "after {order:?}:\n{audit}");
        self.come_back(&mut guest, &liar, order);
        guest.forget(XVDA);
        for folder in [Liar::FRONT, Liar::BACK, "/local/domain/5/error/device"] {
            self.world.dom0.remove(Transaction::NONE, folder).expect("domain 0 may");
        }
        self.settle(Some(&mut guest), order);
        self.assert_clean(order);
    }

    /// An honest back is joined by a new device, whatever the old one has been through.
    fn come_back(&mut self, guest: &mut Guest, liar: &Liar, order: &Order) {
        guest.forget(XVDA);
        if let Some((_, key, _)) = order.silly {
            liar.try_say(key, None);
        }
        liar.say(&[("state", "1")]);
        guest.open(XVDA, WISHES);
        liar.say(&[("sectors", "64"), ("state", "2")]);
        self.settle(Some(guest), order);
        let back = RawBack::connect(&liar.domain, DomainId(5), Liar::FRONT);
        liar.say(&[("state", "4")]);
        self.settle(Some(guest), order);
        assert!(guest.is_connected(XVDA), "an honest back is not joined after {order:?}");
        liar.say(&[("state", "5")]);
        self.settle(Some(guest), order);
        back.disconnect();
        liar.say(&[("state", "6")]);
        self.settle(Some(guest), order);
        assert!(guest.device(XVDA).is_closed(), "{order:?}");
    }

    /// Nobody holds anything but the back its two watches.
    fn assert_clean(&self, order: &Order) {
        let mut audit = self.world.sim.audit();
        audit.watches.retain(|(id, _, token)| {
            *id != DomainId::ZERO || !["back", "domains"].contains(&token.as_str())
        });
        assert!(audit.is_clean(), "left behind by {order:?}:\n{audit}");
        assert_eq!(self.world.devices(), 0, "{order:?}");
    }
}
