//! The block protocol as values: bytes in, meanings out, and back.
#![no_std]
