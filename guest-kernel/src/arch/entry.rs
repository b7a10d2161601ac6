//! Where Xen enters the kernel: the ELF notes, the first instructions, the upcall.
//!
//! `xen/include/public/elfnote.h` and `arch-x86/xen-x86_64.h`. There is no hypercall page
//! (XSA-466): hypercalls are made inline.

use core::arch::global_asm;

use xen::abi::{ElfNote, Hypercall, StartInfo};

use super::start::Start;
use crate::kernel::Kernel;

// The notes. LOADER must be "generic" for a guest that does not call itself linux.
global_asm!(
    ".macro note kind, value:vararg",
    ".balign 4",
    ".long 4, 3f - 2f, \\kind",
    ".asciz \"Xen\"",
    "2: \\value",
    "3: .balign 4",
    ".endm",
    ".pushsection .note.Xen, \"a\", @note",
    "note {entry}, .quad _start",
    "note {virt_base}, .quad 0",
    "note {paddr_offset}, .quad 0",
    "note {xen_version}, .asciz \"xen-3.0\"",
    "note {guest_os}, .asciz \"pvblk\"",
    concat!("note {guest_version}, .asciz \"", env!("CARGO_PKG_VERSION"), "\""),
    "note {loader}, .asciz \"generic\"",
    "note {pae_mode}, .asciz \"yes\"",
    "note {features}, .asciz \"!writable_page_tables|pae_pgdir_above_4gb\"",
    ".popsection",
    entry = const ElfNote::Entry as u32,
    virt_base = const ElfNote::VirtBase as u32,
    paddr_offset = const ElfNote::PaddrOffset as u32,
    xen_version = const ElfNote::XenVersion as u32,
    guest_os = const ElfNote::GuestOs as u32,
    guest_version = const ElfNote::GuestVersion as u32,
    loader = const ElfNote::Loader as u32,
    pae_mode = const ElfNote::PaeMode as u32,
    features = const ElfNote::Features as u32,
);

// Entered once, with `rsi` = the start info page and one page of stack: takes the time, and goes
// on on the kernel's own stack.
global_asm!(
    ".pushsection .text.entry, \"ax\", @progbits",
    ".globl _start",
    "_start:",
    "cld",
    "rdtsc",
    "shl rdx, 32",
    "or rax, rdx",
    "lea rsp, [rip + image_stack_top]",
    "xor ebp, ebp",
    "mov rdi, rsi",
    "mov rsi, rax",
    "call {enter}",
    "ud2",
    ".popsection",
    enter = sym enter,
);

// The upcall. From the kernel it is taken inside SCHEDOP_block only (`shared`), and has nothing to
// do but to return with upcalls masked again. Xen pushed rcx, r11, rip, cs, rflags, rsp, ss; the
// mask comes from the interrupt flag (bit 9) of the flags that it is returned with. From a
// program (privilege level 3 in cs), it ends the program's turn.
global_asm!(
    ".pushsection .text.entry, \"ax\", @progbits",
    ".globl event_upcall",
    "event_upcall:",
    "cld",
    "test byte ptr [rsp + 24], 3",
    "jnz user_event",
    "mov rcx, [rsp]",
    "mov r11, [rsp + 8]",
    "and qword ptr [rsp + 32], ~0x200",
    "mov qword ptr [rsp + 8], 0",
    "add rsp, 8",
    "push rcx",
    "push r11",
    "push rax",
    "mov eax, {iret}",
    "syscall",
    "ud2",
    ".popsection",
    iret = const Hypercall::Iret as u32,
);

/// The first Rust code: runs once, on Xen's boot page tables, with upcalls masked.
extern "C" fn enter(info: *const StartInfo, entry_tsc: u64) -> ! {
    // SAFETY: Xen's entry contract: `rsi` held the address of the start info page, which is
    // mapped and not written while the guest runs.
    let start = unsafe { Start::copy(info, entry_tsc) };
    // SAFETY: every image has this function, by `kernel_main!`.
    crate::boot::boot(start, |kernel| unsafe { kernel_main(kernel) })
}

unsafe extern "Rust" {
    fn kernel_main(kernel: &Kernel) -> !;
}

/// Names what an image does once its kernel is up: `fn(&Kernel) -> !`.
#[macro_export]
macro_rules! kernel_main {
    ($main:path) => {
        const _: () = {
            #[allow(unsafe_code, reason = "the entry finds the image's function by this name")]
            #[unsafe(no_mangle)]
            extern "Rust" fn kernel_main(kernel: &$crate::kernel::Kernel) -> ! {
                $main(kernel)
            }
        };
    };
}
