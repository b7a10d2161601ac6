//! Target `command_line`: see `tests/src/fuzz/command_line.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tests::fuzz::run("command_line", bytes));
