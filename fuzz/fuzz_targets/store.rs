//! Target `store`: see `tests/src/fuzz/store.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tests::fuzz::run("store", bytes));
