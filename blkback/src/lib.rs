//! Disks, served from Dom0: a library and the `blkback` program.
