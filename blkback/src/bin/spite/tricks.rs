//! What a back without manners does: one trick a run.

use std::thread;
use std::time::Duration;

use blkif::Response;
use clap::ValueEnum;
use xen::{Store, Transaction, XenbusState};

use crate::stage::{Result, Stage, Wire};

/// The word of the ring's header that the back produces in (`xen/include/public/io/ring.h`).
const RSP_PROD: usize = 2;
/// Events without an answer.
const STORM: u32 = 20_000;
/// So far back that it is wrong even if the front has not taken the last answers yet.
const BACK: u32 = 100;

/// A trick.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Trick {
    /// Answer with an id that nobody has asked with
    UnknownId,
    /// Answer the same request twice
    Twice,
    /// Answer with another operation
    WrongOperation,
    /// Answer with a status that there is not, then serve on
    WrongStatus,
    /// Claim more answers than there are requests
    Overflow,
    /// Take answers back
    Backwards,
    /// Never answer again
    Silence,
    /// Raise events without an answer, then serve on
    Storm,
    /// Overwrite the whole ring
    Garbage,
    /// Close in the midst of it and keep every page mapped
    Keep,
    /// Say one state after another, in no order
    States,
    /// Say that the disk has another size, and silly ones, in service
    Resize,
    /// Publish a disk that cannot be
    Geometry,
    /// Take the directory away
    Vanish,
}

impl Trick {
    /// For the tricks that come before a connection: plays it and tells that it did.
    pub(super) fn instead_of_connecting(self, stage: &Stage) -> Result<bool> {
        if self != Self::Geometry {
            return Ok(false);
        }
        let come = [XenbusState::Initialised, XenbusState::Connected];
        if !stage.comes_to(&come, stage.patience)? {
            return Err("the front does not come".into());
        }
        stage.say("sectors", "18446744073709551615")?;
        stage.say("sector-size", "3")?;
        stage.say("info", "-1")?;
        stage.state(XenbusState::Connected)?;
        Ok(true)
    }

    /// Plays it on a ring in service.
    pub(super) fn play(self, stage: &Stage, wire: &mut Wire) -> Result<()> {
        match self {
            Self::UnknownId => lie(stage, wire, |it| Response { id: !it.id, ..it }),
            Self::WrongOperation => lie(stage, wire, |it| Response { operation: 77, ..it }),
            Self::Twice => {
                let raw = wire.next(stage)?;
                let answer = wire.done(&raw);
                wire.put(answer);
                // In the slot of the next one, whatever was asked there.
                wire.next(stage)?;
                wire.put(answer);
                Ok(())
            }
            Self::WrongStatus => {
                let raw = wire.next(stage)?;
                let mut words = wire.done(&raw).words(blkif::Abi::X86_64).to_vec();
                words[2] = u32::from(raw.operation) | 0x7fff << 16;
                wire.put_words(&words);
                wire.serve(stage, u64::MAX)
            }
            Self::Overflow => jump(wire, 1000),
            Self::Backwards => jump(wire, 0_u32.wrapping_sub(BACK)),
            Self::Silence => wire.next(stage).map(drop),
            Self::Storm => {
                (0..STORM).for_each(|_| wire.notify());
                wire.serve(stage, u64::MAX)
            }
            Self::Garbage => {
                (0..wire.words()).for_each(|at| wire.poke(at, scrambled(at)));
                wire.notify();
                Ok(())
            }
            Self::Keep => {
                wire.next(stage)?;
                stage.state(XenbusState::Closed)?;
                thread::sleep(Duration::from_secs(2));
                Ok(())
            }
            Self::States => {
                for state in [3, 7, 0, 8, 1, 2, 4, 99, 4] {
                    stage.say("state", &state.to_string())?;
                    thread::sleep(Duration::from_millis(20));
                }
                wire.serve(stage, wire.served() + 8)
            }
            Self::Resize => {
                for sectors in ["0", "8", "18446744073709551615", "-1", "x", "", "16384"] {
                    stage.say("sectors", sectors)?;
                    stage.state(XenbusState::Connected)?;
                    thread::sleep(Duration::from_millis(20));
                }
                wire.serve(stage, wire.served() + 8)
            }
            Self::Vanish => Ok(stage.store.remove(Transaction::NONE, &stage.back)?),
            Self::Geometry => Ok(()),
        }
    }
}

/// Answers the next request with something else.
fn lie(stage: &Stage, wire: &mut Wire, change: impl Fn(Response) -> Response) -> Result<()> {
    let raw = wire.next(stage)?;
    let answer = wire.done(&raw);
    wire.put(change(answer));
    Ok(())
}

/// Moves the producer index so far and raises an event.
fn jump(wire: &Wire, by: u32) -> Result<()> {
    wire.poke(RSP_PROD, wire.peek(RSP_PROD).wrapping_add(by));
    wire.notify();
    Ok(())
}

/// A number that means nothing.
fn scrambled(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(0).wrapping_mul(0x9e37_79b9) ^ 0x5a5a_a5a5
}
