//! The words of Xen (ABI data) and what a domain may ask of it (the seam: small traits).
//!
//! * [`abi`]: layouts and numbers of `xen/include/public/`, each checked against a C compiler;
//! * [`Grants`], [`Maps`], [`Events`], [`Store`]: the seam. Hypercalls implement it in the guest
//!   kernel, device nodes in the backend, one process with several domains in the simulator;
//! * [`store`]: a xenstore client that does no input or output itself.
//!
//! Nothing here makes a hypercall, touches a device, or reads a clock.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod abi;
mod ids;
mod seam;
pub mod store;
mod xenbus;

pub use ids::{DomainId, GrantRef, Mfn, Pfn, Port};
pub use seam::{
    Access, Direction, Events, GrantCopy, GrantError, Grants, MapError, Maps, NoPort, StillMapped,
    Store, StoreError, TRANSACTION_TRIES_MAX, Transaction, WatchEvent,
};
pub use xenbus::XenbusState;
