//! Disks, served from Dom0: a library and the `blkback` program.

mod bell;
pub mod disk;
mod image;
#[cfg(test)]
mod scratch;
mod session;
pub mod sys;

pub use bell::Bell;
pub use image::{Image, OpenError};
pub use session::{Buffer, Counters, Fault, Link, MERGED_EXTENTS_MAX, RingPages, Session, Turn};
