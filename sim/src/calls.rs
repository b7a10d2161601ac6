//! What a program asks of the machine, call by call: each takes a tick, becomes part of the trace,
//! may fail, and may be the caller's last.

use std::panic::resume_unwind;
use std::sync::MutexGuard;

use xen::DomainId;

use crate::domain::Domain;
use crate::faults::{LATE_MAX, Spell, Strike};
use crate::state::State;

/// The kinds of calls: the verbs of the seam.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// A page of a domain's own.
    Page,
    /// A grant.
    Grant,
    /// A grant taken back. Never fails for nothing.
    Revoke,
    /// Pages mapped.
    Map,
    /// One copy of a call that copies.
    Copy,
    /// A port offered.
    Offer,
    /// A port bound.
    Bind,
    /// An event sent. Never fails.
    Notify,
    /// A port closed. Never fails.
    Close,
    /// An event taken. Never fails.
    TakeEvent,
    /// A node read.
    Read,
    /// A directory listed.
    List,
    /// A node written.
    Write,
    /// A node removed.
    Remove,
    /// A node's permissions set.
    Permit,
    /// A watch registered.
    Watch,
    /// A watch ended. Never fails for nothing.
    Unwatch,
    /// A fired watch taken. Never fails.
    Event,
    /// A transaction begun.
    Begin,
    /// A transaction ended. Fails only as a conflict.
    End,
}

impl Call {
    /// How many kinds there are.
    pub const COUNT: usize = 20;

    /// The kinds that may fail, besides transactions that conflict.
    pub const FALLIBLE: [Self; 13] = [
        Self::Page,
        Self::Grant,
        Self::Map,
        Self::Copy,
        Self::Offer,
        Self::Bind,
        Self::Read,
        Self::List,
        Self::Write,
        Self::Remove,
        Self::Permit,
        Self::Watch,
        Self::Begin,
    ];

    /// The kind as a number, for tables.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// What its failure is called.
    pub const fn failure(self) -> &'static str {
        match self {
            Self::Page => "no page",
            Self::Grant => "no grant",
            Self::Map => "map failed",
            Self::Copy => "copy failed",
            Self::Offer => "no port to offer",
            Self::Bind => "no port to bind",
            Self::Read => "xenstore read failed",
            Self::List => "xenstore list failed",
            Self::Write => "xenstore write failed",
            Self::Remove => "xenstore remove failed",
            Self::Permit => "xenstore permit failed",
            Self::Watch => "xenstore watch failed",
            Self::Begin => "xenstore begin failed",
            Self::End => "conflict",
            Self::Revoke
            | Self::Notify
            | Self::Close
            | Self::TakeEvent
            | Self::Unwatch
            | Self::Event => "never fails",
        }
    }
}

/// What a death at a call takes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doom {
    /// The program: [`Sim::crash`](crate::Sim::crash).
    Program,
    /// The domain: [`Sim::kill`](crate::Sim::kill).
    Domain,
}

/// What unwinds through a program that died at a call. Whoever runs it catches that, and drops
/// what is left of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Died(pub DomainId);

/// A death to come.
pub(crate) struct Fate {
    pub(crate) who: DomainId,
    /// How many calls it has left.
    pub(crate) calls: u64,
    pub(crate) doom: Doom,
}

/// Mixes a value into a trace (the finisher of SplitMix64, see `random.rs`).
pub(crate) const fn mixed(trace: u64, value: u64) -> u64 {
    let z = (trace ^ value).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z ^ (z >> 29)
}

impl Domain {
    /// The machine, for one call, if this program runs still. At the last call of a program that is
    /// doomed it unwinds.
    pub(crate) fn call(&self, call: Call) -> Option<MutexGuard<'_, State>> {
        let mut state = self.alive()?;
        state.clock.pass(1);
        state.calls += 1;
        let endless = state.calls > state.limits.calls;
        assert!(!endless || std::thread::panicking(), "calls without end");
        state.note(u64::from(self.id.0) << 8 | call as u64);
        if state.fate.is_some() && state.is_last(self.id) {
            drop(state);
            resume_unwind(Box::new(Died(self.id)));
        }
        Some(state)
    }
}

impl State {
    /// Makes a value part of the trace.
    pub(crate) fn note(&mut self, value: u64) {
        self.trace = mixed(self.trace, value);
    }

    /// Whether a call of `who` is its last; then it is dead already.
    fn is_last(&mut self, who: DomainId) -> bool {
        let Some(fate) = self.fate.as_mut().filter(|fate| fate.who == who) else { return false };
        // Two at a time would end the process.
        if fate.calls > 0 || std::thread::panicking() {
            fate.calls = fate.calls.saturating_sub(1);
            return false;
        }
        let doom = fate.doom;
        self.fate = None;
        self.tally.deaths += 1;
        match doom {
            Doom::Program => self.release(who),
            Doom::Domain => self.bury(who),
        }
        true
    }

    /// Whether a call of `who` fails for no reason of its own.
    pub(crate) fn fails(&mut self, who: DomainId, call: Call) -> bool {
        let rate = self.faults.failures[call.index()];
        let failed = self.is_struck(who, call) || self.draws(rate);
        if failed {
            self.tally.failures[call.index()] += 1;
            self.note(1);
        }
        failed
    }

    fn is_struck(&mut self, who: DomainId, call: Call) -> bool {
        let aimed = |strike: &&mut Strike| (strike.who, strike.call) == (who, call);
        let Some(strike) = self.strike.as_mut().filter(aimed) else { return false };
        if strike.after > 0 {
            strike.after -= 1;
            return false;
        }
        if strike.spell == Spell::Once {
            self.strike = None;
        }
        true
    }

    /// True in `rate` of 1000 calls; a rate of 0 takes nothing from the stream.
    pub(crate) fn draws(&mut self, rate: u16) -> bool {
        rate > 0 && self.random.chance(rate)
    }

    /// When something that happens now is heard of, if `rate` of 1000 are late; and whether it is.
    pub(crate) fn heard(&mut self, rate: u16) -> (u64, bool) {
        let late = self.draws(rate);
        let delay = if late { 1 + self.random.below(LATE_MAX) as u64 } else { 0 };
        (self.clock.now() + delay, late)
    }
}
