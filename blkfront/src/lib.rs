//! A disk, seen from the guest.
//!
//! * [`connect::step`]: the handshake with the back as a pure function;
//! * [`Device`]: carries its steps out against xenstore, grants and events;
//! * [`Disk`]: what a device becomes while it is connected: `submit`, `kick`, `poll`, `rest`;
//! * [`Local`]: a disk without a back, served in this kernel by a [`Medium`];
//! * [`elevator`]: in which order a disk's requests go down, chosen by name;
//! * [`Buffer`]: pages for one request, from a pool that is granted once and for the life of the
//!   connection. A buffer moves in with its request and comes back with its completion.
//!
//! Nothing here waits or reads a clock. In steady state nothing allocates, takes a lock, or makes
//! a grant: a request costs its words in the ring, and a batch at most one event.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod completion;
pub mod connect;
mod counters;
mod descriptors;
mod device;
mod disk;
pub mod elevator;
mod inflight;
mod lane;
mod lender;
mod loading;
mod local;
mod offered;
mod pool;
mod slots;

#[cfg(test)]
mod fake;

pub use blkif::DiskName;
pub use completion::{Completion, Refused};
pub use counters::Counters;
pub use device::{Device, DeviceError, Wishes};
pub use disk::Disk;
pub use inflight::Tag;
pub use lane::{Fault, SubmitError};
pub use lender::{Lender, Lent, SetupError};
pub use local::{LOCAL_SLOTS, Local, Medium};
pub use pool::{BUFFER_BYTES_MAX, Buffer, POOL_PAGES_MAX};
