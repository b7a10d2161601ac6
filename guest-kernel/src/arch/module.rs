//! Modules: the pages that they lie in, the functions that they may call, and the calls into them.
//!
//! What is trusted: a module, once loaded, as the kernel trusts itself. It is code with the
//! kernel's rights, which the administrator has chosen to load; `modules` has checked that it fits
//! this kernel, and nobody can check that it means well. "The module keeps the interface" in the
//! proofs below means this trust.
//!
//! No page of a module is ever writable and executable: it is filled while it is data, and then
//! changes its rights once.

use alloc::alloc::{alloc, dealloc};
use alloc::string::String;
use core::alloc::Layout;
use core::ptr;

use module_abi::{BlockTable, CommandTable, ElevatorTable, Refused, Text};
use spin::Mutex;
use x86_64::VirtAddr;
use xen::Pfn;

use super::hypercall::Errno;
use super::memory::{RESERVE, give_frames, memory_figures, take_frames};
use super::paging;
use crate::layout::{PAGE_BYTES, Use, address_of, frame_of};
use crate::modules::{Desk, Linked, Parts};

/// Pages for a module, next to each other. Dropping them frees them.
#[derive(Debug)]
pub(crate) struct ModulePages {
    first: Pfn,
    count: u64,
}

/// A module in memory, with its rights. Whoever has a function of it keeps this alive; dropping it
/// frees the pages.
#[derive(Debug)]
pub(crate) struct ModuleCode {
    pages: ModulePages,
    init: Init,
    exit: extern "C" fn(),
}

type Init = extern "C" fn(words: *const Text, count: usize) -> u32;

impl ModulePages {
    /// So many pages, with anything in them; `None` when memory is short.
    pub(crate) fn take(count: u64) -> Option<Self> {
        take_frames(count).map(|first| Self { first, count })
    }

    /// Where they start.
    pub(crate) fn address(&self) -> u64 {
        address_of(self.first).as_u64()
    }

    /// Fills the pages with a module that was linked for them, and gives each part its rights.
    ///
    /// # Errors
    /// What Xen said; then the pages are freed.
    ///
    /// # Panics
    /// If the module was linked for other pages.
    pub(crate) fn load(self, linked: &Linked, parts: &Parts) -> Result<ModuleCode, Errno> {
        let code = self.address() + parts.code.start * PAGE_BYTES
            ..self.address() + parts.code.end * PAGE_BYTES;
        assert!(code.contains(&linked.init) && code.contains(&linked.exit), "linked elsewhere");
        let fits = u64::try_from(linked.bytes.len()) == Ok(self.count * PAGE_BYTES);
        assert!(fits && parts.pages() == self.count, "linked for another number of pages");
        let start = address_of(self.first).as_mut_ptr::<u8>();
        // SAFETY: the pages are mapped writable, as many as there are bytes, and nobody else's.
        unsafe { ptr::copy_nonoverlapping(linked.bytes.as_ptr(), start, linked.bytes.len()) };
        for (part, purpose) in [(&parts.code, Use::Code), (&parts.constants, Use::Constant)] {
            for page in part.clone() {
                // SAFETY: nobody has a reference into the page, and nobody writes it any more.
                unsafe { paging::set_page(Pfn(self.first.0 + page), purpose) }?;
            }
        }
        let (init, exit) = (linked.init as *const (), linked.exit as *const ());
        // SAFETY: it lies in code that is mapped as long as this lives; that it is a function of
        // this type is the module's description of itself, which keeps the interface.
        let init = unsafe { core::mem::transmute::<*const (), Init>(init) };
        // SAFETY: the same.
        let exit = unsafe { core::mem::transmute::<*const (), extern "C" fn()>(exit) };
        Ok(ModuleCode { pages: self, init, exit })
    }
}

impl Drop for ModulePages {
    fn drop(&mut self) {
        for page in self.first.0..self.first.0 + self.count {
            // SAFETY: the module is over: nobody has a reference into the page or runs its code.
            if unsafe { paging::set_page(Pfn(page), Use::Data) }.is_ok() {
                give_frames(page..page + 1);
            }
        }
    }
}

impl ModuleCode {
    /// Where it lies.
    pub(crate) fn address(&self) -> u64 {
        self.pages.address()
    }

    /// How many pages it has.
    pub(crate) fn pages(&self) -> u64 {
        self.pages.count
    }

    /// Runs its `init` with these words, which registers at `desk`; gives the desk back, and what
    /// `init` answered: 0 if it is to stay.
    pub(crate) fn init(&self, desk: Desk, words: &[Text]) -> (Desk, u32) {
        *DESK.lock() = Some(desk);
        let answer = (self.init)(words.as_ptr(), words.len());
        (DESK.lock().take().unwrap_or_default(), answer)
    }

    /// Runs its `exit`, which is the last call into it.
    pub(crate) fn exit(self) {
        (self.exit)();
    }
}

