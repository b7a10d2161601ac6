//! A xenstore client (`docs/misc/xenstore.txt`, `io/xs_wire.h`) in two layers.
//!
//! * [`Client`] is the protocol without input or output: it turns requests into bytes, and bytes,
//!   however they are cut, into replies and watch events;
//! * [`Connection`] drives a `Client` over a [`Transport`] and is a [`Store`](crate::Store): the
//!   guest's transport is a byte ring and an event channel, the backend's a device node.
//!
//! Xenstore is trusted more than a peer, but it speaks for peers: every length and number from it
//! is checked, queues are bounded, and nonsense ends the connection and nothing else.

mod client;
mod connection;
mod events;
mod wire;

pub use client::{Client, REQUESTS_MAX, RequestId};
pub use connection::{Connection, LIST_BYTES_MAX, LIST_TRIES_MAX, Transport, TransportError};
pub use events::EVENTS_MAX;
