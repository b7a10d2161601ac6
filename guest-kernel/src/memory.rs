//! `free`, `memmap`, `balloon` and `memory`: what the guest's memory is used for, and how much of
//! it there is.
//!
//! The guest has what it was started with, and that stays so: it never gives memory back because
//! somebody outside wishes it (`memory/target` in xenstore is not even read), only when its own
//! user says so.

use alloc::string::String;

use crate::kernel::{Kernel, Status};
use crate::programs::arguments::size;
use crate::user::swap::Area;
use crate::{arch, programs};

/// Bytes of a frame, in KiB.
const FRAME_KIB: u64 = 4;

/// `free`: a table as of Linux's, and what is behind "used".
pub(crate) fn free(kernel: &Kernel, _: &[String]) -> Status {
    let figures = arch::memory_figures();
    let granted = kernel.grants().figures().used as u64;
    let used = figures.total - figures.free;
    let kib = |frames: u64| frames * FRAME_KIB;
    println!("{:<8}{:>12}{:>12}{:>12}", "KiB", "total", "used", "free");
    println!("{:<8}{:>12}{:>12}{:>12}", "Mem:", kib(figures.total), kib(used), kib(figures.free));
    if let Some(swap) = kernel.swap.borrow().as_ref().map(Area::figures) {
        let [total, used] = [swap.total, swap.used].map(|pages| kib(u64::from(pages)));
        println!("{:<8}{total:>12}{used:>12}{:>12}", "Swap:", total - used);
    }
    let other = used.saturating_sub(figures.heap + figures.tables + granted);
    println!(
        "used: {} heap, {} page tables, {} granted to other domains, {} kernel and others",
        kib(figures.heap),
        kib(figures.tables),
        kib(granted),
        kib(other)
    );
    Status::OKAY
}

/// `memmap`: what lies where, and what Xen counts.
pub(crate) fn map(_: &Kernel, _: &[String]) -> Status {
    println!("{:<21} {:>9}  use", "frames", "KiB");
    for (frames, purpose) in arch::regions() {
        let (first, last) = (frames.start, frames.end - 1);
        let kib = (frames.end - frames.start) * FRAME_KIB;
        println!("{first:#010x}-{last:#010x} {kib:>9}  {purpose}");
    }
    let figures = arch::memory_figures();
    let [total, mapped, free] =
        [figures.total, figures.mapped, figures.free].map(|it| it * FRAME_KIB);
    println!("total {total} KiB, mapped up to {mapped} KiB, free {free} KiB");
    match arch::reservation() {
        Ok((now, most)) => {
            let [now, most] = [now, most].map(|frames| frames.saturating_mul(FRAME_KIB));
            println!("Xen: {now} KiB are reserved for this guest, at most {most} KiB");
            Status::OKAY
        }
        Err(error) => {
            println!("memmap: Xen does not tell the reservation: {error}");
            Status::FAILED
        }
    }
}

/// `balloon`: gives memory back to Xen or gets it again.
pub(crate) fn balloon(kernel: &Kernel, words: &[String]) -> Status {
    let [word] = words else {
        println!("usage: balloon SIZE: {}", kernel.memory());
        return Status::USAGE;
    };
    let Some(frames) = size(word).map(|bytes| bytes / 4096).filter(|&frames| frames > 0) else {
        println!("balloon: {word}: not a size like 16M");
        return Status::USAGE;
    };
    let result = arch::balloon(frames);
    let total = kernel.memory().total_kib;
    match result {
        Ok(()) => {
            println!("balloon: the guest has {total} KiB");
            Status::OKAY
        }
        Err(error) => {
            println!("balloon: {error}; the guest has {total} KiB");
            Status::FAILED
        }
    }
}

/// Gives memory back until the guest has what `mem=` on the kernel command line says, if anything:
/// the user's own word, as `balloon` is.
pub(crate) fn heed_command_line(kernel: &Kernel) {
    if let Some(word) = kernel.command_line().value("mem") {
        kernel.note(balloon(kernel, &[String::from(word)]));
    }
}

/// `memory`: how much there is; `memory touch` uses all of it.
pub(crate) fn memory(kernel: &Kernel, words: &[String]) -> Status {
    match words.split_first() {
        None => {
            println!("{}", kernel.memory());
            Status::OKAY
        }
        Some((verb, rest)) if verb == "touch" => {
            kernel.program("memory", programs::touch::run, rest)
        }
        Some(_) => {
            println!("usage: memory [touch [SECONDS]]");
            Status::USAGE
        }
    }
}
