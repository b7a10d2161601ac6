//! The smallest PV kernel that can use a disk, and the programs in it.
#![no_std]
