//! User mode: a program's own page tables, and the way there and back.
//!
//! Running a program is a function call: [`run_user`] goes to the program with its registers and
//! returns when the program makes a system call, faults, or an event comes. For that, Xen enters
//! the kernel from a program on a stack of its own, which ends with room for exactly one
//! [`Frame`]: what Xen pushes and what the stubs push lies there as the frame, and the kernel goes
//! on where it left, on its own stack. There is one program at a time.
//!
//! A program's tables map nothing of the kernel's, and the kernel's nothing of a program's: the
//! kernel reaches a program's pages by their frames. Its entries are marked user, so Xen makes
//! them global; they are flushed when they end.

use alloc::vec::Vec;
use core::arch::global_asm;
use core::mem::size_of;

use arrayvec::ArrayVec;
use spin::Mutex;
use x86_64::structures::paging::PageTableFlags;
use x86_64::structures::paging::page_table::PageTableEntry;
use x86_64::{PhysAddr, VirtAddr};
use xen::abi::{
    CallbackKind, FLAT_CS64, FLAT_SS64, Hypercall, MmuExtension, MmuExtensionOp, MmuUpdate,
    VmAssist, VmAssistKind,
};
use xen::{DomainId, Mfn};

use super::hypercall::{Errno, hypercall};
use super::memory::{OwnedPage, RESERVE, memory_figures, own_page, raw_page};
use super::{paging, shared, traps};
use crate::dump::{EVENT, Frame, SYSCALL};
use crate::layout::{PAGE_BYTES, Use, table_flags};
use crate::user::pager::{Space, Usage, WANTED_MAX};
use crate::user::{PAGES_MAX, Page, WINDOW};

/// Entries of a table.
const ENTRIES: usize = 512;
/// Entries that are changed with one hypercall.
const UPDATES_MAX: usize = 64;
const _: () = assert!(WANTED_MAX <= UPDATES_MAX);

global_asm!(
    ".pushsection .bss.user, \"aw\", @nobits",
    ".balign 16",
    "user_frame: .skip {frame_bytes}",
    "user_frame_end:",
    "user_kernel_stack: .skip 8",
    ".popsection",
    ".pushsection .text.user, \"ax\", @progbits",
    // Called as a function: keeps what the caller counts on, and goes to the program.
    "user_enter:",
    "push rbx",
    "push rbp",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "mov [rip + user_kernel_stack], rsp",
    "lea rsp, [rip + user_frame]",
    "jmp trap_leave",
    // The program was left, with its frame in place: returns from user_enter.
    ".globl user_left",
    "user_left:",
    "mov rsp, [rip + user_kernel_stack]",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbp",
    "pop rbx",
    "ret",
    // Xen pushed rcx, r11, rip, cs, rflags, rsp, ss, and no error code.
    ".globl user_event",
    "user_event:",
    "pop rcx",
    "pop r11",
    "push 0",
    "push {event}",
    "jmp trap_common",
    "user_syscall:",
    "cld",
    "pop rcx",
    "pop r11",
    "push 0",
    "push {syscall}",
    "jmp trap_common",
    ".popsection",
    frame_bytes = const size_of::<Frame>(),
    event = const EVENT,
    syscall = const SYSCALL,
);

unsafe extern "C" {
    fn user_enter();
    static mut user_frame: Frame;
    static user_frame_end: u8;
    static user_syscall: u8;
}

// Xen aligns the stack that it pushes on to 16 bytes; the frame must end where it begins.
const _: () = assert!(size_of::<Frame>().is_multiple_of(16));

/// Held while a program runs: there is one frame.
static TURN: Mutex<()> = Mutex::new(());

/// Runs the program whose tables are `space` until it needs the kernel: `frame.vector` is an
/// exception, [`EVENT`] or [`SYSCALL`] then. Gives the address of the last page fault.
///
/// Whatever is in the frame, the program gets no more rights by it than programs have: Xen keeps
/// it in ring 3 and on its own page tables, which is why the segments are set here.
pub(crate) fn run_user(space: &UserSpace, frame: &mut Frame) -> u64 {
    let _turn = TURN.lock();
    debug_assert!(space.third.is_some(), "a space that is in use has its tables");
    frame.cs = u64::from(FLAT_CS64);
    frame.ss = u64::from(FLAT_SS64);
    // Upcalls unmasked.
    frame.rflags |= 0x200;
    let place = &raw mut user_frame;
    // SAFETY: the frame is used under the lock only, and by the stubs while a program runs.
    unsafe { place.write(frame.clone()) };
    // SAFETY: the frame goes to user mode, on the tables that `UserSpace::new` installed; whatever
    // the program does, the stubs come back here with the kernel's registers as they were.
    unsafe { user_enter() };
    // SAFETY: as above.
    *frame = unsafe { place.read() };
    shared::fault_address()
}

