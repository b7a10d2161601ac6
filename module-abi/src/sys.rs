//! The kernel's exports as safe functions, and the traits as tables: the unsafe part of a module.
//!
//! What the kernel promises to a module is what makes each block true; it is said in the crate's
//! docs and at the tables. Only built for the kernel's target.
#![allow(unsafe_code, reason = "the border between a module and the kernel lies here only")]

use core::alloc::{GlobalAlloc, Layout};
use core::ffi::c_void;
use core::fmt;
use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::panic::PanicInfo;

use crate::{
    BlockDevice, BlockTable, Command, CommandTable, DONE, Elevator, ElevatorTable, Entry, FAILED,
    Failed, NEVER, Plugin, Refused, Text, WORDS_MAX,
};

// SAFETY: these are the kernel's exports, with the types that `EXPORTS` documents; the loader
// resolves them to nothing else. The safe ones can be called at any time.
unsafe extern "C" {
    safe fn pvblk_print(text: &Text);
    safe fn pvblk_panic(name: &Text) -> !;
    safe fn pvblk_allocate(size: usize, align: usize) -> *mut u8;
    fn pvblk_free(start: *mut u8, size: usize, align: usize);
    safe fn pvblk_register_elevator(table: &ElevatorTable) -> u32;
    safe fn pvblk_register_command(table: &CommandTable) -> u32;
    safe fn pvblk_register_block(table: &BlockTable) -> u32;
}

/// Defines the module's [`Module`](crate::Module), its heap and what a panic does. On any other
/// target than the kernel's, nothing.
#[macro_export]
macro_rules! module {
    ($plugin:ty, $name:literal) => {
        const _: () = {
            #[used]
            #[allow(unsafe_code, reason = "the one symbol by which the kernel finds the module")]
            #[unsafe(no_mangle)]
            static pvblk_module: $crate::Module = $crate::Module {
                magic: $crate::MAGIC,
                version: $crate::VERSION,
                reserved: 0,
                name: $crate::padded($name),
                init: $crate::start::<$plugin>,
                exit: $crate::stop,
            };

            #[global_allocator]
            static HEAP: $crate::Heap = $crate::Heap;

            #[panic_handler]
            fn panic(info: &::core::panic::PanicInfo<'_>) -> ! {
                $crate::fail($name, info)
            }
        };
    };
}

/// [`Module::init`](crate::Module::init) of a plugin.
pub extern "C" fn start<P: Plugin>(words: *const Text, count: usize) -> u32 {
    let init = |words: &[&str]| P::init(&mut Registry(PhantomData), words);
    with_words(words, count, init).err().map_or(0, |refused| refused as u32)
}

/// [`Module::exit`](crate::Module::exit) of a module whose memory is all in its registrations.
pub extern "C" fn stop() {}

/// Where a module's `init` registers what it brings.
#[derive(Debug)]
pub struct Registry(PhantomData<*mut ()>);

fn answer(code: u32) -> Result<(), Refused> {
    match code {
        0 => Ok(()),
        code => Err(Refused::from_code(code).unwrap_or(Refused::Unwilling)),
    }
}

impl Registry {
    /// Registers an elevator.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn elevator<E: Elevator>(&mut self) -> Result<(), Refused> {
        answer(pvblk_register_elevator(&ElevatorTable {
            name: Text::new(E::NAME),
            create: create::<E>,
            destroy: end::<E>,
            add: add::<E>,
            next: next::<E>,
            due: due::<E>,
        }))
    }

    /// Registers a command.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn command<C: Command>(&mut self) -> Result<(), Refused> {
        answer(pvblk_register_command(&CommandTable {
            name: Text::new(C::HELP.name),
            arguments: Text::new(C::HELP.arguments),
            about: Text::new(C::HELP.about),
            run: run::<C>,
        }))
    }

    /// Registers a block device of this name.
    ///
    /// # Errors
    /// [`Refused`]; then the device is over.
    pub fn block<B: BlockDevice>(&mut self, name: &str, device: B) -> Result<(), Refused> {
        let (sectors, read_only) = (device.sectors(), u32::from(device.is_read_only()));
        let state = keep(device);
        if state.is_null() {
            return Err(Refused::NoMemory);
        }
        let registered = answer(pvblk_register_block(&BlockTable {
            name: Text::new(name),
            sectors,
            read_only,
            reserved: 0,
            state,
            destroy: end::<B>,
            read: read::<B>,
            write: write::<B>,
            flush: flush::<B>,
        }));
        if registered.is_err() {
            end::<B>(state);
        }
        registered
    }
}

/// Puts a value into memory of the kernel's, until [`end`]; null when memory is short.
fn keep<T>(value: T) -> *mut c_void {
    let layout = Layout::new::<T>().pad_to_align();
    let room = pvblk_allocate(layout.size().max(1), layout.align()).cast::<MaybeUninit<T>>();
    // SAFETY: the kernel gives memory of this size and alignment that is nobody else's, or null.
    let Some(room) = (unsafe { room.as_mut() }) else { return core::ptr::null_mut() };
    core::ptr::from_mut(room.write(value)).cast()
}

