//! Target `files`: see `tests/src/fuzz/files.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tests::fuzz::run("files", bytes));
