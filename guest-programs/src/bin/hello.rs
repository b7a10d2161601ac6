//! `hello`: says so, and on request does what a program must not do.
#![cfg_attr(target_os = "none", no_std, no_main)]

use guest_programs::{Status, Words, program, say, sys};

program!(hello);

/// A page in the middle of the kernel's memory, at the address where the kernel has it.
const KERNEL: usize = 0x20_0000;
/// The first address of the machine's table of frames, which Xen shows to kernels.
const FRAME_TABLE: usize = 0xffff_8000_0000_0000;
/// Below the stack of every program.
const BELOW: usize = 0x80_0000_0000;

fn hello(words: Words) -> Status {
    match words.iter().nth(1) {
        None => {
            let name = words.iter().next().unwrap_or("hello");
            say!("hello from {name}, in an address space of its own");
            0
        }
        Some("status") => words.iter().nth(2).and_then(|it| it.parse().ok()).unwrap_or(2),
        Some("loop") => loop {
            core::hint::spin_loop();
        },
        Some("wild") => u8::from(!sys::poke_outside(BELOW)),
        Some("kernel") => {
            say!("the kernel can be read: {}", sys::peek(KERNEL));
            1
        }
        Some("frames") => {
            say!("the table of frames can be read: {}", sys::peek(FRAME_TABLE));
            1
        }
        Some("code") => {
            let code = hello as fn(Words) -> Status as usize;
            u8::from(!sys::poke_outside(code))
        }
        Some("deep") => u8::from(deep(0) == 0),
        Some("panic") => panic!("asked to"),
        Some(other) => {
            say!("hello: no such word: {other}");
            2
        }
    }
}

/// Uses up the stack.
#[expect(unconditional_recursion, reason = "that is what it is for")]
fn deep(depth: u64) -> u64 {
    let frame = core::hint::black_box([depth; 64]);
    deep(depth + 1) + frame[0]
}
