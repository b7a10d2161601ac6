//! What an exception looks like on the console.
//!
//! Data and words only: `arch` fills it in.

use core::fmt;

use x86_64::structures::idt::PageFaultErrorCode;

/// Words of the stack that are shown.
pub const STACK_WORDS: usize = 24;
/// Stands for Xen's failsafe callback where a vector is meant.
pub const FAILSAFE: u64 = 0x100;
/// Stands for an event where a vector is meant.
pub const EVENT: u64 = 0x101;
/// Stands for a system call where a vector is meant.
pub const SYSCALL: u64 = 0x102;

/// Registers as the assembly stubs push them, lowest address first.
#[derive(Clone, Debug, Default)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are the processor's")]
pub struct Frame {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rbp: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rdx: u64,
    pub rcx: u64,
    pub rbx: u64,
    pub rax: u64,
    pub vector: u64,
    pub error_code: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

/// An exception, to be printed.
#[derive(Debug)]
pub struct Dump<'a> {
    /// The registers.
    pub frame: &'a Frame,
    /// Where the last page fault was (`cr2`).
    pub fault_address: u64,
    /// What lies on the stack, from the stack pointer up; `None` beyond its end.
    pub stack: [Option<u64>; STACK_WORDS],
}

/// The vector of a page fault.
pub const PAGE_FAULT: u64 = 14;

/// What an exception is called.
pub fn name(vector: u64) -> &'static str {
    match vector {
        0 => "divide error",
        1 => "debug exception",
        2 => "non-maskable interrupt",
        3 => "breakpoint",
        4 => "overflow",
        5 => "bound range exceeded",
        6 => "invalid opcode",
        7 => "device not available",
        8 => "double fault",
        10 => "invalid TSS",
        11 => "segment not present",
        12 => "stack fault",
        13 => "general protection fault",
        PAGE_FAULT => "page fault",
        16 => "x87 error",
        17 => "alignment check",
        18 => "machine check",
        19 => "SIMD error",
        20 => "virtualisation exception",
        21 => "control protection fault",
        FAILSAFE => "failsafe callback",
        _ => "unknown exception",
    }
}

/// What a page fault was about, from its error code.
fn page_fault(error_code: u64) -> (&'static str, &'static str) {
    let code = PageFaultErrorCode::from_bits_retain(error_code);
    let verb = if code.contains(PageFaultErrorCode::INSTRUCTION_FETCH) {
        "executing"
    } else if code.contains(PageFaultErrorCode::CAUSED_BY_WRITE) {
        "writing"
    } else {
        "reading"
    };
    let mapped = code.contains(PageFaultErrorCode::PROTECTION_VIOLATION);
    (verb, if mapped { "not permitted" } else { "not mapped" })
}

/// What a page fault was about, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageFault {
    /// As the processor pushed it.
    pub error_code: u64,
    /// `cr2`.
    pub fault_address: u64,
}

impl fmt::Display for PageFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (verb, why) = page_fault(self.error_code);
        write!(f, "{verb} {:#x}: {why}", self.fault_address)
    }
}

impl fmt::Display for Dump<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let r = self.frame;
        write!(f, "{} at {:#x}, error code {:#x}", name(r.vector), r.rip, r.error_code)?;
        if r.vector == PAGE_FAULT {
            let fault_address = self.fault_address;
            write!(f, ": {}", PageFault { error_code: r.error_code, fault_address })?;
        }
        writeln!(f)?;
        let lines = [
            [("rax", r.rax), ("rbx", r.rbx), ("rcx", r.rcx), ("rdx", r.rdx)],
            [("rsi", r.rsi), ("rdi", r.rdi), ("rbp", r.rbp), ("rsp", r.rsp)],
            [("r8 ", r.r8), ("r9 ", r.r9), ("r10", r.r10), ("r11", r.r11)],
            [("r12", r.r12), ("r13", r.r13), ("r14", r.r14), ("r15", r.r15)],
            [("cs ", r.cs), ("ss ", r.ss), ("flg", r.rflags), ("cr2", self.fault_address)],
        ];
        for line in lines {
            for (name, value) in line {
                write!(f, " {name} {value:016x}")?;
            }
            writeln!(f)?;
        }
        f.write_str(" stack")?;
        for (index, word) in self.stack.iter().flatten().enumerate() {
            let lead = if index > 0 && index % 4 == 0 { "\n       " } else { " " };
            write!(f, "{lead}{word:016x}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::string::ToString;

    use super::*;

    #[test]
    fn a_page_fault_says_what_was_tried_and_where() {
        let frame = Frame { vector: 14, error_code: 3, rip: 0x1234, ..Frame::default() };
        let text = Dump { frame: &frame, fault_address: 0x5000, stack: [None; STACK_WORDS] };
        let text = text.to_string();
        let first = text.lines().next().expect("a line");
        assert_eq!(first, "page fault at 0x1234, error code 0x3: writing 0x5000: not permitted");
        assert!(text.contains("cr2 0000000000005000"));
    }

    #[test]
    fn other_exceptions_have_their_names_and_no_address() {
        let frame = Frame { vector: 6, ..Frame::default() };
        let text = Dump { frame: &frame, fault_address: 9, stack: [None; STACK_WORDS] }.to_string();
        assert!(text.starts_with("invalid opcode at 0x0, error code 0x0\n"), "{text}");
    }

    #[test]
    fn the_stack_is_shown_four_words_a_line() {
        let frame = Frame::default();
        let mut stack = [None; STACK_WORDS];
        for (index, word) in stack.iter_mut().take(5).enumerate() {
            *word = Some(index as u64);
        }
        let text = Dump { frame: &frame, fault_address: 0, stack }.to_string();
        let tail: std::vec::Vec<_> = text.lines().rev().take(2).collect();
        assert_eq!(tail[0], "       0000000000000004");
        assert!(tail[1].starts_with(" stack 0000000000000000 0000000000000001"));
    }

    #[test]
    fn each_kind_of_page_fault_is_told_apart() {
        assert_eq!(page_fault(0), ("reading", "not mapped"));
        assert_eq!(page_fault(2), ("writing", "not mapped"));
        assert_eq!(page_fault(0x15), ("executing", "not permitted"));
    }
}
