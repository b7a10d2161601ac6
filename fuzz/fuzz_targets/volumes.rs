//! Target `volumes`: see `tests/src/fuzz/volumes.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tests::fuzz::run("volumes", bytes));
