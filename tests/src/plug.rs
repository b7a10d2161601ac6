//! A disk as a tale has it: who has attached it, to which life of its guest, with which of its two
//! images, and what is known of each. It outlives guest and back.

use blkback::attach::AttachError;
use blkfront::Wishes;
use sim::{Domain, Spell};
use xen::{DomainId, Store, StoreError, Transaction, XenbusState};

use crate::{Guest, Ledger, Manners, Platter, Score, Wanted, World};

/// Sectors of each image, until it grows.
const SECTORS: usize = 128;

/// A disk and all who have to do with it.
pub(crate) struct Plug {
    pub(crate) wanted: Wanted<'static>,
    pub(crate) nodes: Nodes,
    pub(crate) wishes: Wishes,
    /// What the guest is connected to, or would be.
    pub(crate) platter: Platter,
    pub(crate) ledger: Ledger,
    /// Its other image.
    other: Reel,
    /// The other image is attached already, and the guest not yet through with this one.
    changing: bool,
    /// Its directories are there.
    pub(crate) attached: bool,
    /// The lives that its guest had since it was there: it is to follow from one of them.
    lives: Vec<DomainId>,
    /// The tool stack has asked for its end.
    unwanted: bool,
    held: bool,
    /// How often its image was made larger, and whether the back was not asked to look since.
    grown: (u32, bool),
    /// It was taken away by force: the back may have had pages mapped still.
    pub(crate) may_keep: bool,
    /// Nobody may be there to answer: requests may be lost.
    pub(crate) may_lose: bool,
    /// It closes, or did: requests that never went down have failed.
    pub(crate) may_fail: bool,
}

/// An image that is not in use, and what is known of it.
struct Reel {
    image: &'static str,
    platter: Platter,
    ledger: Ledger,
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
    /// A guest that is gone has no directory any more, or one of its disks has none.
    Removed,
    /// It has followed its guest.
    Followed,
    /// The back was asked to look at its size.
    Measured,
}

