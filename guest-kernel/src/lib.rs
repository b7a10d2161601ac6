//! The smallest PV kernel that can use a disk, and the programs in it.
//!
//! * `arch` touches the machine, and is the only module with `unsafe` in it;
//! * `boot` brings the kernel up and hands a `Kernel` to the programs: time,
//!   waiting, console, grants, events, xenstore, shutdown;
//! * `commands` is what the console and the kernel command line can ask for;
//! * the rest is pure and is tested on the host: [`layout`], [`frames`], [`ports`], [`time`],
//!   [`command_line`], [`line`](mod@line), [`dump`], [`cpu`], and with a machine to play on the
//!   [`programs`] with their [`pattern`], the [`volumes`] of their disks and the [`files`] there;
//!   and what is in the file of one of the [`modules`].
//!
//! The kernel has one virtual processor, one address space and one thread. It waits in one place
//! (`events`), panics only about its own mistakes, and aborts when it does.
//!
//! Built for `x86_64-unknown-none`; for any other target there is only what is pure.
#![no_std]

extern crate alloc;

pub mod blktest;
pub mod command_line;
pub mod cpu;
pub mod dump;
pub mod files;
pub mod frames;
pub mod layout;
pub mod line;
pub mod modules;
pub mod pattern;
pub mod ports;
pub mod programs;
pub mod sysctl;
pub mod time;
pub mod timeline;
pub mod user;
pub mod volumes;

#[cfg(target_os = "none")]
mod arch;
#[cfg(target_os = "none")]
pub mod boot;
#[cfg(target_os = "none")]
pub mod commands;
#[cfg(target_os = "none")]
#[macro_use]
pub mod console;
#[cfg(target_os = "none")]
mod crash;
#[cfg(target_os = "none")]
pub mod events;
#[cfg(target_os = "none")]
pub mod grants;
#[cfg(target_os = "none")]
mod insmod;
#[cfg(target_os = "none")]
pub mod kernel;
#[cfg(target_os = "none")]
mod machine;
#[cfg(target_os = "none")]
mod memory;
#[cfg(target_os = "none")]
mod process;
#[cfg(target_os = "none")]
mod selfcheck;
#[cfg(target_os = "none")]
pub mod store;
#[cfg(target_os = "none")]
mod tunables;

#[cfg(target_os = "none")]
pub use arch::OwnedPage;
