//! A guest with two disks: the back of one is honest, that of the other is the teller's to play.
//!
//! The back that is played has no code of ours behind it but the ring's, so that nothing keeps it
//! from saying what no back may say.

use blkfront::{Disk, Wishes};
use blkif::Operation;
use sim::Domain;
use xen::DomainId;

use crate::{Guest, Ledger, Liar, RawBack, Wanted, World};

/// The guest's domain.
const GUEST: DomainId = DomainId(5);

/// The world, the guest in it, and the back that is ours to play.
pub struct Duel {
    /// With the honest back.
    pub world: World,
    /// With both disks.
    pub guest: Guest,
    /// The voice of the other back.
    pub liar: Liar,
    /// What the honest disk was asked for.
    pub ledger: Ledger,
}

impl Duel {
    /// The disk whose back is played.
    pub const XVDA: u32 = 51712;
    /// The honest disk.
    pub const XVDB: u32 = 51728;
    /// Sectors of either.
    pub const SECTORS: usize = 1024;
    /// The honest disk, as the tool stack wants it.
    pub const HONEST: Wanted<'static> = Wanted::new(GUEST.0, Self::XVDB, "/honest.img");

    /// The honest disk is in service, the other waits for its back.
    pub fn new(seed: u64, wishes: Wishes) -> Self {
        let mut world = World::new(seed);
        world.image(Self::HONEST.image, Self::SECTORS);
        let mut guest = world.guest(GUEST.0);
        world.plug(&mut guest, &Self::HONEST, wishes);
        let liar = Liar::new(&world.sim, &world.dom0);
        guest.open(Self::XVDA, wishes);
        let mut duel = Self { world, guest, liar, ledger: Ledger::new(Self::SECTORS) };
        duel.say(&[]);
        duel
    }

    /// The back says something, and everybody else takes it in.
    pub fn say(&mut self, nodes: &[(&str, &str)]) {
        self.liar.say(nodes);
        for _ in 0..20 {
            while self.liar.domain.take_event().is_some() {}
            self.world.turn_back();
            self.guest.turn();
        }
    }

    /// The back connects as it should.
    ///
    /// # Panics
    /// If the front does not.
    pub fn connect(&mut self) -> RawBack {
        self.say(&[("max-ring-page-order", "4"), ("state", "2")]);
        let back = RawBack::connect(&self.liar.domain, GUEST, Liar::FRONT);
        self.say(&[("feature-persistent", "1"), ("feature-flush-cache", "1")]);
        self.say(&[("sectors", "1024"), ("sector-size", "512"), ("state", "4")]);
        assert!(self.guest.is_connected(Self::XVDA));
        back
    }

    /// The disk whose back is played.
    ///
    /// # Panics
    /// If it is not connected.
    pub fn disk(&mut self) -> &mut Disk<Domain, Domain> {
        self.guest.disk(Self::XVDA)
    }

    /// Puts reads of one page into flight there.
    ///
    /// # Panics
    /// If the front takes one of them not.
    pub fn read(&mut self, count: usize) {
        for _ in 0..count {
            let buffer = self.disk().buffer(4096).expect("a page");
            let taken = self.disk().submit(Operation::Read, 0, buffer);
            taken.map_err(|refused| refused.error).expect("taken");
        }
        self.disk().kick();
    }
}
