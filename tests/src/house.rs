//! A guest and its disks, which outlive it, as a tale has them: what the guest does, and what the
//! tool stack does for it.

use blkback::attach::AttachError;
use blkfront::{Disk, Wishes};
use blkif::Operation;
use sim::{Domain, Doom, Random, Sim};
use xen::{DomainId, Store, StoreError, Transaction, XenbusState};

use crate::script::{DISKS_MAX, GUESTS_MAX, Role};
use crate::{Guest, Ledger, Manners, Platter, Wanted, World, survives};

/// Sectors of each disk.
const SECTORS: usize = 128;
/// The number of the first disk; the next one's is 16 more.
const XVDA: u32 = 51712;
const IMAGES: [[&str; DISKS_MAX]; GUESTS_MAX] =
    [["/0a.img", "/0b.img"], ["/1a.img", "/1b.img"], ["/2a.img", "/2b.img"]];

/// A disk and all who have to do with it.
pub(crate) struct Plug {
    pub(crate) wanted: Wanted<'static>,
    pub(crate) nodes: Nodes,
    wishes: Wishes,
    pub(crate) platter: Platter,
    pub(crate) ledger: Ledger,
    /// Its directories are there.
    pub(crate) attached: bool,
    held: bool,
    /// Nobody may be there to answer: requests may be lost.
    pub(crate) may_lose: bool,
    /// It closes, or did: requests that never went down have failed.
    pub(crate) may_fail: bool,
}

/// The nodes of a disk that are looked at turn after turn.
pub(crate) struct Nodes {
    /// The front's state.
    pub(crate) front: String,
    /// The back's.
    pub(crate) back: String,
    /// Whether the tool stack has made the guest's directory, as the guest sees it.
    there: String,
}

impl Nodes {
    fn of(wanted: &Wanted<'_>) -> Self {
        Self {
            front: format!("{}/state", wanted.front()),
            back: format!("{}/state", wanted.back()),
            there: format!("device/vbd/{}/backend", wanted.vdev),
        }
    }
}

/// What the tool stack did for a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Errand {
    /// There was nothing to do, or it could not.
    Nothing,
    Attached,
    Removed,
}

/// A guest and its disks.
pub(crate) struct House {
    role: Role,
    pub(crate) guest: Option<Guest>,
    pub(crate) plugs: Vec<Plug>,
}

impl House {
    /// The `at`th house of a world. Nobody is in it, and no disk is attached.
    pub(crate) fn new(world: &mut World, at: usize, role: &Role) -> Self {
        let plugs = role.disks.iter().enumerate().map(|(disk, &wishes)| {
            let image = IMAGES[at][disk];
            let vdev = XVDA + 16 * u32::try_from(disk).expect("few");
            let wanted = Wanted::new(0, vdev, image);
            Plug {
                nodes: Nodes::of(&wanted),
                wanted,
                wishes,
                platter: world.image(image, SECTORS),
                ledger: Ledger::new(SECTORS),
                attached: false,
                held: false,
                may_lose: false,
                may_fail: false,
            }
        });
        Self { role: role.clone(), guest: None, plugs: plugs.collect() }
    }

    /// Another guest moves in, if nothing of the one before is left.
    pub(crate) fn boot(&mut self, world: &World, id: u16) -> bool {
        if self.guest.is_some() || self.plugs.iter().any(|plug| plug.attached) {
            return false;
        }
        let mut guest = world.guest(id);
        (guest.persistent, guest.elevator) = (self.role.persistent, self.role.elevator);
        self.guest = Some(guest);
        for plug in &mut self.plugs {
            plug.wanted.guest = DomainId(id);
            plug.nodes = Nodes::of(&plug.wanted);
        }
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
                assert_eq!(guest.device(vdev).pages_kept(), 0, "pages given up");
                if thorough || random.below(4) == 0 {
                    guest.forget(vdev);
                    busy = true;
                }
            } else if !guest.has(vdev) && plug.is_there(&guest.domain) {
                busy |= guest.try_open(vdev, plug.wishes).is_ok();
            }
        }
        busy
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
        self.guest = None;
        self.plugs.iter_mut().for_each(|plug| plug.ledger.lose());
    }

    /// The tool stack does what is next for a disk. With `attaches`, one that is not there, in a
    /// house with a guest, is attached.
    ///
    /// # Panics
    /// If there is something where nothing was left.
    pub(crate) fn errand(&mut self, disk: usize, dom0: &Domain, attaches: bool) -> Errand {
        let abandoned = self.guest.is_none();
        let plug = &mut self.plugs[disk];
        if !plug.attached {
            if abandoned || !attaches {
                return Errand::Nothing;
            }
            match plug.wanted.attach(dom0) {
                Ok(()) => plug.attached = true,
                Err(AttachError::Store(_)) => return Errand::Nothing,
                Err(error) => panic!("not attached: {error}"),
            }
            return Errand::Attached;
        }
        let Ok(back) = plug.back_state(dom0) else { return Errand::Nothing };
        let closed = matches!(back, None | Some(XenbusState::Closed));
        if !(closed || abandoned) || plug.wanted.remove(dom0).is_err() {
            return Errand::Nothing;
        }
        plug.attached = false;
        Errand::Removed
    }
}

impl Plug {
    /// The state in the back's directory; `None` if that is gone.
    pub(crate) fn back_state(&self, dom0: &Domain) -> Result<Option<XenbusState>, StoreError> {
        let node = dom0.read(Transaction::NONE, &self.nodes.back)?;
        Ok(node.map(|state| XenbusState::parse(Some(&state))))
    }

    /// Whether the tool stack has made the guest's directory.
    fn is_there(&self, guest: &Domain) -> bool {
        guest.read(Transaction::NONE, &self.nodes.there).is_ok_and(|node| node.is_some())
    }

    /// Minds whether the connection that the requests in flight went to is there still.
    ///
    /// # Panics
    /// If it had no reason to go.
    fn mind(&mut self, guest: &mut Guest) {
        let vdev = self.wanted.vdev;
        let disk = guest.has(vdev).then(|| guest.device(vdev).disk()).flatten();
        if disk.map_or(0, |disk| disk.in_flight()) != self.ledger.in_flight() {
            assert!(self.may_lose, "{vdev} lost requests in flight");
            self.ledger.lose();
        }
    }

    /// The disk ends no job any more, or does again.
    pub(crate) fn toggle(&mut self) {
        self.held = !self.held;
        if self.held { self.platter.hold() } else { self.platter.release() }
    }

    /// The disk behaves like this from now on, and holds nothing.
    pub(crate) fn behave(&mut self, manners: Manners) {
        self.held = false;
        self.platter.release();
        self.platter.set_manners(manners);
    }
}
