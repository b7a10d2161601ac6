//! Hostile peers by the million: what is written raw into a ring or into xenstore, and what must
//! come of it.
//!
//! Everything is drawn from a seed, counted, and held against something that does not share the
//! code: the oracle for requests, a model for the rest.

pub mod counter;
pub mod fields;
mod flicker;
pub mod indexes;
pub mod wild;

pub use flicker::Flicker;
pub use wild::Slot;
