//! What happens in a tale, as data: who is there, what is done badly, and act after act.
//!
//! A script is drawn from a seed, and then it is all there is: each act brings the seed of its own
//! chances along, so that what is left of a script when acts are taken out happens as before. That
//! is what makes a failing one shrink.

use std::fmt;

use blkfront::Wishes;
use sim::{Call, Faults, Random, Spell, Strike};
use xen::DomainId;

use crate::Manners;

/// A machine has at most this many guests.
pub const GUESTS_MAX: usize = 3;
/// A guest has at most this many disks.
pub const DISKS_MAX: usize = 2;
/// Acts of a script, besides those that follow on troubles.
const ACTS: usize = 600;
/// A trouble comes about once in so many acts.
const TROUBLE_ONE_IN: usize = 100;
/// Disks of a script grow at most so often.
const GROWTHS_MAX: usize = 4;
/// Operations of one act of work.
const WORK_MAX: usize = 24;
/// Calls that who is doomed still makes at most.
const LAST_CALLS_MAX: usize = 80;

/// A guest of the script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    /// Whether it keeps its grants.
    pub persistent: bool,
    /// Its elevator.
    pub elevator: &'static str,
    /// Its disks.
    pub disks: Vec<Wishes>,
    /// Whether it has a UUID: then its disks follow it when it is destroyed and made again.
    pub named: bool,
}

/// Which disk of which guest.
pub type Place = (usize, usize);

/// Who does what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The guest submits operations to a disk and kicks it.
    Work(Place, usize),
    /// The guest submits a flush to a disk and kicks it.
    Flush(Place),
    /// The guest takes completions, if something said that there are some.
    Listen(Place),
    /// The guest takes in events and watches.
    Guest(usize),
    /// Some of the back's workers take their turn.
    Workers,
    /// The back's control plane takes its turn; if there is no back, one is started.
    Control,
    /// The tool stack does what is next for a disk: attach it, or take it away once it is closed.
    ToolStack(Place),
    /// Each of those takes its turn.
    Everybody,
    /// Time passes to the next thing that is due.
    Pass,
    /// The disk ends no job any more, or does again.
    Hold(Place),
    /// The tool stack asks for a disk back.
    Detach(Place),
    /// The tool stack takes a disk away by force and attaches it with another image, before anybody
    /// can look.
    Change(Place),
    /// The administrator makes an image larger while it is used, and has the back told.
    Grow(Place),
    /// The guest closes a disk of its own accord.
    Close(Place),
    /// The back dies in its turn, after so many calls.
    BackDies(usize),
    /// The back is told to end.
    BackLeaves,
    /// The guest dies in its turn, after so many calls.
    GuestDies(usize, usize),
    /// Power is cut.
    PowerCut,
    /// Everything goes well for a while: all that waits must come to its end.
    Calm,
}

impl What {
    /// The disk that it is about; the first of the guest, or of all guests, if it is about more.
    pub fn place(self) -> Place {
        match self {
            Self::Work(place, _)
            | Self::Flush(place)
            | Self::Listen(place)
            | Self::ToolStack(place)
            | Self::Hold(place)
            | Self::Detach(place)
            | Self::Change(place)
            | Self::Grow(place)
            | Self::Close(place) => place,
            Self::Guest(guest) | Self::GuestDies(guest, _) => (guest, 0),
            _ => (0, 0),
        }
    }
}

/// One act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Act {
    /// Who does what.
    pub what: What,
    /// The seed of everything that is drawn meanwhile.
    pub dice: u64,
}

/// What happens in a tale.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// What it was drawn from.
    pub seed: u64,
    /// The guests.
    pub cast: Vec<Role>,
    /// What the machine does badly, but in calm.
    pub faults: Faults,
    /// What the disks do badly, but in calm.
    pub manners: Manners,
    /// The n-th call of a kind that fails, until it is calm.
    pub strike: Option<Strike>,
    /// So many jobs of each disk pass, then one fails or all, until it is calm.
    pub job_strike: Option<(u64, Spell)>,
    /// Who dies after so many of its calls: domain 0 for the back, or a guest. The first guest is
    /// domain 1.
    pub doom: Option<(DomainId, u64)>,
    /// What happens, in order.
    pub acts: Vec<Act>,
}

impl Script {
    /// The script of a seed.
    pub fn of(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let guests = 1 + random.below(GUESTS_MAX);
        let mut cast: Vec<Role> = (0..guests).map(|_| role(&mut random)).collect();
        // From a stream of their own: the others have theirs as they were before there were names.
        let mut names = Random::new(!seed);
        cast.iter_mut().for_each(|role| role.named = names.below(2) == 0);
        let (faults, manners) = (faults(&mut random), manners(&mut random));
        let mut script = Self { faults, manners, ..Self::good(seed, cast) };
        script.settle(&mut random);
        for _ in 0..ACTS {
            if random.below(TROUBLE_ONE_IN) == 0 {
                let trouble = script.trouble(&mut random);
                script.push(trouble, &mut random);
                script.settle(&mut random);
            } else {
                let what = script.routine(&mut random);
                script.push(what, &mut random);
            }
        }
        // As the names: what else happens is what happened before disks could grow.
        let mut sizes = Random::new((!seed).rotate_left(32));
        for _ in 0..sizes.below(GROWTHS_MAX + 1) {
            let what = What::Grow(script.place(&mut sizes));
            let at = sizes.below(script.acts.len());
            script.acts.insert(at, Act { what, dice: sizes.next() });
        }
        script
    }