/// The desk, while an `init` runs.
static DESK: Mutex<Option<Desk>> = Mutex::new(None);

/// The address of what a module may use of the kernel: `module_abi::EXPORTS`.
pub(crate) fn export(name: &str) -> Option<u64> {
    let address = match name {
        "pvblk_print" => pvblk_print as *const (),
        "pvblk_panic" => pvblk_panic as *const (),
        "pvblk_allocate" => pvblk_allocate as *const (),
        "pvblk_free" => pvblk_free as *const (),
        "pvblk_register_elevator" => pvblk_register_elevator as *const (),
        "pvblk_register_command" => pvblk_register_command as *const (),
        "pvblk_register_block" => pvblk_register_block as *const (),
        "memcpy" => memcpy as *const (),
        "memmove" => memmove as *const (),
        "memset" => memset as *const (),
        "memcmp" => memcmp as *const (),
        "bcmp" => bcmp as *const (),
        _ => return None,
    };
    Some(address.addr() as u64)
}

// Brought by the compiler's own library; here only their addresses are of interest.
unsafe extern "C" {
    fn memcpy();
    fn memmove();
    fn memset();
    fn memcmp();
    fn bcmp();
}

/// The text that a module passed; `None` if it is not UTF-8.
///
/// # Safety
/// The module keeps the interface: the bytes are there, and stay as long as `text` does.
unsafe fn read(text: &Text) -> Option<&str> {
    // SAFETY: the caller's promise.
    let bytes = unsafe { core::slice::from_raw_parts(text.start, text.length) };
    core::str::from_utf8(bytes).ok()
}

extern "C" fn pvblk_print(text: &Text) {
    // SAFETY: a module calls this, which keeps the interface.
    crate::print!("{}", unsafe { read(text) }.unwrap_or("?"));
}

extern "C" fn pvblk_panic(name: &Text) -> ! {
    // SAFETY: a module calls this, which keeps the interface.
    let name = unsafe { read(name) }.unwrap_or("?");
    crate::crash::die(format_args!("module {name} panicked"))
}

/// How many frames an allocation is, if it is one of whole pages: those are not the heap's, which
/// keeps what it once had.
fn whole_pages(layout: &Layout) -> Option<u64> {
    let size = layout.size() as u64;
    let whole = layout.align() as u64 == PAGE_BYTES && size.is_multiple_of(PAGE_BYTES);
    whole.then_some(size / PAGE_BYTES)
}

extern "C" fn pvblk_allocate(size: usize, align: usize) -> *mut u8 {
    let layout = Layout::from_size_align(size, align).ok().filter(|layout| layout.size() > 0);
    let Some(layout) = layout else { return ptr::null_mut() };
    match whole_pages(&layout) {
        Some(count) if memory_figures().free < count.saturating_add(RESERVE) => ptr::null_mut(),
        Some(count) => {
            take_frames(count).map_or(ptr::null_mut(), |first| address_of(first).as_mut_ptr())
        }
        // SAFETY: the size is not 0.
        None => unsafe { alloc(layout) },
    }
}

extern "C" fn pvblk_free(start: *mut u8, size: usize, align: usize) {
    let layout = Layout::from_size_align(size, align).expect("the numbers of the allocation");
    match whole_pages(&layout) {
        Some(count) => {
            let first = frame_of(VirtAddr::from_ptr(start)).0;
            give_frames(first..first + count);
        }
        // SAFETY: the module keeps the interface: `pvblk_allocate` gave this, for these numbers.
        None => unsafe { dealloc(start, layout) },
    }
}

/// Lets a module register something; gives what it is told.
fn register(take: impl FnOnce(&mut Desk) -> Result<(), Refused>) -> u32 {
    let mut desk = DESK.lock();
    let taken = desk.as_mut().ok_or(Refused::NotNow).and_then(take);
    taken.err().map_or(0, |refused| refused as u32)
}

extern "C" fn pvblk_register_elevator(table: &ElevatorTable) -> u32 {
    // SAFETY: a module calls this, which keeps the interface.
    let name = unsafe { read(&table.name) };
    register(|desk| desk.elevator(name.ok_or(Refused::BadName)?, table))
}

extern "C" fn pvblk_register_command(table: &CommandTable) -> u32 {
    let texts = [&table.name, &table.arguments, &table.about];
    // SAFETY: a module calls this, which keeps the interface.
    let [name, arguments, about] = texts.map(|text| unsafe { read(text) }.map(String::from));
    register(|desk| match (name, arguments, about) {
        (Some(name), Some(arguments), Some(about)) => {
            desk.command([&name, &arguments, &about], table)
        }
        _ => Err(Refused::BadName),
    })
}

extern "C" fn pvblk_register_block(table: &BlockTable) -> u32 {
    // SAFETY: a module calls this, which keeps the interface.
    let name = unsafe { read(&table.name) };
    register(|desk| desk.block(name.ok_or(Refused::BadName)?, table))
}
