//! What two elevators, one on top of the other, do to the time that writes wait: in virtual time.
//!
//! Each of some guests has a backlog of writers; each writer begins its next write when its last one
//! has ended. A write waits until the guest's elevator has room for it, and there until the ring has a
//! free slot; it goes with its batch, and in that order, through a back that passes everything on (as
//! `blkback` does), waits in the host's elevator, and is done by a modelled disk. Its wait is all of that.
//! The same machine tells in [`fairness`](crate::fairness) what guests of other kinds take from each other.
//!
//! The elevators are the production ones of [`blkfront`], in the guest and in the host: `deadline`
//! has the rules and the numbers of Linux's `mq-deadline`.
//!
//! Not in the model: the processor's time for any of it, flushes, write caches, plugging, and guests that
//! come and go. With a backlog that is always there, a mean wait is a throughput too, by Little's law. It
//! never looks at a clock: a seed gives the same figures everywhere.

mod disks;
mod machine;
mod study;

pub use disks::Model;
pub use machine::{Ended, Load, Pattern, Scene, Seen, run};
pub use study::{Case, Cell, Order, Row, Setting, cases, study};
