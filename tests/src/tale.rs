//! A script carried out: several guests, one back, their tool stack, and what is known of the disks.
//!
//! Every act leaves the machine in a state that it could be in; what must hold then is asserted
//! where it is seen: by the [`Ledger`](crate::Ledger)s, by the simulated machine, and here. In calm,
//! with all faults off, everything that waits must come to its end: devices connect, requests are
//! answered. At the end of the tale nobody holds anything.

use blkback::connect::Leave;
use sim::{Faults, Limits, Random};
use xen::{DomainId, XenbusState};

use crate::house::House;
use crate::plug::{Errand, Plug};
use crate::score::{End, Score};
use crate::script::{Act, Place, Script, What};
use crate::{Manners, World};

/// More rounds than it takes to come to rest from any state.
const ROUNDS_MAX: usize = 1000;
/// No tale takes so many calls: somebody asks without end.
const CALLS_MAX: u64 = 2_000_000;
/// After so many turns a back that was told to end waits for no guest any more.
const GOODBYE_TURNS: usize = 30;
/// How often in a row the control plane works if it has more to do.
const CONTROL_TURNS: usize = 4;
/// Operations on each disk, at the end, all of which must end well.
const LAST_OPERATIONS: usize = 8;
/// A disk grows by so many sectors at most.
const GROWTH_MAX: usize = 64;
/// Of 1000 workers with something to do so many have their turn.
const WORKERS: u16 = 700;

/// A script that is being carried out.
pub struct Tale<'a> {
    script: &'a Script,
    world: World,
    houses: Vec<House>,
    score: Score,
    guests_booted: u16,
    /// Who is to die at a call, and how many it makes before.
    doom: Option<(DomainId, u64)>,
    /// The back was told to end, so many turns ago.
    leaving: Option<usize>,
    /// Guests forget every device that is closed.
    thorough: bool,
    /// The tool stack attaches nothing any more.
    ending: bool,
}

/// What came of a tale that ended well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What it has seen.
    pub score: Score,
    /// A hash of every call, what it met and when.
    pub trace: u64,
}

impl<'a> Tale<'a> {
    fn new(script: &'a Script) -> Self {
        let mut world = World::without_back(script.seed);
        world.sim.set_limits(Limits { calls: CALLS_MAX, ..Limits::default() });
        let cast = script.cast.iter().enumerate();
        let houses: Vec<House> = cast.map(|(at, role)| House::new(&mut world, at, role)).collect();
        let mut tale = Self {
            script,
            world,
            houses,
            score: Score { seeds: 1, ..Score::default() },
            guests_booted: 0,
            doom: script.doom,
            leaving: None,
            thorough: false,
            ending: false,
        };
        tale.behave(script.faults, script.manners);
        tale.world.sim.strike(script.strike);
        tale.plugs().for_each(|plug| plug.strike(script.job_strike));
        tale
    }

    /// Tells the whole tale.
    ///
    /// # Panics
    /// If anything is not as it must be.
    pub fn tell(script: &'a Script) -> Outcome {
        let mut tale = Self::new(script);
        for act in &script.acts {
            tale.act(*act);
        }
        tale.world.reseed(script.seed);
        tale.finish()
    }

    fn act(&mut self, Act { what, dice }: Act) {
        self.world.reseed(dice);
        let mut random = Random::new(dice.rotate_left(16));
        self.score.acts += 1;
        match what {
            What::Work((at, disk), count) => {
                self.in_house(at, |house| house.work(disk, count, &mut random));
            }
            What::Flush((at, disk)) => self.in_house(at, |house| house.flush(disk)),
            What::Listen((at, disk)) => drop(self.in_house(at, |house| house.listen(disk))),
            What::Guest(at) => drop(self.guest(at)),
            What::Workers => drop(self.workers(WORKERS)),
            What::Control => drop(self.control()),
            What::ToolStack(place) => drop(self.tool_stack(place)),
            What::Everybody => drop(self.everybody(WORKERS)),
            What::Pass => drop(self.world.pass()),
            What::Hold((at, disk)) => self.houses[at].plugs[disk].toggle(),
            What::Detach(place) => self.detach(place),
            What::Change((at, disk)) => {
                if self.houses[at].change(disk, &self.world.dom0) {
                    self.score.end(End::Changed);
                }
            }
            What::Grow((at, disk)) => {
                let sectors = 1 + random.below(GROWTH_MAX);
                self.houses[at].plugs[disk].grow(sectors, &self.world.dom0);
                self.score.growths += 1;
            }
            What::Close((at, disk)) => {
                if self.in_house(at, |house| house.close(disk)) {
                    self.score.end(End::ClosedByGuest);
                }
            }
            What::BackDies(calls) => self.kill_back(calls as u64),
            What::BackLeaves => {
                self.world.leave_back(Leave::Ask);
                self.leaving = self.leaving.or(self.world.has_back().then_some(0));
                self.all_may(false);
            }
            What::GuestDies(at, calls) => {
                if self.houses[at].die(&self.world.sim, calls as u64, &mut random) {
                    self.score.end(End::GuestDied);
                }
            }
            What::PowerCut => self.cut_power(),
            What::Calm => self.calm(),
        }
        self.errors_have_reasons();
    }

