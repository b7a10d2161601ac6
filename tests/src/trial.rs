//! Tells a tale and catches how it fails; makes a failing script as short as it can be.

use std::cell::RefCell;
use std::fmt;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::time::{Duration, Instant};

use sim::{Call, Faults};

use crate::script::{Act, Script};
use crate::{Manners, Outcome, Tale};

/// How a tale failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What the assertion says.
    pub message: String,
    /// Where it stands.
    pub place: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.place)
    }
}

thread_local! {
    /// The panic of the tale that this thread tells, if it tells one.
    static CAUGHT: RefCell<Option<Option<Failure>>> = const { RefCell::new(None) };
}

/// Has panics of tales noted and not printed.
fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            let tells = CAUGHT.with_borrow_mut(|caught| {
                let Some(caught) = caught else { return false };
                let message = panic.payload_as_str().unwrap_or("a panic without words").to_owned();
                let place = panic.location().map(ToString::to_string).unwrap_or_default();
                // What panics while another one unwinds follows from that.
                caught.get_or_insert(Failure { message, place });
                true
            });
            if !tells {
                usual(panic);
            }
        }));
    });
}

/// Tells a tale.
///
/// # Errors
/// How it failed.
pub fn tried(script: &Script) -> Result<Outcome, Failure> {
    listen();
    CAUGHT.set(Some(None));
    let told = catch_unwind(AssertUnwindSafe(|| Tale::tell(script)));
    let caught = CAUGHT.take().flatten();
    told.map_err(|_| {
        let place = String::new();
        caught.unwrap_or(Failure { message: "somebody died who was not to".into(), place })
    })
}

/// The shortest script found within `limit` that `fails`, from one that does: without acts, faults,
/// and guests that it does not need.
pub fn shrink(script: &Script, limit: Duration, fails: impl FnMut(&Script) -> bool) -> Script {
    let mut search = Search { best: script.clone(), fails, until: Instant::now() + limit };
    let mut length = usize::MAX;
    // What is taken out may make something else superfluous.
    while search.best.acts.len() < length {
        length = search.best.acts.len();
        search.without_acts();
        search.without_faults();
        search.without_guests();
    }
    search.best
}

struct Search<F> {
    best: Script,
    fails: F,
    until: Instant,
}

impl<F: FnMut(&Script) -> bool> Search<F> {
    /// Keeps a script that fails.
    fn fails(&mut self, script: Script) -> bool {
        if Instant::now() >= self.until || script == self.best {
            return false;
        }
        let fails = (self.fails)(&script);
        if fails {
            self.best = script;
        }
        fails
    }

    /// Takes out runs of acts, halves first, single ones last.
    fn without_acts(&mut self) {
        let mut size = self.best.acts.len().div_ceil(2);
        while size > 0 {
            let mut from = 0;
            while from < self.best.acts.len() {
                let to = (from + size).min(self.best.acts.len());
                let mut script = self.best.clone();
                script.acts.drain(from..to);
                if !self.fails(script) {
                    from = to;
                }
            }
            size /= 2;
        }
    }

    fn without_faults(&mut self) {
        let good = Faults::default();
        let quiet: [fn(&mut Faults, Faults); 7] = [
            |faults, good| faults.late_watches = good.late_watches,
            |faults, good| faults.repeated_watches = good.repeated_watches,
            |faults, good| faults.spurious_watches = good.spurious_watches,
            |faults, good| faults.late_events = good.late_events,
            |faults, good| faults.repeated_events = good.repeated_events,
            |faults, good| faults.spurious_events = good.spurious_events,
            |faults, good| faults.conflicts = good.conflicts,
        ];
        for quiet in quiet {
            let mut script = self.best.clone();
            quiet(&mut script.faults, good);
            self.fails(script);
        }
        for call in Call::FALLIBLE {
            let mut script = self.best.clone();
            script.faults.failures[call.index()] = 0;
            self.fails(script);
        }
        let manners = self.best.manners;
        for manners in [
            Manners::GOOD,
            Manners { late: 0, ..manners },
            Manners { failures: 0, ..manners },
            Manners { short: 0, ..manners },
            Manners { flush_failures: 0, ..manners },
        ] {
            let script = Script { manners, ..self.best.clone() };
            self.fails(script);
        }
    }

    /// Takes out guests and disks from behind, with all their acts, and names.
    fn without_guests(&mut self) {
        for guest in (1..self.best.cast.len()).rev() {
            let mut script = self.best.clone();
            script.cast.truncate(guest);
            self.fails(played(script));
        }
        for guest in 0..self.best.cast.len() {
            let mut script = self.best.clone();
            script.cast[guest].disks.truncate(1);
            self.fails(played(script));
            let mut script = self.best.clone();
            script.cast[guest].named = false;
            self.fails(script);
        }
    }
}

/// A script without the acts that have nobody to play them.
fn played(mut script: Script) -> Script {
    let cast = script.cast.clone();
    script.acts.retain(|Act { what, .. }| {
        let (guest, disk) = what.place();
        cast.get(guest).is_some_and(|role| disk < role.disks.len())
    });
    script
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::What;

    #[test]
    fn a_script_shrinks_to_what_it_fails_by() {
        let fails = |script: &Script| {
            let acts = script.acts.iter().map(|act| act.what);
            let mut after =
                acts.skip_while(|what| !matches!(what, What::Work(place, _) if place.0 == 1));
            script.manners.late > 0 && after.any(|what| matches!(what, What::Listen(_)))
        };
        let seed = (0..).find(|&seed| fails(&Script::of(seed))).expect("one of them");
        let small = shrink(&Script::of(seed), Duration::from_secs(60), fails);
        assert!(matches!(small.acts[0].what, What::Work((1, _), _)));
        assert!(matches!(small.acts[1].what, What::Listen(_)));
        assert_eq!((small.acts.len(), small.cast.len()), (2, 2));
        assert_eq!(small.faults, Faults::default());
        assert_eq!(small.manners, Manners { late: small.manners.late, ..Manners::GOOD });
    }

    #[test]
    fn a_failing_tale_says_where_and_the_thread_goes_on() {
        // Nobody is there to play it.
        let mut script = Script::of(1);
        script.acts[0].what = What::Guest(99);
        let failure = tried(&script).expect_err("it fails");
        assert!(failure.place.contains("tale.rs"), "{failure}");
        assert!(tried(&Script::of(1)).is_ok());
    }
}