    /// A script in which nothing happens, and nothing badly.
    pub fn good(seed: u64, cast: Vec<Role>) -> Self {
        let (faults, manners, acts) = (Faults::default(), Manners::GOOD, Vec::new());
        Self { seed, cast, faults, manners, strike: None, job_strike: None, doom: None, acts }
    }

    /// Whether a request may fail though nobody closes a device.
    pub fn may_fail(&self) -> bool {
        let Manners { failures, short, flush_failures, .. } = self.manners;
        let calls = [Call::Map, Call::Copy].map(|call| self.faults.failures[call.index()]);
        let struck = self.strike.is_some_and(|it| matches!(it.call, Call::Map | Call::Copy));
        let drawn = failures + short + flush_failures + calls[0] + calls[1] > 0;
        drawn || struck || self.job_strike.is_some()
    }

    fn push(&mut self, what: What, random: &mut Random) {
        self.acts.push(Act { what, dice: random.next() });
    }

    /// What brings devices together again, mixed with work.
    fn settle(&mut self, random: &mut Random) {
        for _ in 0..6 + random.below(14) {
            let what = if random.below(3) == 0 { self.routine(random) } else { What::Everybody };
            self.push(what, random);
        }
    }

    fn place(&self, random: &mut Random) -> Place {
        let guest = random.below(self.cast.len());
        (guest, random.below(self.cast[guest].disks.len()))
    }

    fn routine(&self, random: &mut Random) -> What {
        let place = self.place(random);
        match random.below(100) {
            0..34 => What::Work(place, 1 + random.below(WORK_MAX)),
            34..58 => What::Listen(place),
            58..66 => What::Guest(place.0),
            66..86 => What::Workers,
            86..91 => What::Control,
            91..93 => What::ToolStack(place),
            93..96 => What::Everybody,
            96..99 => What::Pass,
            _ => What::Hold(place),
        }
    }

    fn trouble(&self, random: &mut Random) -> What {
        let place = self.place(random);
        let calls = random.below(LAST_CALLS_MAX);
        match random.below(16) {
            0..2 => What::Detach(place),
            2 => What::Change(place),
            3..5 => What::Close(place),
            5..8 => What::BackDies(calls),
            8..10 => What::BackLeaves,
            10..13 => What::GuestDies(place.0, calls),
            13 => What::PowerCut,
            _ => What::Calm,
        }
    }
}

fn role(random: &mut Random) -> Role {
    let disks = (0..1 + random.below(DISKS_MAX)).map(|_| Wishes {
        order: u32::try_from(random.below(4)).unwrap_or(0),
        pool_pages: 12 + random.below(50),
    });
    Role {
        disks: disks.collect(),
        persistent: random.below(2) == 0,
        elevator: ["noop", "deadline"][random.below(2)],
        named: false,
    }
}

/// One of `rates`, or as often none at all: what never happens hides nothing else.
fn rate(random: &mut Random, rates: &[u16]) -> u16 {
    let at = random.below(2 * rates.len());
    rates.get(at).copied().unwrap_or(0)
}

fn faults(random: &mut Random) -> Faults {
    let mut faults = Faults {
        late_watches: rate(random, &[100, 400]),
        repeated_watches: rate(random, &[100, 300]),
        spurious_watches: rate(random, &[20, 50]),
        late_events: rate(random, &[100, 400]),
        repeated_events: rate(random, &[100, 300]),
        spurious_events: rate(random, &[20, 100]),
        conflicts: rate(random, &[100, 300]),
        failures: [0; Call::COUNT],
    };
    if random.below(2) == 0 {
        for call in Call::FALLIBLE {
            // A connection takes some hundred of the first two, and one may fail.
            let rates: &[u16] = match call {
                Call::Page | Call::Grant => &[1, 3],
                Call::Copy | Call::Read | Call::Write => &[2, 10],
                _ => &[10, 50],
            };
            faults.failures[call.index()] = rate(random, rates);
        }
    }
    faults
}

fn manners(random: &mut Random) -> Manners {
    let bad = random.below(2) == 0;
    let mut seldom = |rates: &[u16]| if bad { rate(random, rates) } else { 0 };
    let (failures, short) = (seldom(&[5, 30]), seldom(&[5, 30]));
    let flush_failures = seldom(&[20, 100]);
    Manners { late: rate(random, &[50, 500]), failures, short, flush_failures }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, role) in self.cast.iter().enumerate() {
            writeln!(f, "  guest {at}: {role:?}")?;
        }
        writeln!(f, "  {:?}", self.faults)?;
        writeln!(f, "  {:?}", self.manners)?;
        for (at, Act { what, dice }) in self.acts.iter().enumerate() {
            writeln!(f, "  {at:3} {what:?} ({dice:#018x})")?;
        }
        Ok(())
    }
}
