//! A guest and its disks, which outlive it, as a tale has them: what the guest does, and what the
//! tool stack does for it.

use blkfront::Disk;
use blkif::Operation;
use sim::{Domain, Doom, Random, Sim};
use xen::{DomainId, Store, Transaction, XenbusState};

use crate::plug::{Errand, Plug};
use crate::script::{DISKS_MAX, GUESTS_MAX, Role};
use crate::{Guest, Ledger, World, survives};

/// The number of the first disk; the next one's is 16 more.
const XVDA: u32 = 51712;
/// What guests that have a UUID are called.
const NAMES: [&str; GUESTS_MAX] = ["zero", "one", "two"];
/// Each disk has two images.
const IMAGES: [[[&str; 2]; DISKS_MAX]; GUESTS_MAX] = [
    [["/0a.img", "/0a2.img"], ["/0b.img", "/0b2.img"]],
    [["/1a.img", "/1a2.img"], ["/1b.img", "/1b2.img"]],
    [["/2a.img", "/2a2.img"], ["/2b.img", "/2b2.img"]],
];

/// A guest and its disks.
pub(crate) struct House {
    role: Role,
    name: Option<&'static str>,
    /// A domain of a guest with a UUID that is gone, whose directory is there still.
    grave: Option<DomainId>,
    /// A disk of the guest was taken away by force.
    forced: bool,
    pub(crate) guest: Option<Guest>,
    pub(crate) plugs: Vec<Plug>,
}

impl House {
    /// The `at`th house of a world. Nobody is in it, and no disk is attached.
    pub(crate) fn new(world: &mut World, at: usize, role: &Role) -> Self {
        let plugs = role.disks.iter().enumerate().map(|(disk, &wishes)| {
            let vdev = XVDA + 16 * u32::try_from(disk).expect("few");
            Plug::new(world, vdev, IMAGES[at][disk], wishes)
        });
        let name = role.named.then_some(NAMES[at]);
        let (role, plugs) = (role.clone(), plugs.collect());
        Self { role, name, grave: None, forced: false, guest: None, plugs }
    }

    /// Another guest moves in, if nothing of the one before is left; or one with a UUID comes back,
    /// if its last domain is no more.
    pub(crate) fn boot(&mut self, world: &World, id: u16) -> bool {
        let left = match self.name {
            Some(_) => self.grave.is_some(),
            None => self.plugs.iter().any(|plug| plug.attached),
        };
        if self.guest.is_some() || left {
            return false;
        }
        let mut guest = match self.name {
            Some(name) => world.life_of(name, id),
            None => world.guest(id),
        };
        (guest.persistent, guest.elevator) = (self.role.persistent, self.role.elevator);
        self.guest = Some(guest);
        self.plugs.iter_mut().for_each(|plug| plug.move_to(DomainId(id)));
        true
    }

    /// The guest takes in events and watches, opens disks that are new and forgets some that are
    /// closed: all, if it is `thorough`. Tells whether anything came of it.
    ///
    /// # Panics
    /// If a device closed over requests in flight that it had no reason to lose, or gave pages up.
    pub(crate) fn turn(&mut self, random: &mut Random, thorough: bool) -> bool {
        let Some(guest) = &mut self.guest else { return false };
        let mut busy = guest.turn();
        for plug in &mut self.plugs {
            let vdev = plug.wanted.vdev;
            plug.mind(guest);
            if guest.is_closed(vdev) {
                let kept = guest.device(vdev).pages_kept();
                assert!(kept == 0 || plug.may_keep, "{kept} pages given up");
                if thorough || random.below(4) == 0 {
                    guest.forget(vdev);
                    plug.may_keep = false;
                    busy = true;
                }
            } else if !guest.has(vdev) && plug.is_there(&guest.domain) {
                busy |= guest.try_open(vdev, plug.wishes).is_ok();
            }
        }
        busy
    }

    /// Whether every disk is connected, as large as its image, and waits for nothing.
    pub(crate) fn is_fine(&mut self, dom0: &Domain) -> bool {
        let Some(guest) = &mut self.guest else { return false };
        self.plugs.iter().all(|plug| {
            let up = guest.is_connected(plug.wanted.vdev);
            up && plug.ledger.in_flight() == 0 && plug.is_whole(guest, dom0)
        })
    }

    /// Which of the disks are connected, as the guest sees it.
    pub(crate) fn connected(&self) -> [bool; DISKS_MAX] {
        let mut up = [false; DISKS_MAX];
        if let Some(guest) = &self.guest {
            for (up, plug) in up.iter_mut().zip(&self.plugs) {
                *up = guest.is_connected(plug.wanted.vdev);
            }
        }
        up
    }

    /// The guest takes completions from a disk; tells whether it looked.
    pub(crate) fn listen(&mut self, disk: usize) -> bool {
        let plug = &mut self.plugs[disk];
        let Some(guest) = &mut self.guest else { return false };
        let looked = guest.listen(plug.wanted.vdev, &mut plug.ledger);
        plug.mind(guest);
        looked
    }

    /// The guest submits operations to a disk, if it is connected.
    pub(crate) fn work(&mut self, disk: usize, count: usize, random: &mut Random) {
        self.with_disk(disk, |disk, ledger| {
            for _ in 0..count {
                ledger.submit(disk, random);
            }
        });
    }

