//! Target `back`: see `tests/src/fuzz/back.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tests::fuzz::run("back", bytes));
