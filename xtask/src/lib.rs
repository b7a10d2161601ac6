//! The lab: a real Xen with a Linux Dom0 in QEMU's software emulation, as a library.
//!
//! `cargo xtask` is a thin program over it, and the end-to-end tests use the same [`lab::Lab`]. The
//! agent in Dom0 shares [`wire`] and is built without the feature `host`.
//!
//! From the bottom: [`host`] runs programs; [`setup`], [`packages`] and [`images`] bring what a lab
//! boots from, and [`build`] our own programs; [`qemu`] is the machine, [`lab`] a booted one, and
//! [`guest`] its guests; the other modules are the tasks.

pub mod wire;

#[cfg(feature = "host")]
pub mod bench;
#[cfg(feature = "host")]
pub mod benchmarks;
#[cfg(feature = "host")]
pub mod beside;
#[cfg(feature = "host")]
pub mod bootdisk;
#[cfg(feature = "host")]
pub mod build;
#[cfg(feature = "host")]
pub mod console;
#[cfg(feature = "host")]
mod counted;
#[cfg(feature = "host")]
pub mod cpio;
#[cfg(feature = "host")]
pub mod demo;
#[cfg(feature = "host")]
pub mod disk;
#[cfg(feature = "host")]
pub mod error;
#[cfg(feature = "host")]
pub mod figures;
#[cfg(feature = "host")]
pub mod fuzz;
#[cfg(feature = "host")]
pub mod guest;
#[cfg(feature = "host")]
pub mod host;
#[cfg(feature = "host")]
pub mod idle;
#[cfg(feature = "host")]
pub mod images;
#[cfg(feature = "host")]
pub mod interrupt;
#[cfg(feature = "host")]
pub mod lab;
#[cfg(feature = "host")]
pub mod matrix;
#[cfg(feature = "host")]
pub mod measure;
#[cfg(feature = "host")]
pub mod native;
#[cfg(feature = "host")]
pub mod orders;
#[cfg(feature = "host")]
pub mod packages;
#[cfg(feature = "host")]
pub mod pattern;
#[cfg(feature = "host")]
pub mod progress;
#[cfg(feature = "host")]
pub mod qemu;
#[cfg(feature = "host")]
pub mod report;
#[cfg(feature = "host")]
pub mod run;
#[cfg(feature = "host")]
pub mod schedulers;
#[cfg(feature = "host")]
pub mod setup;
#[cfg(feature = "host")]
pub mod shell;
#[cfg(feature = "host")]
pub mod sim;
#[cfg(feature = "host")]
pub mod smoke;
#[cfg(feature = "host")]
pub mod targets;
#[cfg(feature = "host")]
pub mod test;
#[cfg(feature = "host")]
pub mod timeline;
#[cfg(feature = "host")]
pub mod torture;
