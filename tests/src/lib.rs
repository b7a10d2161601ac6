//! Stories told to all of the above, on the simulator and on real Xen.
//!
//! What the stories share: a disk whose medium the teller holds ([`Platter`]), and peers that say
//! anything ([`RawFront`], [`RawBack`]), made of the ring alone so that no check of ours stands
//! between them and the wire; traces of real runs, played again ([`replay`]); hostile peers by the
//! million ([`torture`]); and what must hold for any bytes ([`fuzz`]).
#![forbid(unsafe_code)]

mod choices;
mod crew;
mod duel;
pub mod fuzz;
mod guest;
mod hooked;
mod house;
mod ledger;
mod liar;
mod medium;
pub mod oracle;
mod pages;
mod platter;
mod plug;
mod raw_back;
mod raw_front;
pub mod replay;
mod score;
pub mod script;
mod service;
mod tale;
mod toolstack;
pub mod torture;
mod trial;
mod versions;
mod world;

pub use choices::Choices;
pub use crew::SimCrew;
pub use duel::Duel;
pub use guest::Guest;
pub use hooked::{Hook, Hooked, Plain};
pub use ledger::Ledger;
pub use liar::Liar;
pub use pages::Pages;
pub use platter::{Harm, Manners, Platter, SeededDisk};
pub use raw_back::RawBack;
pub use raw_front::RawFront;
pub use score::{End, Score};
pub use script::Script;
pub use service::{Service, join, serve};
pub use tale::{Outcome, Tale};
pub use toolstack::Wanted;
pub use trial::{Failure, shrink, tried};
pub use world::{KEEP, World, survives};
