//! Running a program: loading it, answering its faults and its calls, and saying how it ended.
//!
//! The program runs to its end, or to its death; the shell waits. Whatever it does, the guest
//! lives on.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::Ordering;
use core::time::Duration;

use blkif::Operation;
use ring::PAGE_SIZE;

use crate::arch::{self, UserSpace, run_user};
use crate::dump::{self, EVENT, Frame, PAGE_FAULT, SYSCALL};
use crate::events;
use crate::kernel::{Kernel, Status};
use crate::programs::{Failure, Which};
use crate::time::Instant;
use crate::user::calls::{Call, Refusal, TEXT_MAX, TRANSFER_MAX, WANTED_MAX};
use crate::user::image::Image;
use crate::user::pager::{Access, Counters, Pager, Stop};
use crate::user::swap::{Area, Session};
use crate::user::{PAGE_BYTES, Page, STACK};

/// How long a program runs at most before the kernel looks whether it is wanted still.
const TICK: Duration = Duration::from_millis(100);
/// The longest arguments, in bytes: a page of the stack.
const ARGUMENTS_MAX: usize = PAGE_SIZE;
/// The most disks that a program has open.
const HANDLES_MAX: usize = 16;

/// What a program that is killed ends with: 128 and the number of the signal that Linux would use.
const WILD: u8 = 139;
const NO_MEMORY: u8 = 137;
const BAD_INSTRUCTION: u8 = 132;

/// How a program ended.
enum End {
    /// By itself.
    Exit(Status),
    /// By the user or the toolstack.
    Interrupted(Failure),
    /// Not by itself: why, and the status.
    Killed(String, u8),
}

type Halt = Stop<Failure>;

/// Runs the program in `file`; `words` begin with its name.
pub(crate) fn run(kernel: &Kernel, file: &[u8], words: &[String]) -> Status {
    let name = words.first().map_or("program", String::as_str);
    match start(kernel, file, words) {
        Ok(End::Exit(status)) => status,
        Ok(End::Killed(why, status)) => {
            println!("{name}: killed: {why}");
            Status(status)
        }
        Ok(End::Interrupted(failure)) | Err(failure) => {
            println!("{name}: {failure}");
            Status(failure.status)
        }
    }
}

fn start(kernel: &Kernel, file: &[u8], words: &[String]) -> Result<End, Failure> {
    let image = Image::parse(file).map_err(Failure::failed)?;
    let no_memory = || Failure::missing("not enough memory to start a program");
    let space = UserSpace::new().ok_or_else(no_memory)?;
    let parts = image.segments.iter().map(|segment| (segment.pages.clone(), segment.rights));
    let pager = Pager::new(space, parts, image.end, UserSpace::frames_max());
    let pager = pager.ok_or_else(no_memory)?;
    let (mut disks, mut area) = (kernel.disks.borrow_mut(), kernel.swap.borrow_mut());
    let swap = Area::with(&mut area, kernel, &mut disks);
    let until = kernel.now().after(TICK);
    let frame = Frame { rip: image.entry, ..Frame::default() };
    let mut process = Process { kernel, pager, swap, frame, handles: Vec::new(), until };
    let end = match process.load(&image, file, words) {
        Ok(()) => process.go(),
        Err(stop) => process.stopped(stop, &"its beginning"),
    };
    let Process { pager, mut swap, .. } = process;
    swap.settle();
    pager.end(&mut swap);
    Ok(end)
}

/// A program that runs.
struct Process<'a> {
    kernel: &'a Kernel,
    pager: Pager<UserSpace>,
    swap: Session<'a, Kernel>,
    frame: Frame,
    handles: Vec<Which>,
    /// When the kernel looks again whether the program is wanted.
    until: Instant,
}

