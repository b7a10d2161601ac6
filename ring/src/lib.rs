//! Memory shared with a peer that is not trusted, and the two ways to pass messages in it.
#![no_std]
