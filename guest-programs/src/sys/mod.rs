//! The way to the kernel: system calls, the first instruction, and the memory that they give.
//!
//! The only module of the programs with `unsafe` in it; `calls` says what each call means.
#![allow(unsafe_code, reason = "system calls, and the memory that they give")]

use core::slice;

use crate::Words;
use crate::calls::{Call, Refusal, TEXT_MAX, WANTED_MAX};
use crate::page::WORDS;

#[cfg(target_os = "none")]
mod entry;

/// Names the program's function, `fn(Words) -> Status`.
#[macro_export]
macro_rules! program {
    ($main:path) => {
        #[cfg(not(target_os = "none"))]
        fn main() {
            // Only the guest has the calls; here the function is named so that it is checked.
            let _: fn($crate::Words) -> $crate::Status = $main;
        }

        #[cfg(target_os = "none")]
        const _: () = {
            #[allow(unsafe_code, reason = "the entry finds the program by this name")]
            #[unsafe(no_mangle)]
            extern "Rust" fn program_main(words: $crate::Words) -> $crate::Status {
                $main(words)
            }
        };
    };
}

/// Makes a call.
///
/// # Safety
/// What the call writes is the caller's to be written.
#[cfg(target_os = "none")]
unsafe fn call(call: Call, [first, second, third, fourth]: [u64; 4]) -> Result<u64, Refusal> {
    let answer: u64;
    // SAFETY: the kernel comes back behind the instruction with everything but rax, rcx and r11
    // as it was; what it writes is the caller's promise.
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") call as u64 => answer,
            in("rdi") first,
            in("rsi") second,
            in("rdx") third,
            in("r10") fourth,
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
    let refusals =
        [Refusal::NoCall, Refusal::Argument, Refusal::NoDisk, Refusal::NoMemory, Refusal::Disk];
    let refused = refusals.into_iter().find(|&it| (it as u64).wrapping_neg() == answer);
    refused.map_or(Ok(answer), Err)
}

/// Elsewhere there is nobody to call.
///
/// # Safety
/// None is needed.
#[cfg(not(target_os = "none"))]
unsafe fn call(_: Call, _: [u64; 4]) -> Result<u64, Refusal> {
    Err(Refusal::NoCall)
}

fn address<T>(data: &[T]) -> u64 {
    data.as_ptr().addr() as u64
}

fn address_mut<T>(data: &mut [T]) -> u64 {
    data.as_mut_ptr().expose_provenance() as u64
}

/// Ends the program.
pub fn exit(status: u8) -> ! {
    loop {
        // SAFETY: the program does not run on.
        let _ = unsafe { call(Call::Exit, [u64::from(status), 0, 0, 0]) };
    }
}

/// Prints text.
pub fn print(text: &str) {
    for part in text.as_bytes().chunks(TEXT_MAX) {
        // SAFETY: nothing is written.
        let _ = unsafe { call(Call::Print, [address(part), part.len() as u64, 0, 0]) };
    }
}

/// Nanoseconds since some moment before the start.
pub fn time_ns() -> u64 {
    // SAFETY: nothing is written.
    unsafe { call(Call::Time, [0; 4]) }.unwrap_or(0)
}

/// So many pages of zeros, for good.
///
/// # Errors
/// [`Refusal::NoMemory`].
pub fn pages(count: usize) -> Result<&'static mut [[u64; WORDS]], Refusal> {
    let bytes = (count as u64).checked_mul(4096).ok_or(Refusal::NoMemory)?;
    // SAFETY: the heap gets longer; nothing that is there changes.
    let end = unsafe { call(Call::Grow, [bytes, 0, 0, 0]) }?;
    let start = usize::try_from(end - bytes).map_err(|_| Refusal::NoMemory)?;
    let start = core::ptr::with_exposed_provenance_mut(start);
    // SAFETY: the kernel just gave these pages to us, aligned and readable as zeros, and gives
    // them to nobody else.
    Ok(unsafe { slice::from_raw_parts_mut(start, count) })
}

/// Pages read from swap, written to it, dropped because their copy there was good, and in memory.
pub fn figures() -> [u64; 4] {
    let mut words = [0; 4];
    // SAFETY: four words are written.
    let _ = unsafe { call(Call::Figures, [address_mut(&mut words), 0, 0, 0]) };
    words
}

/// Says that pages will be accessed soon, so that those in swap come together. The first
/// [`WANTED_MAX`] count.
pub fn want(addresses: &[u64]) {
    let addresses = &addresses[..addresses.len().min(WANTED_MAX)];
    // SAFETY: nothing is written.
    let _ = unsafe { call(Call::Want, [address(addresses), addresses.len() as u64, 0, 0]) };
}

/// Reads a word at any address, which may be the last thing that the program does.
pub fn peek(address: usize) -> u64 {
    let place = core::ptr::with_exposed_provenance::<u64>(address);
    // SAFETY: an address that is not ours ends the program, and no harm is done by reading one
    // that is: the value is a number.
    unsafe { place.read_volatile() }
}

/// Writes a word at any address that is not the program's, which is the last thing that it does.
/// Tells whether it was not.
pub fn poke_outside(address: usize) -> bool {
    let place = core::ptr::with_exposed_provenance_mut::<u64>(address);
    // SAFETY: below the stack nothing is ours, so no memory of ours changes.
    unsafe { place.write_volatile(1) };
    false
}

/// A disk.
#[derive(Clone, Copy, Debug)]
pub struct Disk(u64);

impl Disk {
    /// The disk of this name.
    ///
    /// # Errors
    /// [`Refusal::NoDisk`].
    pub fn open(name: &str) -> Result<Self, Refusal> {
        // SAFETY: nothing is written.
        unsafe { call(Call::Disk, [address(name.as_bytes()), name.len() as u64, 0, 0]) }.map(Self)
    }

    /// Its length in sectors of 512 bytes.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn sectors(self) -> Result<u64, Refusal> {
        // SAFETY: nothing is written.
        unsafe { call(Call::Sectors, [self.0, 0, 0, 0]) }
    }

    /// Reads from `sector` on.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn read(self, sector: u64, data: &mut [u8]) -> Result<(), Refusal> {
        let arguments = [self.0, sector, address_mut(data), data.len() as u64];
        // SAFETY: so many bytes are written as `data` has.
        unsafe { call(Call::Read, arguments) }.map(drop)
    }

    /// Writes from `sector` on.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn write(self, sector: u64, data: &[u8]) -> Result<(), Refusal> {
        let arguments = [self.0, sector, address(data), data.len() as u64];
        // SAFETY: nothing is written to memory.
        unsafe { call(Call::Write, arguments) }.map(drop)
    }

    /// Makes durable what was written, if the disk can; tells whether.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn flush(self) -> Result<bool, Refusal> {
        // SAFETY: nothing is written to memory.
        unsafe { call(Call::Flush, [self.0, 0, 0, 0]) }.map(|it| it == 1)
    }
}

/// The words between the program's first address and its length, as the kernel passes them.
///
/// # Safety
/// The kernel passed both, and nobody writes there.
#[cfg_attr(not(target_os = "none"), expect(dead_code, reason = "only the guest has an entry"))]
unsafe fn words(start: *const u8, length: usize) -> Words {
    // SAFETY: the caller's promise.
    let bytes = unsafe { slice::from_raw_parts(start, length) };
    Words(core::str::from_utf8(bytes).unwrap_or(""))
}
