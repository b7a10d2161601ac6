//! Accesses that may fault, on purpose: whether page rights hold, and what a crash looks like.

use core::arch::global_asm;
use core::sync::atomic::{AtomicBool, AtomicU8, Ordering};

/// What is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    /// Reads a byte.
    Read,
    /// Reads a byte and writes it back.
    Write,
    /// Jumps there; a byte 0xc3 (`ret`) must be there in case it works.
    Execute,
}

// Leaf functions without a frame, so that going on at `probe_caught` returns to their caller.
// They touch rax only, which the caller gives up anyway.
global_asm!(
    ".pushsection .text.probe, \"ax\", @progbits",
    "probe_read: mov al, [rdi]",
    "xor eax, eax",
    "ret",
    "probe_write: mov al, [rdi]",
    "mov [rdi], al",
    "xor eax, eax",
    "ret",
    "probe_execute: xor eax, eax",
    "jmp rdi",
    "probe_caught: mov eax, 1",
    "probe_return: ret",
    ".popsection",
);

unsafe extern "C" {
    fn probe_read(address: u64) -> u32;
    fn probe_write(address: u64) -> u32;
    fn probe_execute(address: u64) -> u32;
    static probe_caught: u8;
}

/// Page fault.
const PAGE_FAULT: u64 = 14;

static PROBING: AtomicBool = AtomicBool::new(false);

/// Tells whether the access is permitted.
///
/// # Safety
/// If it is permitted, it does no harm: the byte is the kernel's own, and is a `ret` if it is to
/// be executed.
unsafe fn probe(access: Access, address: u64) -> bool {
    let probe = match access {
        Access::Read => probe_read,
        Access::Write => probe_write,
        Access::Execute => probe_execute,
    };
    PROBING.store(true, Ordering::SeqCst);
    // SAFETY: a fault goes on at `probe_caught`; otherwise the caller's promise.
    let faulted = unsafe { probe(address) };
    PROBING.store(false, Ordering::SeqCst);
    faulted == 0
}

/// Where to go on after this exception, if a probe caused it.
pub(super) fn caught(vector: u64) -> Option<u64> {
    let probing = PROBING.swap(false, Ordering::SeqCst);
    (probing && vector == PAGE_FAULT).then(|| (&raw const probe_caught).addr() as u64)
}

/// Checks on the machine itself that each part of the image has the rights that `layout` says,
/// and no more: a return instruction as code, as constant and as data, the guard page, address 0.
///
/// # Errors
/// What does not hold.
pub(crate) fn check_rights() -> Result<(), &'static str> {
    const RETURN: u8 = 0xc3;
    static CONSTANT: u8 = RETURN;
    static DATA: AtomicU8 = AtomicU8::new(RETURN);
    unsafe extern "C" {
        static probe_return: u8;
        static image_guard: u8;
    }
    let code = (&raw const probe_return).addr() as u64;
    let constant = (&raw const CONSTANT).addr() as u64;
    let data = DATA.as_ptr().addr() as u64;
    let guard = (&raw const image_guard).addr() as u64;
    let expected = [
        (Access::Read, code, true, "code cannot be read"),
        (Access::Write, code, false, "code can be written"),
        (Access::Execute, code, true, "code cannot be executed"),
        (Access::Read, constant, true, "constants cannot be read"),
        (Access::Write, constant, false, "constants can be written"),
        (Access::Execute, constant, false, "constants can be executed"),
        (Access::Read, data, true, "data cannot be read"),
        (Access::Write, data, true, "data cannot be written"),
        (Access::Execute, data, false, "data can be executed"),
        (Access::Read, guard, false, "the page below the stack is mapped"),
        (Access::Write, 0, false, "address 0 is mapped"),
    ];
    for (access, address, permitted, otherwise) in expected {
        // SAFETY: the bytes are returns of the kernel's own that nobody else uses, or, in the two
        // pages without a mapping, at worst memory that nobody uses.
        if unsafe { probe(access, address) } != permitted {
            return Err(otherwise);
        }
    }
    Ok(())
}

/// Makes a page fault that nobody catches.
pub(crate) fn fault() {
    // SAFETY: the first page is not mapped, so this ends the domain; if it were, it reads a byte.
    unsafe { probe_read(0) };
}
