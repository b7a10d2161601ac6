//! A disk, seen from the guest.
#![no_std]
