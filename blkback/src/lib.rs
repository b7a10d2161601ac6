//! Disks, served from Dom0: a library and the `blkback` program.
//!
//! * [`Session`]: the data plane of one connected disk, over the seam and a [`disk::Disk`];
//! * [`connect`] and [`Control`]: the control plane, a pure function and the loop around it;
//! * [`Workers`] and [`sys`]: the device nodes of Dom0 and the threads that work on them;
//! * [`attach`], [`DiskSpec`]: what the tool stack does, for disks of this backend.
//!
//! What a guest says is checked before it is used; one bad guest costs one device. Unsafe code is
//! in [`sys`] only.

pub mod attach;
mod bell;
mod claim;
pub mod connect;
mod control;
pub mod crew;
mod directory;
pub mod disk;
mod image;
pub mod rejoin;
#[cfg(test)]
mod said;
#[cfg(test)]
mod scratch;
mod session;
mod spec;
pub mod sys;
pub mod vdev;
mod worker;
mod xenbus;

pub use bell::Bell;
pub use claim::{Claim, DEFAULT_PATH, Taken};
pub use control::Control;
pub use directory::{DeviceId, KIND, Wish, base, devices, own_domain};
pub use image::{Image, OpenError};
pub use session::{
    Buffer, Counters, Fault, Link, MERGED_EXTENTS_MAX, Past, RingPages, Session, Turn,
};
pub use spec::{DiskSpec, SpecError};
pub use worker::Workers;
pub use xenbus::Xenbus;
