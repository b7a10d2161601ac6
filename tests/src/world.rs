//! One machine with a back in domain 0 and any number of guests, told step by step.
//!
//! Nothing runs by itself: [`World::settle`] gives everybody turns until nobody has anything to
//! do. All choices come from the seed, and time is the machine's [`Clock`], in microseconds: it goes
//! on with every call, and jumps to the next thing that is due when nobody has anything to do.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::time::Duration;

use blkback::Control;
use blkback::connect::Leave;
use sim::{Clock, Died, Domain, Doom, Random, Sim};
use xen::{DomainId, Store, StoreError, Transaction};

use crate::{Guest, Ledger, Platter, SimCrew, Wanted};

/// How long the back keeps the disks of a guest that is gone.
pub const KEEP: Duration = Duration::from_secs(60);

/// More rounds than any story needs to come to rest.
const ROUNDS_MAX: usize = 10_000;

/// A back: control plane and workers.
struct Back {
    control: Control<Domain, SimCrew>,
    crew: SimCrew,
}

/// One machine.
pub struct World {
    /// The machine.
    pub sim: Sim,
    /// Domain 0 as the tool stack sees it; dead after a crash of the back, see [`World::crash_back`].
    pub dom0: Domain,
    /// For whatever the story chooses.
    pub random: Random,
    clock: Clock,
    seed: u64,
    platters: BTreeMap<PathBuf, Platter>,
    back: Option<Back>,
}

/// Runs what a program does; tells whether the program survived it. See [`Sim::doom`].
pub fn survives(program: impl FnOnce()) -> bool {
    match catch_unwind(AssertUnwindSafe(program)) {
        Ok(()) => true,
        Err(payload) if payload.is::<Died>() => false,
        Err(payload) => resume_unwind(payload),
    }
}

impl World {
    /// A machine without guests whose back is up.
    pub fn new(seed: u64) -> Self {
        let mut world = Self::without_back(seed);
        world.start_back();
        world
    }

    /// A machine without guests whose back is not up yet.
    pub fn without_back(seed: u64) -> Self {
        let sim = Sim::new(seed);
        let (clock, dom0, random) = (sim.clock(), sim.domain(DomainId::ZERO), Random::new(!seed));
        Self { sim, dom0, random, clock, seed, platters: BTreeMap::new(), back: None }
    }

    /// A new disk image of zeros under a name.
    pub fn image(&mut self, name: &str, sectors: usize) -> Platter {
        let platter = Platter::new(sectors);
        self.platters.insert(name.into(), platter.clone());
        if let Some(back) = &self.back {
            back.crew.add(name.into(), platter.clone());
        }
        platter
    }

    /// Draws everything from now on from another seed.
    pub fn reseed(&mut self, seed: u64) {
        self.sim.reseed(seed);
        self.random = Random::new(!seed);
        if let Some(back) = &self.back {
            back.crew.reseed(seed.rotate_left(32));
        }
    }

    /// Starts a back in domain 0.
    ///
    /// # Panics
    /// If xenstore refuses domain 0.
    pub fn start_back(&mut self) {
        self.try_start_back().expect("xenstore");
    }

    /// Starts a back in domain 0.
    ///
    /// # Errors
    /// What the back ends with at once.
    pub fn try_start_back(&mut self) -> Result<(), StoreError> {
        let crew = SimCrew::new(self.dom0.clone(), self.platters.clone(), self.seed);
        let control = Control::new(self.dom0.clone(), crew.clone(), DomainId::ZERO, KEEP);
        match control {
            Ok(control) => self.back = Some(Back { control, crew }),
            Err(error) => {
                self.crash_back();
                return Err(error);
            }
        }
        Ok(())
    }

    /// Whether there is a back.
    pub fn has_back(&self) -> bool {
        self.back.is_some()
    }

    /// The back dies without a word, and its kernel takes back what it held.
    pub fn crash_back(&mut self) {
        self.sim.crash(DomainId::ZERO);
        self.dom0 = self.sim.domain(DomainId::ZERO);
        self.back = None;
    }

    /// The back dies at one of its calls, after so many more, if it makes that many in what it
    /// does; tells how many calls it had left, or `None` if it died.
    pub fn doom_back(&mut self, calls: u64, doing: impl FnOnce(&mut Self)) -> Option<u64> {
        self.sim.doom(DomainId::ZERO, calls, Doom::Program);
        let survived = survives(|| doing(self));
        let left = self.sim.spare();
        if survived {
            return left;
        }
        self.dom0 = self.sim.domain(DomainId::ZERO);
        self.back = None;
        None
    }

    /// Power is cut and comes back: of all that was, only the disks are there, with what they kept.
    /// No back is up; guests from before are to be dropped.
    pub fn cut_power(&mut self) {
        self.back = None;
        self.sim.restart();
        self.dom0 = self.sim.domain(DomainId::ZERO);
        for platter in self.platters.values() {
            platter.cut_power(&mut self.random);
        }
    }

    /// Lets time pass until the next thing is due; tells whether anything is.
    pub fn pass(&self) -> bool {
        let work = self.back.as_ref().and_then(|back| back.crew.next_due());
        let due = work.into_iter().chain(self.sim.next_due()).min();
        due.inspect(|&due| self.clock.reach(due)).is_some()
    }

    /// Asks the back to close everything.
    pub fn leave_back(&mut self, leave: Leave) {
        if let Some(back) = &mut self.back {
            back.control.leave(leave);
        }
    }

