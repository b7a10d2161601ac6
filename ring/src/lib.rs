//! Memory shared with a peer that is not trusted, and the two ways to pass messages in it.
//!
//! A shared page is words that either side may change at any moment ([`Memory`], [`Page`]); it is
//! never bytes behind a reference. Two protocols live in such pages:
//!
//! * the block ring of `xen/include/public/io/ring.h`: requests go one way and responses the
//!   other in the same slots. [`Front`] and [`Back`] are mirrors with the verbs `take`, `put`,
//!   `publish` and `rest`;
//! * the byte rings of the console and of xenstore (`io/console.h`, `io/xs_wire.h`):
//!   [`bytes::Sender`] and [`bytes::Receiver`].
//!
//! What the peer writes is an allegation. Its index is read once per look and accepted only within
//! what can be outstanding; anything else is [`Broken`], which ends that one ring. Our own indexes
//! are private and are never read back. No function here blocks, allocates, or panics on what a
//! peer wrote.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(loom)]
extern crate std;

mod back;
pub mod bytes;
mod front;
mod index;
mod memory;
mod slots;
pub mod sync;

pub use back::Back;
pub use front::Front;
pub use index::{Broken, Index};
pub use memory::{Memory, PAGE_SIZE, PAGE_WORDS, Page, load_pages, store_pages};
pub use slots::{HEADER_WORDS, Layout, Reader};

/// Tells whether the peer asked to be woken for what has just become visible.
#[must_use = "a peer that asked to be woken sleeps until it is"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notify {
    /// The peer sleeps on its event: send one.
    Needed,
    /// The peer is awake, or asked to be woken later.
    Spared,
}

/// Tells whether the ring is empty now that the event is armed.
#[must_use = "a message that arrived while the event was being armed raises no event"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Nothing to take; the next message will raise an event.
    Idle,
    /// A message arrived meanwhile: take again before sleeping.
    Work,
}

/// The ring has no free slot; nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;
