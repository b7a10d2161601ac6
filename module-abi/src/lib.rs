//! What a kernel module and the kernel say to each other.
//!
//! A module is one relocatable object of x86-64 (`ET_REL`). It defines the symbol [`ENTRY`], a
//! [`Module`]: who it is, for which version of this interface it was built, and two functions.
//! Everything that it leaves undefined must be one of the [`EXPORTS`] of the kernel. The kernel
//! refuses another version or another symbol, and names it.
//!
//! From there on both sides hand each other tables of functions ([`ElevatorTable`],
//! [`CommandTable`], [`BlockTable`]). They are `#[repr(C)]`, hold no Rust type whose layout may change, and are
//! read once, at registration. Registrations end with the module: the kernel takes them back.
//!
//! The rules of a call, both ways: the C calling convention of x86-64 without vector registers
//! and without a red zone (the target `x86_64-unknown-none`); one thread; no call waits; a module
//! that panics ends the guest. **A module is trusted as the kernel itself is**: it is code at the
//! kernel's privilege, loaded by the administrator. What is checked is that it fits, not that it
//! means well.
//!
//! A module in Rust needs none of this: it implements [`Plugin`] and [`Elevator`] or
//! [`BlockDevice`], and names itself in `module!`. `modules/sstf` and `modules/ramdisk` are two.
#![no_std]

use core::ffi::c_void;
use core::fmt;

mod block;

/// Turns the traits below into tables, and the kernel's exports into safe functions. The only
/// file with `unsafe` in it.
#[cfg(target_os = "none")]
mod sys;

pub use block::{BlockDevice, BlockTable, DONE, FAILED, Failed, TRANSFER_SECTORS_MAX};
#[cfg(target_os = "none")]
pub use sys::{Console, Heap, Registry, fail, start, stop};

/// The symbol that every module defines: a [`Module`].
pub const ENTRY: &str = "pvblk_module";
/// The first word of a [`Module`].
pub const MAGIC: u64 = u64::from_le_bytes(*b"pvblkmod");
/// The version of this interface. It goes up with any change of what is in this crate.
pub const VERSION: u32 = 2;
/// Bytes of a module's name.
pub const NAME_BYTES: usize = 24;
/// Bytes of the name of what a module registers; at most.
pub const WORD_MAX: usize = 24;
/// Bytes of a line that describes something; at most.
pub const LINE_MAX: usize = 96;
/// Words that a command or an `init` is called with; more are refused by the kernel.
pub const WORDS_MAX: usize = 32;

/// What a module may leave undefined.
///
/// | Symbol | Type |
/// |---|---|
/// | `pvblk_print` | `fn(&Text)`: prints, without a line end of its own |
/// | `pvblk_panic` | `fn(&Text) -> !`: ends the guest; the text is the module's name |
/// | `pvblk_allocate` | `fn(size: usize, align: usize) -> *mut u8`: null when memory is short. Whole pages, aligned to 4096, come out of the guest's memory and go back there; anything else is a part of the kernel's heap |
/// | `pvblk_free` | `fn(*mut u8, size: usize, align: usize)`: with the numbers of the allocation |
/// | `pvblk_register_elevator` | `fn(&ElevatorTable) -> u32`: a [`Refused`], 0 if it was taken |
/// | `pvblk_register_command` | `fn(&CommandTable) -> u32`: the same |
/// | `pvblk_register_block` | `fn(&BlockTable) -> u32`: the same |
/// | `memcpy` `memmove` `memset` `memcmp` `bcmp` | as in C |
pub const EXPORTS: [&str; 12] = [
    "pvblk_print",
    "pvblk_panic",
    "pvblk_allocate",
    "pvblk_free",
    "pvblk_register_elevator",
    "pvblk_register_command",
    "pvblk_register_block",
    "memcpy",
    "memmove",
    "memset",
    "memcmp",
    "bcmp",
];

/// Who a module is. The kernel reads the first three fields before it runs anything of it.
#[derive(Debug)]
#[repr(C)]
pub struct Module {
    /// [`MAGIC`].
    pub magic: u64,
    /// The [`VERSION`] that it was built with.
    pub version: u32,
    /// 0.
    pub reserved: u32,
    /// UTF-8, filled up with zeros.
    pub name: [u8; NAME_BYTES],
    /// Registers what the module brings; a [`Refused`], or 0 if it is to stay. Called with the
    /// `count` words that stand behind the file's name in `insmod FILE WORD…`.
    pub init: extern "C" fn(words: *const Text, count: usize) -> u32,
    /// The module's last call: what it registered is gone already.
    pub exit: extern "C" fn(),
}

/// Text in memory: UTF-8, which may be empty but not null.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Text {
    /// Its first byte.
    pub start: *const u8,
    /// Bytes.
    pub length: usize,
}

impl Text {
    /// The text of a string that stays.
    pub const fn new(text: &str) -> Self {
        Self { start: text.as_ptr(), length: text.len() }
    }
}

/// Why the kernel does not take what a module registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Refused {
    /// There is something of this name.
    NameTaken = 1,
    /// A name is empty, too long, not UTF-8, or has a space in it; that of a block device is to be
    /// letters and then digits.
    BadName = 2,
    /// Registrations are taken while `init` runs, and not at any other time.
    NotNow = 3,
    /// The module itself does not want to stay, and has printed why.
    Unwilling = 4,
    /// There are as many as can be.
    TooMany = 5,
    /// No block device has so many sectors.
    BadSize = 6,
    /// Memory is short.
    NoMemory = 7,
}