    /// Somebody at home does something, unless death comes first.
    fn in_house<T: Default>(&mut self, at: usize, doing: impl FnOnce(&mut House) -> T) -> T {
        let house = &mut self.houses[at];
        let id = house.guest.as_ref().map(|guest| guest.domain.id());
        let Some((_, calls)) = self.doom.filter(|&(who, _)| Some(who) == id) else {
            return doing(house);
        };
        let mut done = T::default();
        let left = house.doom(&self.world.sim, calls, |house| done = doing(house));
        self.doom = id.zip(left);
        if left.is_none() {
            self.score.end(End::GuestDied);
        }
        done
    }

    /// The back does something, unless death comes first.
    fn in_back<T: Default>(&mut self, doing: impl FnOnce(&mut World) -> T) -> T {
        let Some((_, calls)) = self.doom.filter(|&(who, _)| who == DomainId::ZERO) else {
            return doing(&mut self.world);
        };
        let mut done = T::default();
        let left = self.world.doom_back(calls, |world| done = doing(world));
        self.doom = left.map(|left| (DomainId::ZERO, left));
        if left.is_none() {
            self.back_died();
        }
        done
    }

    /// The guest's turn.
    fn guest(&mut self, at: usize) -> bool {
        let before = self.houses[at].connected();
        let (mut random, thorough) = (Random::new(self.world.random.next()), self.thorough);
        let busy = self.in_house(at, |house| house.turn(&mut random, thorough));
        let house = &mut self.houses[at];
        let now = house.connected();
        for (disk, plug) in house.plugs.iter_mut().enumerate() {
            if now[disk] && !before[disk] {
                self.score.connections += 1;
                // The back may have died since it said that it was connected.
                plug.may_lose = !self.world.serves(&plug.platter);
            }
        }
        busy
    }

    fn workers(&mut self, per_mille: u16) -> bool {
        self.in_back(|world| world.turn_workers(per_mille))
    }

    /// The control plane's turn; tells whether it has more to do.
    fn control(&mut self) -> bool {
        if !self.world.has_back() {
            return self.in_back(|world| world.try_start_back().is_ok());
        }
        // As the daemon does it: once more at once if there is more, and in between a look whether
        // it is time to go.
        for _ in 0..CONTROL_TURNS {
            let more = self.work_of_control();
            if self.leaving.is_some() && self.world.is_back_idle() {
                self.score.end(End::BackLeft);
                self.world.crash_back();
                self.leaving = None;
                return true;
            }
            if !more {
                return false;
            }
        }
        true
    }

    /// # Panics
    /// If the control plane gives up for less than the end of its connection to xenstore.
    fn work_of_control(&mut self) -> bool {
        if let Some(turns) = &mut self.leaving {
            *turns += 1;
            if *turns == GOODBYE_TURNS {
                self.world.leave_back(Leave::Go);
                self.all_may(true);
            }
        }
        self.in_back(|world| world.turn_control().expect("xenstore is there"))
    }

    fn tool_stack(&mut self, (at, disk): Place) -> bool {
        let house = &mut self.houses[at];
        let id = self.guests_booted + 1;
        if !self.ending && house.boot(&self.world, id) {
            self.guests_booted = id;
            return true;
        }
        let done = house.errand(disk, &self.world.dom0, !self.ending);
        self.score.followed += u64::from(done == Errand::Followed);
        done != Errand::Nothing
    }

    fn note_states(&mut self, (at, disk): Place) {
        let nodes = &self.houses[at].plugs[disk].nodes;
        let state = |node: &str| self.world.sim.look(node, XenbusState::parse);
        self.score.pair(state(&nodes.front), state(&nodes.back));
    }

    /// Everybody has a turn, of the back's workers so many in 1000; tells whether anything came
    /// of it.
    fn everybody(&mut self, workers: u16) -> bool {
        let mut busy = self.control();
        busy |= self.workers(workers);
        for at in 0..self.houses.len() {
            busy |= self.guest(at);
            for disk in 0..self.houses[at].plugs.len() {
                busy |= self.in_house(at, |house| house.listen(disk));
                busy |= self.tool_stack((at, disk));
                if busy {
                    self.note_states((at, disk));
                }
            }
        }
        busy
    }

    fn detach(&mut self, (at, disk): Place) {
        let plug = &mut self.houses[at].plugs[disk];
        if plug.detach(&self.world.dom0) {
            plug.may_fail = true;
            self.score.end(End::Detached);
        }
    }

