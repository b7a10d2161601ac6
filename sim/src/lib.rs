//! Xen in one process, with one seed.
