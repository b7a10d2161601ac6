//! Target `negotiation`: see `tests/src/fuzz/negotiation.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tests::fuzz::run("negotiation", bytes));
