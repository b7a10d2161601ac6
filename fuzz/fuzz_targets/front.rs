//! Target `front`: see `tests/src/fuzz/front.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tests::fuzz::run("front", bytes));