extern "C" fn end<T>(state: *mut c_void) {
    let layout = Layout::new::<T>().pad_to_align();
    // SAFETY: what `keep` gave comes back once, and is not used again.
    unsafe { state.cast::<T>().drop_in_place() };
    // SAFETY: the memory came from `pvblk_allocate` with these numbers.
    unsafe { pvblk_free(state.cast(), layout.size().max(1), layout.align()) };
}

extern "C" fn create<E: Elevator>() -> *mut c_void {
    keep(E::new())
}

extern "C" fn add<E: Elevator>(state: *mut c_void, entry: &Entry) {
    // SAFETY: the kernel hands in what `keep` gave, one call at a time.
    unsafe { &mut *state.cast::<E>() }.add(*entry);
}

extern "C" fn next<E: Elevator>(state: *mut c_void, now_ns: u64, entry: &mut Entry) -> u32 {
    // SAFETY: the kernel hands in what `keep` gave, one call at a time.
    match unsafe { &mut *state.cast::<E>() }.next(now_ns) {
        Some(next) => {
            *entry = next;
            1
        }
        None => 0,
    }
}

extern "C" fn due<E: Elevator>(state: *mut c_void) -> u64 {
    // SAFETY: the kernel hands in what `keep` gave, one call at a time.
    unsafe { &*state.cast::<E>() }.due().unwrap_or(NEVER)
}

extern "C" fn run<C: Command>(words: *const Text, count: usize) -> u32 {
    with_words(words, count, |words| u32::from(C::run(words)))
}

/// Does something with words that the kernel passes.
fn with_words<T>(words: *const Text, count: usize, work: impl FnOnce(&[&str]) -> T) -> T {
    let mut list = [""; WORDS_MAX];
    let count = count.min(WORDS_MAX);
    for (at, slot) in list.iter_mut().enumerate().take(count) {
        // SAFETY: the kernel passes `count` texts that stay until the call ends.
        let text = unsafe { &*words.wrapping_add(at) };
        // SAFETY: so long is the text, and it stays as well.
        let bytes = unsafe { core::slice::from_raw_parts(text.start, text.length) };
        *slot = core::str::from_utf8(bytes).unwrap_or("?");
    }
    work(&list[..count])
}

fn status(done: Result<(), Failed>) -> u32 {
    if done.is_ok() { DONE } else { FAILED }
}

/// Bytes in sectors of one call.
fn bytes(sectors: u64) -> usize {
    usize::try_from(sectors).map_or(0, |sectors| sectors.saturating_mul(512))
}

extern "C" fn read<B: BlockDevice>(
    state: *mut c_void,
    sector: u64,
    data: *mut u8,
    sectors: u64,
) -> u32 {
    // SAFETY: the kernel passes so many bytes that are nobody else's until the call ends.
    let out = unsafe { core::slice::from_raw_parts_mut(data, bytes(sectors)) };
    // SAFETY: the kernel hands in what `keep` gave, one call at a time.
    status(unsafe { &mut *state.cast::<B>() }.read(sector, out))
}

extern "C" fn write<B: BlockDevice>(
    state: *mut c_void,
    sector: u64,
    data: *const u8,
    sectors: u64,
) -> u32 {
    // SAFETY: the kernel passes so many bytes that nobody changes until the call ends.
    let data = unsafe { core::slice::from_raw_parts(data, bytes(sectors)) };
    // SAFETY: the kernel hands in what `keep` gave, one call at a time.
    status(unsafe { &mut *state.cast::<B>() }.write(sector, data))
}

extern "C" fn flush<B: BlockDevice>(state: *mut c_void) -> u32 {
    // SAFETY: the kernel hands in what `keep` gave, one call at a time.
    status(unsafe { &mut *state.cast::<B>() }.flush())
}

/// The console, for `write!` and `writeln!`.
#[derive(Debug)]
pub struct Console;

impl fmt::Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        pvblk_print(&Text::new(text));
        Ok(())
    }
}

/// Ends the guest because the module `name` panicked.
pub fn fail(name: &str, info: &PanicInfo<'_>) -> ! {
    // The console cannot refuse.
    let _ = fmt::Write::write_fmt(&mut Console, format_args!("module {name}: {info}\n"));
    pvblk_panic(&Text::new(name))
}

/// The kernel's heap.
#[derive(Debug)]
pub struct Heap;

// SAFETY: the kernel's heap keeps the contract, and both functions pass all that it needs.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        pvblk_allocate(layout.size(), layout.align())
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise: the memory came from here with this layout.
        unsafe { pvblk_free(start, layout.size(), layout.align()) };
    }
}
