//! Disks, served from Dom0: a library and the `blkback` program.

mod bell;
pub mod disk;
mod image;
#[cfg(test)]
mod scratch;
pub mod sys;

pub use bell::Bell;
pub use image::{Image, OpenError};
