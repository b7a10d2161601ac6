//! A test of any block back, from inside a guest: a front that is strict with what it is told and
//! has no manners of its own, in the form of the Xen Test Framework.
//!
//! Each test connects anew, so one that the back ends for good costs no other. After each, a front
//! with manners has to be served, or the run ends: that is the promise that matters most. The last
//! line is `Test result: SUCCESS`, `SKIP`, `ERROR` or `FAILURE`, as XTF's runner reads it.
//!
//! The disk is overwritten. Nothing here uses `blkfront`: what it would refuse to write is what
//! is to be written. It must never trust what it reads, and never wait without an end.

use alloc::format;
use alloc::string::String;
use core::fmt;

use crate::programs::Machine;

mod ask;
mod place;
mod requests;
mod ring;
mod states;
mod wire;

pub use place::Place;

use wire::Wire;

/// How a test, or all of them, ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// There was nothing to test: the back does not offer it.
    Skip,
    /// The back did what the protocol says.
    Success,
    /// The test itself could not be done.
    Error,
    /// The back did what it must not do.
    Failure,
}

impl Verdict {
    /// The exit status of a guest that ends so.
    pub const fn status(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failure => 1,
            Self::Skip | Self::Error => 3,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Success => "SUCCESS",
            Self::Skip => "SKIP",
            Self::Error => "ERROR",
            Self::Failure => "FAILURE",
        })
    }
}

/// Why a test did not succeed: what was seen, in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    verdict: Verdict,
    seen: String,
}

impl Trouble {
    fn skip(seen: impl fmt::Display) -> Self {
        Self { verdict: Verdict::Skip, seen: format!("{seen}") }
    }

    fn error(seen: impl fmt::Display) -> Self {
        Self { verdict: Verdict::Error, seen: format!("{seen}") }
    }

    fn failure(seen: impl fmt::Display) -> Self {
        Self { verdict: Verdict::Failure, seen: format!("{seen}") }
    }
}

type Outcome = Result<(), Trouble>;

/// A test: its name is what must hold.
struct Test<M: Machine> {
    name: &'static str,
    run: fn(&M, &Place) -> Outcome,
}

/// All tests, the gentle ones first.
fn tests<M: Machine>() -> [Test<M>; 22] {
    let test = |name, run| Test { name, run };
    [
        test("a_full_ring_is_answered_once_each", requests::full_ring),
        test("what_was_written_is_read_back_and_nothing_beside_it", requests::written_is_read),
        test("ids_come_back_as_they_went", requests::ids),
        test("answers_carry_nothing_of_the_back", requests::padding),
        test("all_256_operations_are_answered", requests::operations),
        test("no_segments_and_12_to_255_are_refused", requests::counts),
        test("segments_that_leave_their_page_are_refused", requests::segments),
        test("requests_past_the_end_are_refused", requests::past_the_end),
        test("grants_that_are_none_are_refused", requests::grants),
        test("a_page_that_may_only_be_read_is_not_written", requests::read_only_page),
        test("a_read_only_disk_is_not_written", requests::read_only_disk),
        test("a_flush_is_done_if_it_is_offered", requests::flush),
        test("discards_past_the_end_are_refused", requests::discards),
        test("indirect_requests_are_checked_or_refused", requests::indirect),
        test("slots_of_any_words_are_answered_once_each", ring::any_words),
        test("slots_that_change_when_published_do_no_harm", ring::changing),
        test("a_producer_index_that_cannot_be_ends_that_ring_only", ring::wild_producer),
        test("indexes_of_the_back_are_its_own", ring::wild_consumer),
        test("events_without_requests_do_no_harm", ring::storm),
        test("nodes_that_make_no_sense_do_not_connect", states::silly),
        test("states_in_any_order_end_in_order", states::any_order),
        test("connections_without_end_leave_nothing", states::reconnects),
    ]
}

/// Runs the tests whose names contain one of `words` (all, if there are none) on a disk and gives
/// the verdict, which was printed.
pub fn run<M: Machine>(machine: &M, disk: Option<&str>, words: &[&str]) -> Verdict {
    machine.print(format_args!("--- Xen Test Framework ---"));
    machine.print(format_args!("Environment: PV 64bit (Long mode 4 levels)"));
    let verdict = match Place::find(machine, disk) {
        Ok(place) => {
            machine.print(format_args!("Block back of {place}: it will be overwritten"));
            all(machine, &place, words)
        }
        Err(trouble) => {
            machine.print(format_args!("{}: {}", trouble.verdict, trouble.seen));
            trouble.verdict
        }
    };
    machine.print(format_args!("Test result: {verdict}"));
    verdict
}

fn all<M: Machine>(machine: &M, place: &Place, words: &[&str]) -> Verdict {
    let chosen = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word));
    let mut worst = Verdict::Skip;
    for test in tests::<M>().into_iter().filter(|test| chosen(test.name)) {
        let begin = machine.now();
        let outcome = (test.run)(machine, place);
        let verdict = match &outcome {
            Ok(()) => Verdict::Success,
            Err(trouble) => trouble.verdict,
        };
        worst = worst.max(verdict);
        let ms = machine.now().since(begin).as_millis();
        let seen = outcome.err().map(|trouble| format!(": {}", trouble.seen)).unwrap_or_default();
        machine.print(format_args!("{verdict:<7} {} ({ms} ms){seen}", test.name));
        if let Err(trouble) = serves(machine, place) {
            machine.print(format_args!("FAILURE a front with manners, next: {}", trouble.seen));
            return Verdict::Failure;
        }
    }
    worst
}

/// A front with manners is served.
fn serves<M: Machine>(machine: &M, place: &Place) -> Outcome {
    let mut wire = Wire::open(machine, place)?;
    let page = wire.page()?;
    wire.expect_done(&ask::Ask::read(1, 0).whole(page))?;
    wire.close()
}
