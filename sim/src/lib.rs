//! Xen in one process, with one seed.
//!
//! Several domains share a [`Sim`]; a [`Domain`] is one of them as its own code sees it, and
//! implements the whole seam: [`xen::Grants`], [`xen::Maps`], [`xen::Events`], [`xen::Store`]. The
//! drivers run on it unchanged. It is stricter than Xen:
//!
//! * what a peer can cause is an error, as on Xen. What only our own mistake can cause (a page
//!   freed while granted, a grant revoked twice, a port used after it was closed) panics and says
//!   so: on Xen it would be corruption some time later;
//! * names are reused at once (grant references, ports), so that a stale one is met early;
//! * watch events come in no order, and with [`Faults`] late, twice, or for nothing;
//! * [`Sim::audit`] tells what was never given back.
//!
//! It never waits, sleeps, starts a thread or reads a clock: the same seed and the same calls give
//! the same answers. It does not see a store through a mapping of a read-only grant, which on a
//! real machine is a page fault; only the mapping call itself is held against the grant.
#![forbid(unsafe_code)]

mod audit;
mod calls;
mod clock;
mod domain;
mod events;
mod faults;
mod grants;
mod maps;
mod paths;
mod random;
mod state;
mod store;
mod tree;
mod xenstore;

pub use audit::Audit;
pub use calls::{Call, Died, Doom};
pub use clock::Clock;
pub use domain::Domain;
pub use faults::{Faults, Limits, Spell, Strike, Tally};
pub use grants::OwnPage;
pub use maps::MappedPage;
pub use random::Random;
pub use state::Sim;
