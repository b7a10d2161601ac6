//! Disks, served from Dom0: a library and the `blkback` program.
//!
//! * [`Session`]: the data plane of one connected disk, over the seam and a [`disk::Disk`];
//! * [`connect`] and [`Control`]: the control plane, a pure function and the loop around it;
//! * [`trace`]: what passes through the rings, written into a file;
//! * [`Workers`], [`serve_device`] and [`sys`]: a process per device, and the device nodes of Dom0;
//! * [`attach`], [`resize`], [`DiskSpec`]: what the tool stack does, for disks of this backend.
//!
//! What a guest says is checked before it is used; one bad guest costs one device. Unsafe code is
//! in [`sys`] only.

pub mod attach;
mod bell;
mod claim;
mod confine;
pub mod connect;
mod control;
pub mod crew;
mod device;
mod directory;
pub mod disk;
mod folders;
mod image;
mod orders;
mod process;
pub mod rejoin;
pub mod resize;
#[cfg(test)]
mod said;
#[cfg(test)]
mod scratch;
mod session;
mod spec;
pub mod sys;
pub mod trace;
pub mod vdev;
mod worker;
mod xenbus;

pub use bell::Bell;
pub use claim::{Claim, DEFAULT_PATH, Taken};
pub use confine::daemon as confine_daemon;
pub use control::Control;
pub use device::serve_device;
pub use directory::{DeviceId, KIND, Wish, base, devices, own_domain};
pub use folders::{DEFAULT_FOLDERS, Folders};
pub use image::{Image, OpenError};
pub use process::Program;
pub use session::{
    Buffer, Counters, Fault, Lent, Link, MERGED_EXTENTS_MAX, PAGES_IN_FLIGHT_MAX, Past, Queue,
    RingPages, Session, Turn,
};
pub use spec::{DiskSpec, SpecError};
pub use worker::Workers;
pub use xenbus::Xenbus;
