//! What a program can ask of the kernel, and how: `syscall` with the number of the call in `rax`
//! and its arguments in `rdi`, `rsi`, `rdx` and `r10`; the answer comes in `rax`; `rcx` and `r11`
//! are lost. Part of the kernel and of the programs alike.

/// The calls. Addresses and lengths are in bytes. An address that is not the program's ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Call {
    /// Ends the program with a status, of which 8 bits count.
    Exit = 0,
    /// Prints text: address, length of at most [`TEXT_MAX`].
    Print = 1,
    /// Makes the heap longer by so many bytes; gives the address behind it.
    Grow = 2,
    /// Gives nanoseconds since some moment before the start.
    Time = 3,
    /// Fills four words at an address: pages read from swap, written to it, dropped because their
    /// copy there was good, in memory now.
    Figures = 4,
    /// Gives a number for a disk: address and length of its name.
    Disk = 5,
    /// Gives the sectors of 512 bytes of a disk: its number.
    Sectors = 6,
    /// Reads from a disk: number, sector, address, length. A multiple of 512 up to
    /// [`TRANSFER_MAX`].
    Read = 7,
    /// Writes to a disk, in the same way.
    Write = 8,
    /// Makes durable what was written to a disk: its number. Gives 1, or 0 if the disk cannot.
    Flush = 9,
    /// Says that pages will be accessed soon: the address of their addresses, and how many, at
    /// most [`WANTED_MAX`]. Those that are in swap are read together. Gives their number.
    Want = 10,
}

impl Call {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 11] = [
        Self::Exit,
        Self::Print,
        Self::Grow,
        Self::Time,
        Self::Figures,
        Self::Disk,
        Self::Sectors,
        Self::Read,
        Self::Write,
        Self::Flush,
        Self::Want,
    ];
}

/// Why a call was refused: the answer is the negative of this number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i64)]
pub enum Refusal {
    /// There is no such call.
    NoCall = 1,
    /// An argument makes no sense.
    Argument = 2,
    /// There is no such disk.
    NoDisk = 3,
    /// There is not so much address space, or not the memory to keep account of it.
    NoMemory = 4,
    /// The disk failed.
    Disk = 5,
}

/// The most pages of one [`Call::Want`].
pub const WANTED_MAX: usize = 32;
/// The longest text of one call.
pub const TEXT_MAX: usize = 4096;
/// The longest transfer of one call: what a block request carries.
pub const TRANSFER_MAX: usize = 11 * 4096;