    /// Detaches a disk as the tool stack does, and takes its directories away.
    ///
    /// # Panics
    /// If front or back does not let go of everything.
    pub fn unplug(&mut self, guest: &mut Guest, wanted: &Wanted<'_>) {
        wanted.detach(&self.dom0).expect("detached");
        self.settle(&mut [guest]);
        assert!(guest.device(wanted.vdev).is_closed());
        assert_eq!(guest.device(wanted.vdev).pages_kept(), 0);
        guest.forget(wanted.vdev);
        wanted.remove(&self.dom0).expect("removed");
        self.settle(&mut [guest]);
    }

    /// Ends the story: nobody holds anything but the back its three watches.
    ///
    /// # Panics
    /// If anything is left.
    pub fn end(self) {
        let mut audit = self.sim.audit();
        audit.watches.retain(|(id, _, token)| {
            *id != DomainId::ZERO || !["back", "domains"].contains(&token.as_str())
        });
        assert!(audit.is_clean(), "left behind:\n{audit}");
    }

    /// Whether the back serves nobody.
    pub fn is_back_idle(&self) -> bool {
        self.back.as_ref().is_none_or(|back| back.control.is_quiet())
    }

    /// How many devices the back knows.
    pub fn devices(&self) -> usize {
        self.back.as_ref().map_or(0, |back| back.control.device_count())
    }

    /// Whether the back serves a ring from this medium.
    pub fn serves(&self, platter: &Platter) -> bool {
        self.back.as_ref().is_some_and(|back| back.crew.serves(platter))
    }

    /// The workers of the back.
    ///
    /// # Panics
    /// If there is no back.
    pub fn crew(&self) -> &SimCrew {
        &self.back.as_ref().expect("a back").crew
    }

    /// A guest without devices, and without a UUID.
    pub fn guest(&self, id: u16) -> Guest {
        self.life(id, &[])
    }

    /// A life of the guest that is called `name`, without devices. Its name is its UUID, too.
    pub fn life_of(&self, name: &str, id: u16) -> Guest {
        self.life(id, &[("vm", &format!("/vm/{name}")), ("name", name)])
    }

    fn life(&self, id: u16, nodes: &[(&str, &str)]) -> Guest {
        Guest::new(self.sim.guest(DomainId(id), nodes))
    }

    /// Destroys a guest as the tool stack does. Whether its directory goes before its domain is
    /// the seed's choice.
    ///
    /// # Panics
    /// If xenstore refuses domain 0.
    pub fn destroy(&mut self, guest: Guest) {
        let id = guest.domain.id();
        let early = self.random.chance(500);
        let remove = |world: &Self| {
            world.dom0.remove(Transaction::NONE, &format!("/local/domain/{id}")).expect("removed");
        };
        if early {
            remove(self);
            self.settle_back();
        }
        self.sim.kill(id);
        drop(guest);
        if !early {
            remove(self);
        }
    }

    /// Lets so much time pass.
    pub fn wait(&self, time: Duration) {
        self.clock.pass(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    /// Gives the back one turn; tells whether it had something to do.
    ///
    /// # Panics
    /// If the back loses its xenstore.
    pub fn turn_back(&mut self) -> bool {
        let more = self.turn_control().expect("xenstore");
        self.turn_workers(1000) || more
    }

    /// Gives the back's control plane one turn; tells whether it has more to do.
    ///
    /// # Errors
    /// What ends the back.
    pub fn turn_control(&mut self) -> Result<bool, StoreError> {
        let Some(back) = &mut self.back else { return Ok(false) };
        back.control.at(Duration::from_micros(self.clock.now()));
        Ok(back.control.work()? || back.control.is_stuck())
    }

    /// Gives so many of 1000 workers with something to do one turn; tells whether one had.
    pub fn turn_workers(&mut self, per_mille: u16) -> bool {
        self.back.as_ref().is_some_and(|back| back.crew.turn_some(per_mille))
    }

    /// Gives the back alone more turns than it needs for anything.
    ///
    /// # Panics
    /// If the back loses its xenstore.
    pub fn settle_back(&mut self) {
        for _ in 0..100 {
            self.turn_back();
        }
    }

    /// Gives everybody turns until nobody has anything to do.
    ///
    /// # Panics
    /// If that never comes.
    pub fn settle(&mut self, guests: &mut [&mut Guest]) {
        for _ in 0..ROUNDS_MAX {
            let mut busy = self.turn_back();
            for guest in guests.iter_mut() {
                busy |= guest.turn();
            }
            if !busy && !self.pass() {
                return;
            }
        }
        panic!("no rest after {ROUNDS_MAX} rounds");
    }

    /// Shows the back what was submitted and gives everybody turns until it is answered.
    ///
    /// # Panics
    /// If that never comes: a wake-up was lost.
    pub fn drain(&mut self, guest: &mut Guest, vdev: u32, ledger: &mut Ledger) {
        guest.disk(vdev).kick();
        for _ in 0..ROUNDS_MAX {
            if ledger.in_flight() == 0 {
                return;
            }
            self.turn_back();
            guest.turn();
            guest.listen(vdev, ledger);
        }
        panic!("{} requests wait for a wake-up that never comes", ledger.in_flight());
    }

    /// Attaches a disk and has the guest find it; both come to rest.
    ///
    /// # Panics
    /// If the guest does not find it.
    pub fn plug(&mut self, guest: &mut Guest, wanted: &Wanted<'_>, wishes: blkfront::Wishes) {
        wanted.attach(&self.dom0).expect("attached");
        guest.open(wanted.vdev, wishes);
        self.settle(&mut [guest]);
    }
}
