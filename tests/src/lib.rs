//! Stories told to all of the above, on the simulator and on real Xen.
#![forbid(unsafe_code)]
