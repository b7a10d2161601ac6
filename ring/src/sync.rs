//! The atomic word and the fence that every shared page is made of.
//!
//! Exists so that loom can put its own in place (`--cfg loom`) and explore every order of the two
//! sides' accesses. It must never offer anything wider or narrower than 32 bits: accesses of
//! mixed sizes to one location have no defined meaning.

#[cfg(loom)]
mod clocks;

#[cfg(loom)]
pub use clocks::{AtomicU32, Clock, Ordering, fence, hand_over, take_over};
#[cfg(not(loom))]
pub use core::sync::atomic::{AtomicU32, Ordering, fence};