impl Plug {
    /// A disk that is attached nowhere.
    pub(crate) fn new(
        world: &mut World,
        vdev: u32,
        [image, other]: [&'static str; 2],
        wishes: Wishes,
    ) -> Self {
        let wanted = Wanted::new(0, vdev, image);
        Self {
            nodes: Nodes::of(&wanted),
            wanted,
            wishes,
            platter: world.image(image, SECTORS),
            ledger: Ledger::new(SECTORS),
            other: Reel {
                image: other,
                platter: world.image(other, SECTORS),
                ledger: Ledger::apart(SECTORS),
            },
            changing: false,
            attached: false,
            lives: Vec::new(),
            unwanted: false,
            held: false,
            grown: (0, false),
            may_keep: false,
            may_lose: false,
            may_fail: false,
        }
    }

    /// Its guest lives in another domain now.
    pub(crate) fn move_to(&mut self, guest: DomainId) {
        if self.attached {
            self.lives.push(self.wanted.guest);
        }
        self.may_keep = false;
        self.wanted.guest = guest;
        self.nodes = Nodes::of(&self.wanted);
    }

    /// Whether it is to follow its guest and was not seen there yet.
    pub(crate) const fn follows(&self) -> bool {
        !self.lives.is_empty()
    }

    /// The tool stack attaches it; tells whether it could.
    ///
    /// # Panics
    /// If there is something where nothing was left.
    pub(crate) fn attach(&mut self, dom0: &Domain) -> bool {
        match self.wanted.attach(dom0) {
            Ok(()) => self.attached = true,
            Err(AttachError::Store(_)) => {}
            Err(error) => panic!("not attached: {error}"),
        }
        self.attached
    }

    /// The tool stack removes it and attaches it with its other image; tells whether it was removed.
    pub(crate) fn change(&mut self, dom0: &Domain) -> bool {
        let can = self.attached && !self.follows() && !self.changing;
        if !can || self.wanted.remove(dom0).is_err() {
            return false;
        }
        self.is_away();
        std::mem::swap(&mut self.wanted.image, &mut self.other.image);
        self.changing = true;
        (self.may_keep, self.may_lose, self.may_fail) = (true, true, true);
        // What could not be attached is for the next errand.
        self.attach(dom0);
        true
    }

    /// The administrator makes the image that is attached larger, and has the back told.
    pub(crate) fn grow(&mut self, sectors: usize, dom0: &Domain) {
        let reel = &mut self.other;
        let (platter, ledger) = match self.changing {
            true => (&reel.platter, &mut reel.ledger),
            false => (&self.platter, &mut self.ledger),
        };
        platter.grow(sectors);
        ledger.grow(sectors);
        self.grown = (self.grown.0 + 1, true);
        self.tell_size(dom0);
    }

    /// The tool stack asks the back to look at the size, if it has not since the image was made
    /// larger; tells whether it did.
    pub(crate) fn tell_size(&mut self, dom0: &Domain) -> bool {
        let (who, due) = self.grown;
        let asked = due && self.attached && self.wanted.resize(dom0, who).is_ok();
        self.grown.1 = due && !asked;
        asked
    }

    /// Whether the guest, which is connected, sees a disk as large as its image, and whoever asked
    /// for that has an answer.
    pub(crate) fn is_whole(&self, guest: &mut Guest, dom0: &Domain) -> bool {
        let asked = self.wanted.back_node(dom0, "resize").is_some();
        let answered = !asked || self.wanted.resized(dom0).is_ok_and(|it| it.is_some());
        let seen = guest.disk(self.wanted.vdev).geometry().sectors;
        answered && seen == self.platter.sectors() as u64
    }

    /// Nobody waits for anything of the former connection, and no work comes through it any more.
    pub(crate) fn let_go(&mut self) {
        self.ledger.lose();
        if std::mem::take(&mut self.changing) {
            std::mem::swap(&mut self.platter, &mut self.other.platter);
            std::mem::swap(&mut self.ledger, &mut self.other.ledger);
        }
    }

    /// The state in the back's directory; `None` if that is gone.
    pub(crate) fn back_state(&self, dom0: &Domain) -> Result<Option<XenbusState>, StoreError> {
        let node = dom0.read(Transaction::NONE, &self.nodes.back)?;
        Ok(node.map(|state| XenbusState::parse(Some(&state))))
    }

    /// Whether the tool stack has made the guest's directory.
    pub(crate) fn is_there(&self, guest: &Domain) -> bool {
        guest.read(Transaction::NONE, &self.nodes.there).is_ok_and(|node| node.is_some())
    }

    /// Its directories are gone.
    pub(crate) fn is_away(&mut self) {
        (self.attached, self.unwanted) = (false, false);
        self.lives.clear();
    }

    /// The tool stack asks for its end, in whatever life of its guest it is; tells whether it was
    /// asked for in one.
    pub(crate) fn detach(&mut self, dom0: &Domain) -> bool {
        if !self.attached {
            return false;
        }
        let lives = self.lives.iter().chain([&self.wanted.guest]);
        let disks = lives.map(|&guest| Wanted { guest, ..self.wanted });
        let asked = disks.filter(|disk| disk.detach(dom0).is_ok()).count();
        self.unwanted |= asked > 0;
        asked > 0
    }

    /// Looks whether it has followed its guest.
    ///
    /// # Panics
    /// If it is nowhere, and nobody has asked for its end.
    pub(crate) fn await_it(&mut self, here: Option<XenbusState>, dom0: &Domain) -> Errand {
        if here.is_some() {
            self.lives.clear();
            return Errand::Followed;
        }
        for &guest in &self.lives {
            let there = Wanted { guest, ..self.wanted }.back();
            if dom0.read(Transaction::NONE, &there).map_or(true, |node| node.is_some()) {
                return Errand::Nothing;
            }
        }
        assert!(self.unwanted, "{} did not follow its guest", self.wanted.vdev);
        // It may have followed and gone: then the front's directory is there still.
        if self.wanted.remove(dom0).is_err() {
            return Errand::Nothing;
        }
        self.is_away();
        Errand::Removed
    }

    /// Minds whether the connection that the requests in flight went to is there still.
    ///
    /// # Panics
    /// If it had no reason to go.
    pub(crate) fn mind(&mut self, guest: &mut Guest) {
        let vdev = self.wanted.vdev;
        let disk = guest.has(vdev).then(|| guest.device(vdev).disk()).flatten();
        let (none, in_flight) = (disk.is_none(), disk.map_or(0, |disk| disk.in_flight()));
        if in_flight != self.ledger.in_flight() {
            assert!(self.may_lose, "{vdev} lost requests in flight");
            self.ledger.lose();
        }
        if none {
            self.let_go();
        }
    }

    /// The disk ends no job any more, or does again.
    pub(crate) fn toggle(&mut self) {
        self.held = !self.held;
        for platter in self.platters() {
            if self.held { platter.hold() } else { platter.release() }
        }
    }

    /// The disk behaves like this from now on, and holds nothing.
    pub(crate) fn behave(&mut self, manners: Manners) {
        self.held = false;
        for platter in self.platters() {
            platter.release();
            platter.set_manners(manners);
        }
    }

    /// Lets so many jobs of each image pass, and the next one fail, or all from there on.
    pub(crate) fn strike(&self, strike: Option<(u64, Spell)>) {
        self.platters().iter().for_each(|platter| platter.strike(strike));
    }

    fn platters(&self) -> [&Platter; 2] {
        [&self.platter, &self.other.platter]
    }

    /// # Panics
    /// If a request failed that had no reason to.
    pub(crate) fn errors_have_reasons(&self) {
        let failed = self.ledger.failed + self.other.ledger.failed;
        assert!(self.may_fail || failed == 0, "an error without a reason");
    }

    /// Holds what a power cut has left against what it may leave.
    pub(crate) fn check_after_power_cut(&mut self) {
        self.ledger.check_after_power_cut(&self.platter);
        self.other.ledger.check_after_power_cut(&self.other.platter);
    }

    /// Holds both images against what is known of them.
    pub(crate) fn check(&mut self) {
        let Self { platter, ledger, other, .. } = self;
        for (platter, ledger) in [(&*platter, ledger), (&other.platter, &mut other.ledger)] {
            platter.look(0, platter.sectors(), |bytes| ledger.check(0, bytes));
        }
    }

    /// What came of it.
    pub(crate) fn count(&self, score: &mut Score) {
        for ledger in [&self.ledger, &self.other.ledger] {
            score.operations += (ledger.done + ledger.failed) as u64;
            score.errors += ledger.failed as u64;
        }
        self.platters().iter().for_each(|platter| score.count(platter.harm().kinds()));
    }
}
