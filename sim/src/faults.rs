//! What the simulated machine does badly on purpose, and how large it is.
//!
//! The fault model, in words. All of it is legal for Xen and xenstored, and each fault is drawn
//! from the simulator's one seed:
//!
//! * a fired **watch** comes late, again, in any order among others, or for nothing at all;
//! * an **event** comes late, again, or unsent; many that were sent before one is taken are one;
//! * a **call** fails: no page, no grant, no port, no room to map, one copy of many, xenstore that
//!   has no room or no memory. It fails at random, or at the n-th call of a kind, once or from then
//!   on ([`Strike`]). What fails has done nothing;
//! * a **transaction** conflicts with nothing;
//! * a **program or a domain dies** at any of its calls ([`Sim::doom`](crate::Sim::doom)): the call
//!   is not done, and what it would have done after it neither;
//! * **power** is cut ([`Sim::restart`](crate::Sim::restart)): domains, their memory and all that
//!   xenstore holds are gone at once.
//!
//! What it does not do: it never loses an event or a watch (neither does Xen), never damages memory
//! or a value, never breaks xenstored or its connections, and never lets time go back. What gives
//! something back (a grant, a port, a watch) never fails for nothing, and no death is half a death:
//! whatever a program held is taken back before anybody else has a turn. No domain is saved, moved or
//! paused, and none changes its size. Everybody
//! runs on one thread, so that what one domain writes to a shared page the other sees at once:
//! orderings of memory are the business of loom and Miri (`ring/tests`), not of this.

use xen::DomainId;

use crate::Call;

/// How late what is late comes at most, in ticks of the [`Clock`](crate::Clock).
pub(crate) const LATE_MAX: usize = 200;

/// How often, in 1000, each fault happens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// A fired watch takes its time.
    pub late_watches: u16,
    /// A fired watch is delivered and stays, to be delivered again.
    pub repeated_watches: u16,
    /// A watch fires though nothing has changed.
    pub spurious_watches: u16,
    /// An event takes its time.
    pub late_events: u16,
    /// An event is taken and comes again.
    pub repeated_events: u16,
    /// An event arrives that nobody sent.
    pub spurious_events: u16,
    /// A transaction conflicts with nothing at all.
    pub conflicts: u16,
    /// A call that may fail fails.
    pub failures: [u16; Call::COUNT],
}

impl Faults {
    /// Everything that delays and nothing that fails for good, each once in four times.
    pub const MANY: Self = Self {
        late_watches: 250,
        repeated_watches: 250,
        spurious_watches: 50,
        late_events: 250,
        repeated_events: 250,
        spurious_events: 250,
        conflicts: 250,
        failures: [0; Call::COUNT],
    };
}

/// Whether a [`Strike`] hits once or without end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spell {
    /// The n-th call only.
    Once,
    /// The n-th call and all after it.
    FromThenOn,
}

/// The n-th call of a kind fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strike {
    /// Whose call.
    pub who: DomainId,
    /// Which call; one that cannot fail is never hit.
    pub call: Call,
    /// How many of them pass before.
    pub after: u64,
    /// Once, or from then on.
    pub spell: Spell,
}

/// What was done badly so far, by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Watches that came late.
    pub late_watches: u64,
    /// Watches that came again.
    pub repeated_watches: u64,
    /// Watches that came for nothing.
    pub spurious_watches: u64,
    /// Events that came late.
    pub late_events: u64,
    /// Events that came again.
    pub repeated_events: u64,
    /// Events that nobody had sent.
    pub spurious_events: u64,
    /// Events sent while one was pending.
    pub merged_events: u64,
    /// Transactions that conflicted with nothing.
    pub conflicts: u64,
    /// Calls that failed, by [`Call`].
    pub failures: [u64; Call::COUNT],
    /// Programs and domains that died at a call.
    pub deaths: u64,
}

impl Tally {
    /// Every kind by its name, and how often it happened.
    pub fn kinds(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let own = [
            ("late watch", self.late_watches),
            ("repeated watch", self.repeated_watches),
            ("watch for nothing", self.spurious_watches),
            ("late event", self.late_events),
            ("repeated event", self.repeated_events),
            ("unsent event", self.spurious_events),
            ("merged event", self.merged_events),
            ("conflict", self.conflicts),
            ("death at a call", self.deaths),
        ];
        let calls = Call::FALLIBLE.map(|call| (call.failure(), self.failures[call.index()]));
        own.into_iter().chain(calls)
    }
}

/// How much of everything each domain has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Pages that a domain can have at once.
    pub pages: usize,
    /// Entries of a grant table, the 8 reserved ones included. Xen's default: 64 frames of 512.
    pub grants: u32,
    /// Pages of others that a domain can have mapped at once. The default is that of Linux's
    /// gntdev, which is below Xen's.
    pub mappings: usize,
    /// Event channel ports, the reserved port 0 included. Xen: 4096 with the 2-level ABI.
    pub ports: u32,
    /// Nodes that a domain other than 0 may own in xenstore.
    pub nodes: usize,
    /// Watches of a domain other than 0.
    pub watches: usize,
    /// Open transactions of a domain other than 0.
    pub transactions: usize,
    /// Calls of all domains after which one is too many: somebody asks without end.
    pub calls: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            pages: 65_536,
            grants: 64 * 512,
            mappings: 65_536,
            ports: 4096,
            nodes: 1000,
            watches: 128,
            transactions: 10,
            calls: u64::MAX,
        }
    }
}
