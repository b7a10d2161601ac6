//! Target `elf`: files of kernel modules and of programs, built by the rules and then damaged.
//!
//! A module that is taken has its parts on pages of their own, its functions in its code, and no
//! byte of another place changed; a program that is taken lies in its file and in the window, and no
//! page of it is both writable and executable.

mod module;
mod program;

use super::Share;
use super::choices::Choices;

const HEADER_BYTES: usize = 64;
const PAGE_BYTES: u64 = 4096;

pub(super) fn check(bytes: &[u8]) -> Share {
    let mut choices = Choices::new(bytes);
    let taken = match choices.below(32) {
        0..16 => module::check(&mut choices),
        16..31 => program::check(&mut choices),
        // As they are.
        _ if choices.valid() => module::load(choices.rest(), 0x40_0000),
        _ => program::run(choices.rest()),
    };
    Share::one(taken)
}

fn short(number: usize) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}

/// The header of an ELF file for x86-64 of this type.
fn header(kind: u16) -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(HEADER_BYTES, 0);
    file[16..18].copy_from_slice(&kind.to_le_bytes());
    file[18..20].copy_from_slice(&62_u16.to_le_bytes());
    file[20..24].copy_from_slice(&1_u32.to_le_bytes());
    file[52..54].copy_from_slice(&64_u16.to_le_bytes());
    file
}
