//! Hostile peers by the million: what is written raw into a ring or into xenstore, and what must
//! come of it.
//!
//! Everything is drawn from a seed, counted, and held against something that does not share the
//! code: the oracle for requests, a model for the rest. The quick tests run a little of it; the
//! program `torture` runs it for as long as it is told.

pub mod answers;
mod attack;
mod bench;
pub mod counter;
pub mod fields;
mod flicker;
pub mod indexes;
mod lender;
pub mod orders;
pub mod pages;
pub mod plan;
mod report;
pub mod requests;
pub mod silly;
pub mod wild;
mod yard;

pub use attack::Attack;
pub use flicker::Flicker;
pub use report::Tally;
pub use wild::Slot;