    /// The guest submits a flush to a disk, if it is connected.
    pub(crate) fn flush(&mut self, disk: usize) {
        self.with_disk(disk, |disk, ledger| {
            ledger.request(disk, Operation::Flush, 0, 0);
        });
    }

    /// The guest does something with a disk, if it is connected, and kicks it.
    fn with_disk(
        &mut self,
        disk: usize,
        doing: impl FnOnce(&mut Disk<Domain, Domain>, &mut Ledger),
    ) {
        let plug = &mut self.plugs[disk];
        let Some(guest) = self.guest.as_mut().filter(|it| it.is_connected(plug.wanted.vdev)) else {
            return;
        };
        plug.ledger.set_hopeless(plug.platter.has_failed_flush());
        let disk = guest.disk(plug.wanted.vdev);
        doing(disk, &mut plug.ledger);
        disk.kick();
    }

    /// The guest closes a disk of its own accord; tells whether there was one to close.
    pub(crate) fn close(&mut self, disk: usize) -> bool {
        let plug = &mut self.plugs[disk];
        let vdev = plug.wanted.vdev;
        let Some(guest) = self.guest.as_mut().filter(|guest| guest.has(vdev)) else { return false };
        plug.may_fail = true;
        let store = guest.domain.clone();
        // What could not be written is for the next turn.
        let _ = guest.device(vdev).close(&store);
        guest.look(vdev);
        true
    }

    /// The guest does something and dies at one of its calls, after so many more, if it makes that
    /// many; tells how many it had left, or `None` if it died. Nobody at home dies of nothing.
    pub(crate) fn doom(
        &mut self,
        sim: &Sim,
        calls: u64,
        doing: impl FnOnce(&mut Self),
    ) -> Option<u64> {
        let Some(id) = self.guest.as_ref().map(|guest| guest.domain.id()) else {
            return Some(calls);
        };
        sim.doom(id, calls, Doom::Domain);
        let survived = survives(|| doing(self));
        let left = sim.spare();
        if survived {
            return left;
        }
        self.is_gone();
        None
    }

    /// The guest dies in its turn after so many calls, or at its end; tells whether there was one.
    pub(crate) fn die(&mut self, sim: &Sim, calls: u64, random: &mut Random) -> bool {
        let Some(id) = self.guest.as_ref().map(|guest| guest.domain.id()) else { return false };
        let left = self.doom(sim, calls, |house| {
            for disk in 0..house.plugs.len() {
                house.work(disk, 1 + random.below(8), random);
                house.turn(random, false);
                house.listen(disk);
            }
        });
        if left.is_some() {
            sim.kill(id);
            self.is_gone();
        }
        true
    }

    /// The guest is gone, and what it had asked for may be done or not.
    pub(crate) fn is_gone(&mut self) {
        let gone = self.guest.take().map(|guest| guest.domain.id());
        self.grave = gone.filter(|_| self.name.is_some()).or(self.grave);
        self.plugs.iter_mut().for_each(Plug::let_go);
    }

    /// Power was cut: nothing is left but the disks.
    pub(crate) fn is_dark(&mut self) {
        self.is_gone();
        self.grave = None;
        self.plugs.iter_mut().for_each(Plug::is_away);
    }

    /// The tool stack does what is next for a disk. With `attaches`, one that is not there, in a
    /// house with a guest, is attached.
    ///
    /// # Panics
    /// If there is something where nothing was left, or a disk did not follow its guest.
    pub(crate) fn errand(&mut self, disk: usize, dom0: &Domain, attaches: bool) -> Errand {
        if let Some(gone) = self.grave {
            return self.bury(gone, dom0);
        }
        let abandoned = self.guest.is_none();
        if abandoned && self.name.is_some() {
            return Errand::Nothing;
        }
        let plug = &mut self.plugs[disk];
        if !plug.attached {
            let done = !abandoned && attaches && plug.attach(dom0);
            return if done { Errand::Attached } else { Errand::Nothing };
        }
        let Ok(back) = plug.back_state(dom0) else { return Errand::Nothing };
        if plug.follows() {
            return plug.await_it(back, dom0);
        }
        let closed = matches!(back, None | Some(XenbusState::Closed));
        if plug.tell_size(dom0) {
            return Errand::Measured;
        }
        if !(closed || abandoned) || plug.wanted.remove(dom0).is_err() {
            return Errand::Nothing;
        }
        plug.is_away();
        Errand::Removed
    }

    /// The tool stack takes a disk away by force and attaches it with its other image, before
    /// anybody can look; tells whether it could.
    pub(crate) fn change(&mut self, disk: usize, dom0: &Domain) -> bool {
        let changed = self.guest.is_some() && self.plugs[disk].change(dom0);
        self.forced |= changed;
        changed
    }

    /// Destroys a guest that may have had to give pages up: they go with it.
    pub(crate) fn clear(&mut self, sim: &Sim) {
        if let Some(guest) = self.guest.take_if(|_| self.forced) {
            sim.kill(guest.domain.id());
        }
    }

    /// Removes the directory of a guest that is destroyed: its disks wait for its next life.
    fn bury(&mut self, gone: DomainId, dom0: &Domain) -> Errand {
        if dom0.remove(Transaction::NONE, &format!("/local/domain/{gone}")).is_err() {
            return Errand::Nothing;
        }
        self.grave = None;
        Errand::Removed
    }
}
