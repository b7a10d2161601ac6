//! `cargo xtask …`: set-up, the lab (QEMU + Xen + Dom0), demo, tests, benchmarks.
