//! Target `request`: see `tests/src/fuzz/request.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tests::fuzz::run("request", bytes));