/// Tells Xen where to enter the kernel from a program.
fn prepare() -> Result<(), Errno> {
    traps::set_callback(CallbackKind::Syscall, &raw const user_syscall)?;
    let strict = [VmAssist::Enable as u64, VmAssistKind::M2pStrict as u64, 0, 0];
    // SAFETY: the table of machine frames disappears from user mode only.
    unsafe { hypercall(Hypercall::VmAssist, strict) }?;
    let top = (&raw const user_frame_end).addr() as u64;
    // SAFETY: the memory below `top` is the frame, which nobody uses while a program runs.
    unsafe { hypercall(Hypercall::StackSwitch, [u64::from(FLAT_SS64), top, 0, 0]) }.map(drop)
}

/// The page tables of a program. There is one at a time; dropping it takes it out of use.
#[derive(Debug)]
pub(crate) struct UserSpace {
    root: Option<OwnedPage>,
    third: Option<OwnedPage>,
    second: Option<OwnedPage>,
    /// The first levels, by their place in the second.
    first: Vec<Option<OwnedPage>>,
}

impl UserSpace {
    /// Tables that map nothing, in use from now on. `None` if memory is short.
    pub(crate) fn new() -> Option<Self> {
        prepare().expect("Xen lets every PV guest have programs");
        let (root, third, second) = (own_page()?, own_page()?, own_page()?);
        put(&root, VirtAddr::new(WINDOW.start).p4_index().into(), link(&third));
        put(&third, VirtAddr::new(WINDOW.start).p3_index().into(), link(&second));
        let mut first = Vec::new();
        first.try_reserve_exact(PAGES_MAX as usize / ENTRIES).ok()?;
        first.resize_with(first.capacity(), || None);
        for table in [&root, &third, &second] {
            protect(table, Use::Constant).expect("a page of our own can be protected");
        }
        let space = Self { root: Some(root), third: Some(third), second: Some(second), first };
        let root = space.root.as_ref()?.machine_frame();
        on_frame(MmuExtensionOp::PinL4Table, root).expect("tables that map nothing are good");
        on_frame(MmuExtensionOp::NewUserBaseptr, root).expect("it was pinned");
        Some(space)
    }

    /// How many frames a program may have now.
    pub(crate) fn frames_max() -> usize {
        usize::try_from(memory_figures().free.saturating_sub(RESERVE)).unwrap_or(usize::MAX)
    }

    /// The table that has the entry of `page`, and the place in it.
    fn place(&self, page: Page) -> Option<(&OwnedPage, usize)> {
        let [table, index] = split(page);
        Some((self.first.get(table)?.as_ref()?, index))
    }

    /// Adds the first-level table for `page`, if there is none.
    fn reach(&mut self, page: Page) -> Option<()> {
        let [table, _] = split(page);
        if self.first.get(table)?.is_some() {
            return Some(());
        }
        let fresh = own_page()?;
        protect(&fresh, Use::Constant).expect("a page of our own can be protected");
        let slot = entry_address(self.second.as_ref()?, table);
        let updated = update(&[MmuUpdate::entry(slot, raw(&link(&fresh)))]);
        *self.first.get_mut(table)? = Some(fresh);
        updated.ok()
    }

    /// Sets the entries of pages that are mapped.
    fn change(&mut self, pages: &[Page], value: impl Fn(u64) -> u64) {
        for part in pages.chunks(UPDATES_MAX) {
            let updates: ArrayVec<MmuUpdate, UPDATES_MAX> = part
                .iter()
                .filter_map(|&page| self.place(page))
                .map(|(table, at)| {
                    MmuUpdate::entry(entry_address(table, at), value(get(table, at)))
                })
                .collect();
            update(&updates).expect("Xen takes less than was there");
        }
    }
}

impl Space for UserSpace {
    type Frame = OwnedPage;

    fn frame(&mut self) -> Option<OwnedPage> {
        (memory_figures().free > RESERVE).then(raw_page)?
    }

    fn clear(&mut self, frame: &OwnedPage) {
        frame.as_ref().clear();
    }

