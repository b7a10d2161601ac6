//! Target `ring`: see `tests/src/fuzz/ring.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tests::fuzz::run("ring", bytes));
