//! Stories told to all of the above, on the simulator and on real Xen.
//!
//! What the stories share: a disk whose medium the teller holds ([`Platter`]), and peers that say
//! anything ([`RawFront`], [`RawBack`]), made of the ring alone so that no check of ours stands
//! between them and the wire.
#![forbid(unsafe_code)]

mod crew;
mod ledger;
mod liar;
pub mod oracle;
mod pages;
mod plain;
mod platter;
mod raw_back;
mod raw_front;
mod toolstack;
pub mod torture;
mod world;

pub use crew::SimCrew;
pub use ledger::Ledger;
pub use liar::Liar;
pub use pages::Pages;
pub use plain::Plain;
pub use platter::{Platter, SeededDisk};
pub use raw_back::RawBack;
pub use raw_front::RawFront;
pub use toolstack::Wanted;
pub use world::{Guest, KEEP, World};
