//! The first instruction, and the last word of a program that panics.

use core::arch::global_asm;

use crate::{Status, Words};

// `rdi` and `rsi` have the address and the length of the words; the stack ends below them.
global_asm!(
    ".globl _start",
    "_start:",
    "xor ebp, ebp",
    "and rsp, -16",
    "call {start}",
    "ud2",
    start = sym start,
);

unsafe extern "Rust" {
    fn program_main(words: Words) -> Status;
}

extern "C" fn start(text: *const u8, length: usize) -> ! {
    // SAFETY: the kernel passes its words, at the top of the stack.
    let words = unsafe { super::words(text, length) };
    // SAFETY: every program has this function, by `program!`.
    let status = unsafe { program_main(words) };
    super::exit(status)
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    crate::say!("{info}");
    super::exit(134)
}