impl Process<'_> {
    /// Puts the segments and the words where they belong.
    fn load(&mut self, image: &Image, file: &[u8], words: &[String]) -> Result<(), Halt> {
        for segment in &image.segments {
            let bytes = file.get(segment.file.clone()).unwrap_or_default();
            for (address, part) in pieces(segment.address, bytes) {
                let page = Page::at(address).ok_or(Stop::Wild)?;
                let frame = self.pager.loadable(&mut self.swap, page)?;
                frame.write(offset(address), part);
            }
        }
        // The words lie at the top of the stack, each ended by a zero.
        let mut text = Vec::new();
        for word in words {
            text.extend_from_slice(word.as_bytes());
            text.push(0);
        }
        text.truncate(ARGUMENTS_MAX);
        let top = Page(STACK.end).address();
        let place = (top - text.len() as u64) & !15;
        self.copy_out(place, &text)?;
        self.frame.rdi = place;
        self.frame.rsi = text.len() as u64;
        self.frame.rsp = place;
        Ok(())
    }

    /// Runs it to its end.
    fn go(&mut self) -> End {
        self.rearm();
        loop {
            let begin = self.kernel.now();
            let fault_address = run_user(self.pager.space(), &mut self.frame);
            let time = self.kernel.now().since(begin);
            let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
            self.kernel.user_ns.fetch_add(ns, Ordering::Relaxed);
            let step = match self.frame.vector {
                SYSCALL => self.call(),
                EVENT => self.look_around().map(|()| None),
                PAGE_FAULT => self.fault(fault_address).map(|()| None),
                vector => {
                    let (what, at) = (dump::name(vector), self.frame.rip);
                    let why = alloc::format!("{what} at {at:#x}");
                    return End::Killed(why, BAD_INSTRUCTION);
                }
            };
            match step {
                Ok(None) => {}
                Ok(Some(status)) => return End::Exit(status),
                Err(stop) if self.frame.vector == PAGE_FAULT => {
                    let what = dump::PageFault { error_code: self.frame.error_code, fault_address };
                    return self.stopped(stop, &what);
                }
                Err(stop) => return self.stopped(stop, &"a system call"),
            }
        }
    }

    fn stopped(&self, stop: Halt, what: &dyn fmt::Display) -> End {
        let at = self.frame.rip;
        match stop {
            Stop::Wild => End::Killed(alloc::format!("{what}, by the code at {at:#x}"), WILD),
            Stop::OutOfMemory => {
                let swap = if self.swap.is_on() { "swap is full" } else { "there is no swap" };
                End::Killed(alloc::format!("out of memory, and {swap}"), NO_MEMORY)
            }
            Stop::Backing(failure) if failure == Failure::interrupted() => {
                End::Interrupted(failure)
            }
            Stop::Backing(failure) => End::Killed(failure.text, failure.status),
        }
    }

    fn fault(&mut self, address: u64) -> Result<(), Halt> {
        let access = match self.frame.error_code {
            code if code & 0x10 != 0 => Access::Execute,
            code if code & 2 != 0 => Access::Write,
            _ => Access::Read,
        };
        self.pager.fault(&mut self.swap, address, access)
    }

    /// An event came: takes note of it, and sees whether the program is to end.
    fn look_around(&mut self) -> Result<(), Halt> {
        events::collect();
        if self.kernel.interrupted() {
            return Err(Stop::Backing(Failure::interrupted()));
        }
        if self.kernel.now() >= self.until {
            self.swap.disks.look_after(self.kernel);
            self.swap.disks.observe(self.kernel);
            self.rearm();
        }
        Ok(())
    }

    fn rearm(&mut self) {
        self.until = self.kernel.now().after(TICK);
        arch::set_timer(self.until.as_nanos()).expect("any time is good for the timer");
    }

    /// Answers a system call; a status ends the program.
    fn call(&mut self) -> Result<Option<Status>, Halt> {
        let Frame { rax, rdi, rsi, rdx, r10, .. } = self.frame;
        let call = Call::ALL.into_iter().find(|&call| call as u64 == rax);
        let answer = match call {
            Some(Call::Exit) => return Ok(Some(Status(rdi.to_le_bytes()[0]))),
            Some(Call::Print) => self.print(rdi, rsi)?,
            Some(Call::Grow) => {
                self.pager.grow_heap(rdi).map(|()| self.pager.heap_end()).ok_or(Refusal::NoMemory)
            }
            Some(Call::Time) => Ok(self.kernel.now().as_nanos()),
            Some(Call::Figures) => self.figures(rdi)?,
            Some(Call::Disk) => self.disk(rdi, rsi)?,
            Some(Call::Sectors) => self.sectors(rdi),
            Some(Call::Read) => self.transfer(Operation::Read, [rdi, rsi, rdx, r10])?,
            Some(Call::Write) => self.transfer(Operation::Write, [rdi, rsi, rdx, r10])?,
            Some(Call::Flush) => self.flush(rdi)?,
            Some(Call::Want) => self.want(rdi, rsi)?,
            None => Err(Refusal::NoCall),
        };
        self.frame.rax = answer.unwrap_or_else(|refusal| (refusal as u64).wrapping_neg());
        Ok(None)
    }

    fn print(&mut self, address: u64, length: u64) -> Result<Result<u64, Refusal>, Halt> {
        if length > TEXT_MAX as u64 {
            return Ok(Err(Refusal::Argument));
        }
        let text = self.copy_in(address, length)?;
        crate::print!("{}", String::from_utf8_lossy(&text));
        Ok(Ok(length))
    }

    fn figures(&mut self, address: u64) -> Result<Result<u64, Refusal>, Halt> {
        let Counters { ins, outs, clean, .. } = self.pager.counters();
        let words = [ins, outs, clean, self.pager.resident() as u64];
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.copy_out(address, &bytes)?;
        Ok(Ok(0))
    }

    fn want(&mut self, address: u64, count: u64) -> Result<Result<u64, Refusal>, Halt> {
        if count > WANTED_MAX as u64 {
            return Ok(Err(Refusal::Argument));
        }
        let bytes = self.copy_in(address, count * 8)?;
        let (words, _) = bytes.as_chunks();
        let addresses = words.iter().map(|&word| u64::from_le_bytes(word));
        let count = self.pager.want(&mut self.swap, addresses)?;
        Ok(Ok(count as u64))
    }

    fn disk(&mut self, address: u64, length: u64) -> Result<Result<u64, Refusal>, Halt> {
        if length > TEXT_MAX as u64 || self.handles.len() == HANDLES_MAX {
            return Ok(Err(Refusal::Argument));
        }
        let name = self.copy_in(address, length)?;
        let name = String::from_utf8_lossy(&name);
        let name = name.strip_prefix("/dev/").unwrap_or(&name);
        let Ok(which) = self.swap.disks.find(name) else { return Ok(Err(Refusal::NoDisk)) };
        self.handles.push(which);
        Ok(Ok(self.handles.len() as u64 - 1))
    }

    fn handle(&self, handle: u64) -> Result<Which, Refusal> {
        let index = usize::try_from(handle).map_err(|_| Refusal::NoDisk)?;
        self.handles.get(index).copied().ok_or(Refusal::NoDisk)
    }

    fn sectors(&mut self, handle: u64) -> Result<u64, Refusal> {
        let which = self.handle(handle)?;
        let disk = self.swap.disks.disk(which).map_err(|_| Refusal::Disk)?;
        Ok(disk.geometry().sectors)
    }

    fn flush(&mut self, handle: u64) -> Result<Result<u64, Refusal>, Halt> {
        let Ok(which) = self.handle(handle) else { return Ok(Err(Refusal::NoDisk)) };
        self.told(|swap| swap.flush(which).map(u64::from))
    }

    fn transfer(
        &mut self,
        operation: Operation,
        [handle, sector, address, length]: [u64; 4],
    ) -> Result<Result<u64, Refusal>, Halt> {
        let Ok(which) = self.handle(handle) else { return Ok(Err(Refusal::NoDisk)) };
        let bytes = usize::try_from(length).unwrap_or(usize::MAX);
        if length == 0 || length > TRANSFER_MAX as u64 || length % 512 != 0 {
            return Ok(Err(Refusal::Argument));
        }
        let data = match operation {
            Operation::Write => self.copy_in(address, length)?,
            _ => alloc::vec![0; bytes],
        };
        let done = self.told(|swap| {
            let buffer = swap.buffer(which, bytes)?;
            buffer.write(0, &data);
            swap.request(which, operation, sector, buffer)
        })?;
        let Ok(buffer) = done else { return Ok(Err(Refusal::Disk)) };
        if operation == Operation::Read {
            let mut data = data;
            buffer.read(0, &mut data);
            self.copy_out(address, &data)?;
        }
        Ok(Ok(length))
    }

    /// Does something with a disk. Its error is the program's to deal with, except that an
    /// interrupt ends it.
    fn told<T>(
        &mut self,
        job: impl FnOnce(&mut Session<'_, Kernel>) -> Result<T, Failure>,
    ) -> Result<Result<T, Refusal>, Halt> {
        match job(&mut self.swap) {
            Ok(done) => Ok(Ok(done)),
            Err(failure) if failure.status == Status::INTERRUPTED.0 => Err(Stop::Backing(failure)),
            Err(failure) => {
                println!("{failure}");
                Ok(Err(Refusal::Disk))
            }
        }
    }

    /// Copies what the program has at `address`. `length` is small.
    fn copy_in(&mut self, address: u64, length: u64) -> Result<Vec<u8>, Halt> {
        let mut bytes = alloc::vec![0; usize::try_from(length).map_err(|_| Stop::Wild)?];
        let mut at = 0;
        while at < bytes.len() {
            let from = address.checked_add(at as u64).ok_or(Stop::Wild)?;
            let count = (PAGE_SIZE - offset(from)).min(bytes.len() - at);
            let frame = self.pager.readable(&mut self.swap, from)?;
            frame.read(offset(from), &mut bytes[at..at + count]);
            at += count;
        }
        Ok(bytes)
    }

    /// Copies something to the program.
    fn copy_out(&mut self, address: u64, bytes: &[u8]) -> Result<(), Halt> {
        for (to, part) in pieces(address, bytes) {
            let frame = self.pager.writable(&mut self.swap, to)?;
            frame.write(offset(to), part);
        }
        Ok(())
    }
}

/// Where an address lies in its page.
fn offset(address: u64) -> usize {
    usize::try_from(address % PAGE_BYTES).unwrap_or(0)
}

/// `bytes` from `address` on, page by page.
fn pieces(address: u64, bytes: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let (mut at, mut rest) = (address, bytes);
    core::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (now, later) = rest.split_at(rest.len().min(PAGE_SIZE - offset(at)));
        let piece = (at, now);
        // Behind the end of the address space nothing is anybody's.
        (at, rest) = (at.saturating_add(now.len() as u64), later);
        Some(piece)
    })
}
