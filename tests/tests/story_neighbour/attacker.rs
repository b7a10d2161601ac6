//! A guest with one disk and no scruples.

use blkif::Abi;
use sim::{Domain, Random};
use tests::{RawFront, Wanted, World};
use xen::{DomainId, GrantRef, Store, Transaction};

const HOSTILE: Wanted<'static> = Wanted::new(5, super::XVDA, "/hostile.img");

/// A guest with one disk and no scruples.
pub(super) struct Attacker {
    pub(super) domain: Domain,
    /// For more than one thing that it connects: the last one is in use.
    pub(super) fronts: Vec<RawFront>,
    pub(super) grants: Vec<GrantRef>,
    pub(super) random: Random,
    /// What it did, in whatever it counts.
    pub(super) attacks: u64,
}

impl Attacker {
    /// Has a disk attached that is not connected yet.
    pub(super) fn new(world: &mut World) -> Self {
        world.image(HOSTILE.image, super::SECTORS);
        let domain = world.sim.domain(DomainId(5));
        HOSTILE.attach(&world.dom0).expect("attached");
        world.settle_back();
        Self { domain, fronts: Vec::new(), grants: Vec::new(), random: Random::new(9), attacks: 0 }
    }

    /// The front in use; connects one with `granted` buffers if there is none.
    pub(super) fn front(&mut self, order: u32, granted: usize) -> &mut RawFront {
        if self.fronts.is_empty() {
            self.connect(order);
            let front = &mut self.fronts[0];
            self.grants = (0..granted).map(|_| front.buffer()).collect();
        }
        self.fronts.last_mut().expect("one was made")
    }

    /// One more ring, whatever became of the last.
    pub(super) fn connect(&mut self, order: u32) {
        let folder = HOSTILE.front();
        let front = RawFront::connect(&self.domain, &folder, DomainId::ZERO, Abi::X86_64, order);
        self.fronts.push(front);
    }

    /// Writes a node of its own.
    pub(super) fn write(&mut self, key: &str, value: &str) {
        let path = format!("{}/{key}", HOSTILE.front());
        self.attacks += u64::from(self.domain.write(Transaction::NONE, &path, value).is_ok());
    }

    /// Takes a node of its own away.
    pub(super) fn remove(&mut self, key: &str) {
        let path = format!("{}/{key}", HOSTILE.front());
        self.attacks += u64::from(self.domain.remove(Transaction::NONE, &path).is_ok());
    }

    /// Fills the ring with what `words` gives, takes all answers and counts them.
    pub(super) fn fill(&mut self, mut words: impl FnMut(&mut Random, &[GrantRef]) -> Vec<u32>) {
        let front = self.fronts.last_mut().expect("connected");
        while let Ok(Some(_)) = front.take() {
            self.attacks += 1;
        }
        while front.put(&words(&mut self.random, &self.grants)) {}
        front.publish();
    }

    /// The tool stack takes the disk away, and the guest dies.
    pub(super) fn end(self, world: &mut World) {
        world.sim.kill(DomainId(5));
        HOSTILE.remove(&world.dom0).expect("removed");
        world.settle_back();
        drop(self.fronts);
    }
}
