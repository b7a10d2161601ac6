//! Tests of the xenstore client against a small store in memory and against nonsense.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod client;
mod connection;
mod memory;