impl Refused {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::NameTaken,
        Self::BadName,
        Self::NotNow,
        Self::Unwilling,
        Self::TooMany,
        Self::BadSize,
        Self::NoMemory,
    ];

    /// The one of this number.
    pub fn from_code(code: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|&it| it as u32 == code)
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NameTaken => "the name is taken",
            Self::BadName => "not a good name",
            Self::NotNow => "registered at the wrong time",
            Self::Unwilling => "the module does not want to stay",
            Self::TooMany => "there are as many as can be",
            Self::BadSize => "not a good size",
            Self::NoMemory => "not enough memory",
        })
    }
}

/// A request in an elevator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Entry {
    /// The kernel's own name for it: any number, different from that of all other entries that
    /// the elevator has.
    pub key: u64,
    /// Where it starts, in sectors of 512 bytes.
    pub sector: u64,
    /// How long it is, in sectors of 512 bytes; never 0.
    pub sectors: u64,
    /// One of [`READ`] and [`WRITE`]. Nothing else ever waits in an elevator.
    pub operation: u32,
    /// 0.
    pub reserved: u32,
    /// When it came, in ns of the system time.
    pub arrived_ns: u64,
}

/// [`Entry::operation`]: reads the disk.
pub const READ: u32 = 0;
/// [`Entry::operation`]: writes the disk.
pub const WRITE: u32 = 1;

/// The functions of an elevator. `state` is what `create` gave; nobody else uses it.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct ElevatorTable {
    /// What users call it: at most [`WORD_MAX`] bytes.
    pub name: Text,
    /// Makes the state for one disk; null when memory is short.
    pub create: extern "C" fn() -> *mut c_void,
    /// Ends it, with all entries that are left in it: nobody waits for them any more.
    pub destroy: extern "C" fn(state: *mut c_void),
    /// Takes an entry.
    pub add: extern "C" fn(state: *mut c_void, entry: &Entry),
    /// Gives the entry that goes to the disk next: 1 if `entry` was written, 0 if there is none
    /// now. Every entry comes back once.
    pub next: extern "C" fn(state: *mut c_void, now_ns: u64, entry: &mut Entry) -> u32,
    /// When to ask `next` again though nothing has happened, in ns of the system time; [`NEVER`]
    /// unless it holds entries back.
    pub due: extern "C" fn(state: *mut c_void) -> u64,
}

/// What [`ElevatorTable::due`] says if there is no need.
pub const NEVER: u64 = u64::MAX;

/// A command of the shell.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct CommandTable {
    /// What is typed: at most [`WORD_MAX`] bytes.
    pub name: Text,
    /// What follows the name, for `help`: at most [`WORD_MAX`] bytes.
    pub arguments: Text,
    /// What it does, in one line of at most [`LINE_MAX`] bytes.
    pub about: Text,
    /// Runs it with `count` words behind the name; gives its exit status, 0 to 255.
    pub run: extern "C" fn(words: *const Text, count: usize) -> u32,
}

/// A module in Rust.
pub trait Plugin {
    /// Registers what the module brings. `words` stand behind the file's name in `insmod`.
    ///
    /// # Errors
    /// What the kernel did not take; then the module is not loaded.
    #[cfg(target_os = "none")]
    fn init(registry: &mut Registry, words: &[&str]) -> Result<(), Refused>;
}

/// An elevator in Rust, for one disk.
pub trait Elevator {
    /// What users call it.
    const NAME: &'static str;

    /// Without entries.
    fn new() -> Self;

    /// Takes an entry.
    fn add(&mut self, entry: Entry);

    /// The entry that goes to the disk next, if one is to go now. Every entry comes back once.
    fn next(&mut self, now_ns: u64) -> Option<Entry>;

    /// When to ask again though nothing has happened: only for an elevator that holds entries
    /// back.
    fn due(&self) -> Option<u64> {
        None
    }
}

/// A command in Rust.
#[derive(Clone, Copy, Debug)]
pub struct Help {
    /// What is typed.
    pub name: &'static str,
    /// What follows the name.
    pub arguments: &'static str,
    /// What it does, in one line.
    pub about: &'static str,
}

/// A command in Rust.
pub trait Command {
    /// What `help` says of it.
    const HELP: Help;

    /// Runs with the words behind the name; gives the exit status.
    fn run(words: &[&str]) -> u8;
}

/// A name as a [`Module`] holds it.
///
/// # Panics
/// At build time, if it is longer than [`NAME_BYTES`].
pub const fn padded(name: &str) -> [u8; NAME_BYTES] {
    assert!(name.len() <= NAME_BYTES, "the name of a module is too long");
    let mut padded = [0; NAME_BYTES];
    let mut at = 0;
    while at < name.len() {
        padded[at] = name.as_bytes()[at];
        at += 1;
    }
    padded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_a_number_and_no_other_number_is_a_reason() {
        for code in 0..100 {
            let known = (1..=7).contains(&code);
            assert_eq!(Refused::from_code(code).map(|it| it as u32), known.then_some(code));
        }
    }
}
