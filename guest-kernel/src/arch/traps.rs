//! Exceptions. All are bugs of ours, or of the hardware: they end the domain with a dump, unless
//! `probe` asked for them.
//!
//! Xen pushes its frame at the stack pointer that the kernel had (a PV kernel gets no other
//! stack), so an overflow of the stack cannot be reported here: Xen finds no room for the frame
//! and crashes the domain itself, which is what the guard page is for.

use core::arch::global_asm;

use x86_64::VirtAddr;
use xen::abi::{CallbackFlags, CallbackKind, CallbackOp, CallbackRegister, FLAT_CS64, Hypercall};

use super::hypercall::{Errno, hypercall};
use super::{probe, shared};
use crate::dump::{Dump, Frame, STACK_WORDS};

// One stub for each vector: rcx and r11, which Xen pushed last, go back into their registers, so
// that below the number lies an error code (a zero where the processor gives none), and below it
// rip, cs, rflags, rsp, ss. Going back, the slot of the error code becomes the flags of the iret
// hypercall.
global_asm!(
    ".macro trap vector has_error",
    "7: pop rcx",
    "pop r11",
    ".if \\has_error == 0",
    "push 0",
    ".endif",
    "push \\vector",
    "jmp trap_common",
    ".pushsection .rodata.traps, \"a\", @progbits",
    // struct trap_info: vector, flags (4: upcalls masked), code segment, address.
    ".byte \\vector, 4",
    ".short {cs}",
    ".long 0",
    ".quad 7b",
    ".popsection",
    ".endm",
    ".pushsection .rodata.traps, \"a\", @progbits",
    ".balign 8",
    ".globl trap_table",
    "trap_table:",
    ".popsection",
    ".pushsection .text.traps, \"ax\", @progbits",
    "trap 0, 0",
    "trap 1, 0",
    "trap 2, 0",
    "trap 3, 0",
    "trap 4, 0",
    "trap 5, 0",
    "trap 6, 0",
    "trap 7, 0",
    "trap 8, 1",
    "trap 10, 1",
    "trap 11, 1",
    "trap 12, 1",
    "trap 13, 1",
    "trap 14, 1",
    "trap 16, 0",
    "trap 17, 1",
    "trap 18, 0",
    "trap 19, 0",
    "trap 20, 0",
    "trap 21, 1",
    ".pushsection .rodata.traps, \"a\", @progbits",
    ".quad 0, 0",
    ".popsection",
    ".globl trap_common",
    "trap_common:",
    "cld",
    "push rax",
    "push rbx",
    "push rcx",
    "push rdx",
    "push rsi",
    "push rdi",
    "push rbp",
    "push r8",
    "push r9",
    "push r10",
    "push r11",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    // From a program: `user` goes on. The frame is in its place already.
    "test byte ptr [rsp + {cs_offset}], 3",
    "jnz user_left",
    "mov rdi, rsp",
    "mov rbx, rsp",
    "and rsp, -16",
    "call {trap}",
    "mov rsp, rbx",
    ".globl trap_leave",
    "trap_leave:",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop r11",
    "pop r10",
    "pop r9",
    "pop r8",
    "pop rbp",
    "pop rdi",
    "pop rsi",
    "pop rdx",
    "pop rcx",
    "pop rbx",
    "pop rax",
    "add rsp, 8",
    "mov qword ptr [rsp], 0",
    "push rcx",
    "push r11",
    "push rax",
    "mov eax, {iret}",
    "syscall",
    "ud2",
    // A segment that could not be loaded: rcx, r11, ds, es, fs, gs, then as above.
    ".globl failsafe",
    "failsafe:",
    "cld",
    "pop rcx",
    "pop r11",
    "add rsp, 32",
    "push 0",
    "push {failsafe}",
    "jmp trap_common",
    ".popsection",
    cs = const FLAT_CS64,
    iret = const Hypercall::Iret as u32,
    failsafe = const crate::dump::FAILSAFE,
    cs_offset = const core::mem::offset_of!(Frame, cs),
    trap = sym trap,
);

unsafe extern "C" {
    static trap_table: u8;
    static event_upcall: u8;
    static failsafe: u8;
}

/// Registers the handlers and the upcall with Xen.
pub(super) fn register() -> Result<(), Errno> {
    let table = (&raw const trap_table).addr() as u64;
    // SAFETY: the table has a stub for each vector in it and ends with zeros.
    unsafe { hypercall(Hypercall::SetTrapTable, [table, 0, 0, 0]) }?;
    set_callback(CallbackKind::Event, &raw const event_upcall)?;
    set_callback(CallbackKind::Failsafe, &raw const failsafe)
}

pub(super) fn set_callback(kind: CallbackKind, entry: *const u8) -> Result<(), Errno> {
    let argument = CallbackRegister {
        kind: kind as u16,
        flags: CallbackFlags::MASK_EVENTS,
        address: entry.addr() as u64,
    };
    let address = (&raw const argument).addr() as u64;
    // SAFETY: the entry is the stub for this kind.
    unsafe { hypercall(Hypercall::CallbackOp, [CallbackOp::Register as u64, address, 0, 0]) }
        .map(drop)
}

/// Called by the stubs with upcalls masked, on the interrupted stack.
extern "C" fn trap(frame: &mut Frame) {
    let fault_address = shared::fault_address();
    if let Some(resume) = probe::caught(frame.vector) {
        frame.rip = resume;
        return;
    }
    let dump = Dump { frame, fault_address, stack: stack_words(frame.rsp) };
    crate::crash::die(format_args!("{dump}"));
}

/// What lies at `rsp`, as far as it is in our stack.
fn stack_words(rsp: u64) -> [Option<u64>; STACK_WORDS] {
    unsafe extern "C" {
        static image_stack: u8;
        static image_stack_top: u8;
    }
    let stack = (&raw const image_stack).addr() as u64..(&raw const image_stack_top).addr() as u64;
    core::array::from_fn(|index| {
        let address = rsp.checked_add(8 * index as u64)?;
        let inside = address % 8 == 0 && stack.contains(&address);
        // SAFETY: an aligned word inside the stack, which is mapped and which nobody else writes.
        inside.then(|| unsafe { VirtAddr::new(address).as_ptr::<u64>().read_volatile() })
    })
}