    fn map(&mut self, pages: &[(Page, &OwnedPage, Use)]) -> Option<()> {
        let mut updates = ArrayVec::<MmuUpdate, UPDATES_MAX>::new();
        for &(page, frame, rights) in pages {
            self.reach(page)?;
            let (table, index) = self.place(page)?;
            let flags =
                rights.flags()? | PageTableFlags::USER_ACCESSIBLE | PageTableFlags::ACCESSED;
            let mut entry = PageTableEntry::new();
            entry.set_addr(PhysAddr::new(frame.machine_frame().0 * PAGE_BYTES), flags);
            updates.push(MmuUpdate::entry(entry_address(table, index), raw(&entry)));
        }
        // Nothing was mapped there, and what is not mapped is in no TLB.
        update(&updates).ok()
    }

    fn unmap(&mut self, pages: &[Page]) {
        self.change(pages, |_| 0);
        if !pages.is_empty() {
            // Xen looks at the operation only.
            on_frame(MmuExtensionOp::TlbFlushLocal, Mfn(0)).expect("a flush cannot fail");
        }
    }

    fn usage(&self, page: Page) -> Usage {
        let entry = self.place(page).map_or(0, |(table, index)| get(table, index));
        let flags = PageTableFlags::from_bits_truncate(entry);
        Usage {
            accessed: flags.contains(PageTableFlags::ACCESSED),
            dirty: flags.contains(PageTableFlags::DIRTY),
        }
    }

    fn forget(&mut self, pages: &[Page]) {
        // Without a flush: nothing goes wrong when a page looks idle for a while longer.
        self.change(pages, |entry| entry & !PageTableFlags::ACCESSED.bits());
    }
}

impl Drop for UserSpace {
    fn drop(&mut self) {
        // User mode has no tables from here on.
        on_frame(MmuExtensionOp::NewUserBaseptr, Mfn(0)).expect("no tables are good tables");
        if let Some(root) = &self.root {
            on_frame(MmuExtensionOp::UnpinTable, root.machine_frame()).expect("it was pinned");
        }
        let tables = [self.root.take(), self.third.take(), self.second.take()];
        for table in tables.into_iter().chain(self.first.drain(..)).flatten() {
            // Nothing leads to the tables any more, so they are ordinary memory again.
            protect(&table, Use::Data).expect("a frame that is no table may be written");
        }
    }
}

/// The places of a page's entry in the second and in the first level.
fn split(Page(page): Page) -> [usize; 2] {
    [page as usize / ENTRIES, page as usize % ENTRIES]
}

/// The entry that leads to a table.
fn link(table: &OwnedPage) -> PageTableEntry {
    let mut entry = PageTableEntry::new();
    entry.set_addr(PhysAddr::new(table.machine_frame().0 * PAGE_BYTES), table_flags());
    entry
}

fn raw(entry: &PageTableEntry) -> u64 {
    entry.addr().as_u64() | entry.flags().bits()
}

/// Fills an entry of a table that is ordinary memory still.
fn put(table: &OwnedPage, index: usize, entry: PageTableEntry) {
    table.write(8 * index, &raw(&entry).to_le_bytes());
}

/// Reads an entry of a table. Only its low half changes by itself (accessed, dirty).
fn get(table: &OwnedPage, index: usize) -> u64 {
    let mut bytes = [0; 8];
    table.read(8 * index, &mut bytes);
    u64::from_le_bytes(bytes)
}

/// The machine address of an entry.
fn entry_address(table: &OwnedPage, index: usize) -> u64 {
    table.machine_frame().0 * PAGE_BYTES + 8 * index as u64
}

/// Makes a table's page read only, or writable again.
fn protect(table: &OwnedPage, purpose: Use) -> Result<(), Errno> {
    // SAFETY: the page is this module's own, which does not write it while it is read only.
    unsafe { paging::set_page(table.frame(), purpose) }
}

fn update(updates: &[MmuUpdate]) -> Result<(), Errno> {
    if updates.is_empty() {
        return Ok(());
    }
    let arguments =
        [updates.as_ptr().addr() as u64, updates.len() as u64, 0, u64::from(DomainId::SELF.0)];
    // SAFETY: Xen reads the updates; all are entries of a program's tables, which map nothing that
    // the kernel uses by them.
    unsafe { hypercall(Hypercall::MmuUpdate, arguments) }.map(drop)
}

fn on_frame(operation: MmuExtensionOp, frame: Mfn) -> Result<(), Errno> {
    let argument = MmuExtension::on_frame(operation, frame);
    let arguments = [(&raw const argument).addr() as u64, 1, 0, u64::from(DomainId::SELF.0)];
    // SAFETY: Xen reads one argument; the kernel's own tables are not touched by what this module
    // asks for.
    unsafe { hypercall(Hypercall::MmuextOp, arguments) }.map(drop)
}
