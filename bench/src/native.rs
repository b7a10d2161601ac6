//! The pair without Xen: front and back as two threads of one process, beside the same work in other
//! hands, on the same machine in the same minutes.
//!
//! What an I/O costs in time can only be told beside somebody else's: [`statistics`] says when the
//! machine was too busy to tell. What is counted (instructions, system calls, notifications) is exact.
//! Grants and hypercalls cost nothing here: those are counted on real Xen.

pub mod callgrind;
pub mod cores;
mod figure;
mod handshake;
mod load;
mod pair;
mod plot;
mod raw;
pub mod rings;
mod seam;
pub mod statistics;
mod study;

pub use figure::{Figure, table};
pub use load::{Block, Load};
pub use pair::{Counted, Pair};
pub use plot::plot;
pub use raw::Raw;
pub use study::{Measure, Measured, Place, all};
