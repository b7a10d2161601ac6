//! Target `elf`: see `tests/src/fuzz/elf.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tests::fuzz::run("elf", bytes));
