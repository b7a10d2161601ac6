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
    Command, CommandTable, Elevator, ElevatorTable, Entry, NEVER, Plugin, Refused, Text, WORDS_MAX,
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
pub extern "C" fn start<P: Plugin>() -> u32 {
    P::init(&mut Registry(PhantomData)).err().map_or(0, |refused| refused as u32)
}

/// [`Module::exit`](crate::Module::exit) of a module whose memory is all in its registrations.
pub extern "C" fn stop() {}

/// Where a module's `init` registers what it brings.
#[derive(Debug)]
pub struct Registry(PhantomData<*mut ()>);

fn answer(code: u32) -> Result<(), Refused> {
    match code {
        0 => Ok(()),
        1 => Err(Refused::NameTaken),
        2 => Err(Refused::BadName),
        3 => Err(Refused::NotNow),
        _ => Err(Refused::Unwilling),
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
            destroy: destroy::<E>,
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
}

extern "C" fn create<E: Elevator>() -> *mut c_void {
    let layout = Layout::new::<E>().pad_to_align();
    let room = pvblk_allocate(layout.size().max(1), layout.align()).cast::<MaybeUninit<E>>();
    // SAFETY: the kernel gives memory of this size and alignment that is nobody else's, or null.
    let Some(room) = (unsafe { room.as_mut() }) else { return core::ptr::null_mut() };
    core::ptr::from_mut(room.write(E::new())).cast()
}

extern "C" fn destroy<E: Elevator>(state: *mut c_void) {
    let layout = Layout::new::<E>().pad_to_align();
    // SAFETY: the kernel hands back what `create` gave, once, and does not use it again.
    unsafe { state.cast::<E>().drop_in_place() };
    // SAFETY: the memory came from `pvblk_allocate` with these numbers.
    unsafe { pvblk_free(state.cast(), layout.size().max(1), layout.align()) };
}

extern "C" fn add<E: Elevator>(state: *mut c_void, entry: &Entry) {
    // SAFETY: the kernel hands in what `create` gave, one call at a time.
    unsafe { &mut *state.cast::<E>() }.add(*entry);
}

extern "C" fn next<E: Elevator>(state: *mut c_void, now_ns: u64, entry: &mut Entry) -> u32 {
    // SAFETY: the kernel hands in what `create` gave, one call at a time.
    match unsafe { &mut *state.cast::<E>() }.next(now_ns) {
        Some(next) => {
            *entry = next;
            1
        }
        None => 0,
    }
}

extern "C" fn due<E: Elevator>(state: *mut c_void) -> u64 {
    // SAFETY: the kernel hands in what `create` gave, one call at a time.
    unsafe { &*state.cast::<E>() }.due().unwrap_or(NEVER)
}

extern "C" fn run<C: Command>(words: *const Text, count: usize) -> u32 {
    let mut list = [""; WORDS_MAX];
    let count = count.min(WORDS_MAX);
    for (at, slot) in list.iter_mut().enumerate().take(count) {
        // SAFETY: the kernel passes `count` texts that stay until the command ends.
        let text = unsafe { &*words.wrapping_add(at) };
        // SAFETY: so long is the text, and it stays as well.
        let bytes = unsafe { core::slice::from_raw_parts(text.start, text.length) };
        *slot = core::str::from_utf8(bytes).unwrap_or("?");
    }
    u32::from(C::run(&list[..count]))
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
