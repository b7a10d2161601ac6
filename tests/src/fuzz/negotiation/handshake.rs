//! The back's whole control plane in front of a guest and a tool stack that write anything at any
//! time; now and then the back dies between two of its calls.
//!
//! However it goes, a state that the back says is true: before it come the nodes that it promises,
//! and the guest's word that it follows. In the end nothing is held.

use blkback::connect::Leave;
use blkif::{Abi, BackOffer, FRONT_KEYS, Features, Geometry, RING_REFS};
use ring::Index;
use sim::{Domain, Faults};
use xen::{DomainId, Store, Transaction, XenbusState};

use super::super::choices::Choices;
use super::wild_value;
use crate::{RawFront, Wanted, World};

/// Steps of an input, at most.
const STEPS_MAX: usize = 64;
/// Calls that the back has left, at most: more than any of its steps takes.
const CALLS_MAX: usize = 48;
const SECTORS: usize = 64;
const GUEST: DomainId = DomainId(5);
const DISK: Wanted<'static> = Wanted::new(5, 51712, "/a.img");

pub(super) fn check(choices: &mut Choices<'_>) {
    let mut play = Play::new(choices);
    for _ in 0..STEPS_MAX {
        if choices.is_empty() {
            break;
        }
        play.step(choices);
        for _ in 0..choices.below(6) {
            play.turn(choices);
        }
    }
    play.end();
}

/// A guest and a tool stack that do anything; the back's control plane and its workers are ours.
struct Play {
    world: World,
    guest: Domain,
    fronts: Vec<RawFront>,
    /// Whether the guest has said that its ring is there, since the disk was attached.
    offered: bool,
    /// Whether the tool stack has said a state, so that it may not be the back's.
    meddled: bool,
}

impl Play {
    fn new(choices: &mut Choices<'_>) -> Self {
        let mut world = World::new(choices.byte().into());
        world.image(DISK.image, SECTORS);
        if choices.rarely(4) {
            world.sim.set_faults(Faults::MANY);
        }
        let guest = world.guest(GUEST.0).domain;
        let mut play = Self { world, guest, fronts: Vec::new(), offered: false, meddled: false };
        play.attach();
        play
    }

    /// The tool stack attaches the disk, if it is not there.
    fn attach(&mut self) {
        if DISK.attach(&self.world.dom0).is_ok() {
            (self.offered, self.meddled) = (false, false);
        }
    }

    fn step(&mut self, choices: &mut Choices<'_>) {
        let front = DISK.front();
        let dom0 = self.world.dom0.clone();
        // What a side may not do is refused.
        match choices.below(16) {
            0..5 => {
                let keys = [&["state"; 4][..], &FRONT_KEYS, &RING_REFS[..2]].concat();
                let key = choices.of(&keys);
                let value = wild_value(choices, key);
                self.say(key, &value);
            }
            5..8 if self.fronts.len() < 4 => {
                let (abi, order) = (choices.of(&[Abi::X86_64, Abi::X86_32]), choices.of(&[0, 1]));
                let start = Index::new(0);
                let ring = RawFront::lend(&self.guest, &front, DomainId::ZERO, abi, (order, start));
                // The directory may be gone.
                let _ = ring.offer().write(|key, value| ring.write(key, &value.to_string()));
                self.fronts.push(ring);
                // What is there may be looked at too early.
                self.say("state", choices.of(&["3", "3", "3", "4", "2", "1"]));
            }
            8 => drop(self.guest.remove(Transaction::NONE, &front)),
            9 => {
                let key = choices.of(&["state", "online", "frontend", "params", "mode"]);
                let value = choices.of(&["0", "1", "2", "4", "5", "6", "w", "r", ""]);
                self.meddled |= key == "state";
                let _ = dom0.write(Transaction::NONE, &format!("{}/{key}", DISK.back()), value);
            }
            10 => drop(DISK.detach(&dom0)),
            11 => drop(DISK.remove(&dom0)),
            12 => self.attach(),
            13 => self.world.leave_back(choices.of(&[Leave::Ask, Leave::Stay, Leave::Stay])),
            _ => {}
        }
    }

    /// The guest writes one of its nodes.
    fn say(&mut self, key: &str, value: &str) {
        let up = [XenbusState::Initialised, XenbusState::Connected];
        self.offered |= key == "state" && up.contains(&XenbusState::parse(Some(value)));
        let _ = self.guest.write(Transaction::NONE, &format!("{}/{key}", DISK.front()), value);
    }

    /// The back has a turn, or dies in it and comes back.
    fn turn(&mut self, choices: &mut Choices<'_>) {
        if choices.rarely(8) {
            let calls = choices.below(CALLS_MAX) as u64;
            let _ = self.world.doom_back(calls, |world| {
                world.turn_back();
            });
            self.check_promises();
        } else {
            self.world.turn_back();
        }
        if !self.world.has_back() {
            self.world.start_back();
        }
        self.check_promises();
    }

    /// What is true as long as the state of the back is what the back said.
    fn check_promises(&self) {
        let node = |key: &str| {
            let path = format!("{}/{key}", DISK.back());
            self.world.dom0.read(Transaction::NONE, &path).ok().flatten()
        };
        if self.meddled {
            return;
        }
        match XenbusState::parse(node("state").as_deref()) {
            XenbusState::InitWait => assert!(node("max-ring-page-order").is_some(), "no limits"),
            XenbusState::Connected => {
                assert!(self.offered, "connected to a guest that offers nothing");
                let offer = BackOffer::read(node).expect("our own");
                assert!(offer.features.contains(Features::FLUSH), "features that came too late");
                let disk = Geometry::read(node).expect("our own");
                assert_eq!(disk.sectors, SECTORS as u64);
            }
            _ => {}
        }
    }

    fn end(self) {
        let mut world = self.world;
        world.sim.set_faults(Faults::default());
        world.leave_back(Leave::Stay);
        world.sim.kill(GUEST);
        DISK.remove(&world.dom0).expect("removed");
        world.settle_back();
        assert!(world.is_back_idle(), "the back does not come to rest");
        assert_eq!(world.devices(), 0);
        drop(self.fronts);
        world.end();
    }
}