    fn kill_back(&mut self, calls: u64) {
        if !self.world.has_back() {
            return;
        }
        let left = self.world.doom_back(calls, |world| {
            world.turn_control().expect("xenstore is there");
            world.turn_workers(1000);
        });
        if left.is_some() {
            self.world.crash_back();
        }
        self.back_died();
    }

    fn back_died(&mut self) {
        self.leaving = None;
        self.all_may(true);
        self.score.end(End::BackDied);
    }

    fn cut_power(&mut self) {
        self.world.cut_power();
        self.leaving = None;
        for house in &mut self.houses {
            house.is_dark();
            for plug in &mut house.plugs {
                plug.check_after_power_cut();
            }
        }
        self.score.end(End::PowerCut);
    }

    /// Requests may fail now, because devices close; and be lost, if nobody waits for them.
    fn all_may(&mut self, lose: bool) {
        for plug in self.plugs() {
            plug.may_fail = true;
            plug.may_lose |= lose;
        }
    }

    fn plugs(&mut self) -> impl Iterator<Item = &mut Plug> {
        self.houses.iter_mut().flat_map(|house| &mut house.plugs)
    }

    fn behave(&mut self, faults: Faults, manners: Manners) {
        self.world.sim.set_faults(faults);
        self.plugs().for_each(|plug| plug.behave(manners));
    }

    /// From here on nothing goes wrong.
    fn still(&mut self) {
        self.behave(Faults::default(), Manners::GOOD);
        self.world.sim.strike(None);
        self.plugs().for_each(|plug| plug.strike(None));
        self.doom = None;
    }

    /// All faults are off, and everybody has turns until nobody has anything to do.
    ///
    /// # Panics
    /// If somebody waits for something that does not come.
    fn calm(&mut self) {
        self.still();
        self.rest();
        let fine = self.houses.iter_mut().all(|house| house.is_fine(&self.world.dom0));
        assert!(fine, "something never comes: {}", self.standing());
        self.score.calms += 1;
        self.behave(self.script.faults, self.script.manners);
    }

    fn rest(&mut self) {
        self.thorough = true;
        for _ in 0..ROUNDS_MAX {
            let busy = self.everybody(1000);
            if !busy && !self.world.pass() {
                self.thorough = false;
                return;
            }
        }
        panic!("no rest after {ROUNDS_MAX} rounds: {}", self.standing());
    }

    /// Where everything stands, for whoever looks for a fault.
    fn standing(&self) -> String {
        let mut text = format!("the back is idle: {}", self.world.is_back_idle());
        for plug in self.houses.iter().flat_map(|house| &house.plugs) {
            let wanted = &plug.wanted;
            let node = |path: String| self.world.sim.peek(&path).unwrap_or_default();
            let front = node(format!("{}/state", wanted.front()));
            let back = node(format!("{}/state", wanted.back()));
            let (guest, waiting) = (wanted.guest, plug.ledger.in_flight());
            let [error, sectors, resize] =
                ["error", "sectors", "resize"].map(|key| node(format!("{}/{key}", wanted.back())));
            text += &format!(
                "; {guest}/{} {front}/{back} {waiting} in flight, {sectors} of {} sectors {resize} \
                 {error}",
                wanted.vdev,
                plug.platter.sectors(),
            );
        }
        text
    }

    /// # Panics
    /// If a request failed that had no reason to.
    fn errors_have_reasons(&self) {
        if self.script.may_fail() {
            return;
        }
        for plug in self.houses.iter().flat_map(|house| &house.plugs) {
            plug.errors_have_reasons();
        }
    }

    /// Ends the tale: a last time of calm and work, then everything is taken away.
    fn finish(mut self) -> Outcome {
        self.calm();
        self.still();
        for at in 0..self.houses.len() {
            for disk in 0..self.houses[at].plugs.len() {
                self.houses[at].work(disk, LAST_OPERATIONS, &mut self.world.random);
            }
        }
        self.rest();
        for plug in self.plugs() {
            assert_eq!(plug.ledger.in_flight(), 0, "a wake-up never comes");
            plug.check();
        }
        self.ending = true;
        for at in 0..self.houses.len() {
            for disk in 0..self.houses[at].plugs.len() {
                self.detach((at, disk));
            }
        }
        self.rest();
        for plug in self.houses.iter().flat_map(|house| &house.plugs) {
            assert!(!plug.attached, "it is never let go");
            plug.count(&mut self.score);
        }
        self.houses.iter_mut().for_each(|house| house.clear(&self.world.sim));
        self.score.count(self.world.sim.tally().kinds());
        let trace = self.world.sim.trace();
        self.world.end();
        Outcome { score: self.score, trace }
    }
}
