//! Memory: which frames there are, who has them, and where they are in the machine.
//!
//! A frame is mapped when it is first needed, 2 MiB at a time, so that starting in much memory
//! costs no more than starting in little. Handing out a frame twice would break everything above;
//! the bitmap in `frames` is the only place that decides it.

use alloc::vec;
use alloc::vec::Vec;
use core::ops::{Deref, Range};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};
use core::{fmt, slice};

use ring::Page;
use spin::{Mutex, Once};
use volatile::VolatilePtr;
use x86_64::VirtAddr;
use xen::abi::HYPERVISOR_VIRT_START;
use xen::{Mfn, Pfn};

use super::hypercall::Errno;
use super::start::Start;
use super::{heap, paging, shared};
use crate::frames::{Frames, words_for};
use crate::layout::{
    BootMap, FRAMES_MAX, FRAMES_PER_TABLE, Image, PAGE_BYTES, Use, address_of, frame_of, tables_for,
};

/// Free frames without which the kernel does not start: heap, grant table bookkeeping, one disk.
const FREE_MIN: u64 = 96;
/// Frames that programs and modules leave to the kernel: page tables, heap, grants.
pub(super) const RESERVE: u64 = 128;
/// Own page tables that fit behind the boot tables: Xen maps at least 512 KiB there.
const OWN_TABLES_MAX: u64 = 120;
/// Frames mapped at boot beyond what is in use then.
const SLACK: u64 = 64;

/// Why the kernel's memory could not be set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MemoryError {
    /// So many KiB there are, so many are needed.
    TooLittle(u64, u64),
    /// More than the boot page tables leave room to map.
    TooMuch,
    /// Xen refused our page tables.
    Refused(Errno),
}

impl fmt::Display for MemoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLittle(has, needs) => {
                write!(f, "too little memory: {has} KiB, at least {needs} KiB are needed")
            }
            Self::TooMuch => f.write_str("too much memory for the boot page tables"),
            Self::Refused(error) => write!(f, "Xen refused the page tables: {error}"),
        }
    }
}

/// How much memory there is, in frames of 4 KiB.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct MemoryFigures {
    /// Of the domain.
    pub(crate) total: u64,
    /// Mapped so far.
    pub(crate) mapped: u64,
    /// Free, mapped or not.
    pub(crate) free: u64,
    /// The heap's.
    pub(crate) heap: u64,
    /// In use as page tables, or set aside to become some.
    pub(crate) tables: u64,
}

pub(super) struct Memory {
    pub(super) frames: Frames<'static>,
    root: Pfn,
    /// How many frames there are, those without memory counted.
    pub(super) total: u64,
    /// How many of them have none.
    pub(super) holes: u64,
    /// Frames from here on have no mapping yet. A multiple of 512, or `total`.
    pub(super) mapped: u64,
    /// Page tables of our own.
    tables: u64,
    /// What lies where.
    pub(super) map: BootMap,
    /// The start info, and the pages shared with the console and with xenstore.
    shared: Range<u64>,
    /// The frames with the bits of `frames`.
    pub(super) bitmap: Range<u64>,
    /// Mapped frames set aside to become the tables of the next 2 MiB.
    spares: [Option<Pfn>; 2],
}

/// Own frame to machine frame, one for each frame: written by the toolstack before the start, and
/// by `balloon`. Its pages are read only while nobody writes.
pub(super) static FRAME_LIST: Mutex<&'static [AtomicU64]> = Mutex::new(&[]);
/// What stands in the list for a frame without memory.
pub(super) const NO_MEMORY: u64 = u64::MAX;
static MEMORY: Once<Mutex<Memory>> = Once::new();

/// The machine frame behind one of ours; `None` if there is no memory there.
pub(super) fn machine_frame(frame: Pfn) -> Option<Mfn> {
    let list = *FRAME_LIST.lock();
    // Relaxed: written by this processor only.
    let machine = list.get(usize::try_from(frame.0).ok()?)?.load(Ordering::Relaxed);
    (machine != NO_MEMORY).then_some(Mfn(machine))
}

/// Our own frame number of a machine frame.
///
/// # Safety
/// `machine` is a frame of this domain.
pub(super) unsafe fn own_frame(machine: Mfn) -> Pfn {
    let address = VirtAddr::new(HYPERVISOR_VIRT_START + machine.0 * 8);
    let slot = NonNull::new(address.as_mut_ptr::<u64>()).expect("the table is not at 0");
    // SAFETY: Xen maps this table readable for every PV guest, with an entry for each machine
    // frame there is, and the caller promises that there is this one; Xen writes the table
    // meanwhile, hence volatile.
    let slot = unsafe { VolatilePtr::new_read_only(slot) };
    Pfn(slot.read())
}

/// The page in a machine frame that the toolstack set aside for a byte ring.
///
/// # Safety
/// `machine` is the console's or the xenstore's frame, as the start info says.
pub(super) unsafe fn ring_page(machine: Mfn) -> &'static Page {
    // SAFETY: the toolstack put the page into our memory.
    let address = address_of(unsafe { own_frame(machine) });
    // SAFETY: the toolstack put the page into our memory, behind the image and below what is ever
    // free, so it stays mapped and is used for nothing else; a `Page` is shared by its nature.
    unsafe { &*address.as_ptr::<Page>() }
}

unsafe extern "C" {
    static image_text: u8;
    static image_rodata: u8;
    static image_data: u8;
    static image_guard: u8;
    static image_end: u8;
}

fn frame_at(symbol: *const u8) -> u64 {
    frame_of(VirtAddr::from_ptr(symbol)).0
}

fn image() -> Image {
    let [text, rodata] = [frame_at(&raw const image_text), frame_at(&raw const image_rodata)];
    let [data, end] = [frame_at(&raw const image_data), frame_at(&raw const image_end)];
    let guard = frame_at(&raw const image_guard);
    Image { text: text..rodata, rodata: rodata..data, data: data..end, guard }
}

/// Where everything lies, and the first frame behind it that is unused.
fn boot_map(start: &Start) -> (BootMap, u64) {
    let info = start.info();
    let run = |address: u64, frames: u64| {
        let first = address / PAGE_BYTES;
        first..first + frames
    };
    let frame_list = run(info.mfn_list, (info.nr_pages * 8).div_ceil(PAGE_BYTES));
    let boot_tables = run(info.pt_base, info.nr_pt_frames);
    let image = image();
    let rings = start.ring_frames().map(|frame| frame.map_or(0, |frame| frame.0 + 1));
    let ends = [image.data.end, frame_list.end, boot_tables.end, start.page().0 + 1];
    let used = ends.into_iter().chain(rings).max().unwrap_or_default();
    (BootMap { image, frame_list, boot_tables, own_tables: used..used }, used)
}

/// Takes over the domain's memory: builds page tables, then the bitmap, then frees the rest.
///
/// # Errors
/// [`MemoryError`].
///
/// # Safety
/// Runs once, on Xen's boot page tables.
pub(super) unsafe fn take_over(start: &Start) -> Result<(), MemoryError> {
    let info = start.info();
    let list = VirtAddr::new(info.mfn_list).as_ptr::<AtomicU64>();
    let length = usize::try_from(info.nr_pages).map_err(|_| MemoryError::TooMuch)?;
    // SAFETY: Xen passes a list of so many words, mapped; it is written by atomic stores only, and
    // loaded in a way that does for read-only memory.
    let list = unsafe { slice::from_raw_parts(list, length) };
    *FRAME_LIST.lock() = list;

    let total = info.nr_pages.min(FRAMES_MAX);
    let (mut map, used) = boot_map(start);
    let words = words_for(total);
    let bitmap_frames = (words * 8).div_ceil(PAGE_BYTES);
    let behind = used + SLACK + bitmap_frames;
    let mapped = behind.next_multiple_of(FRAMES_PER_TABLE).min(total);
    let own_tables = tables_for(mapped);
    if own_tables > OWN_TABLES_MAX {
        return Err(MemoryError::TooMuch);
    }
    map.own_tables = used..used + own_tables;
    let bitmap = map.own_tables.end..map.own_tables.end + bitmap_frames;
    let needed = bitmap.end + FREE_MIN;
    if total < needed {
        return Err(MemoryError::TooLittle(kib(total), kib(needed)));
    }
    // SAFETY: runs once, on the boot tables; the frames behind `used` are unused, mapped by Xen,
    // and counted.
    let root = unsafe { paging::switch(&map, mapped, info.shared_info) };
    let root = root.map_err(MemoryError::Refused)?;
    // SAFETY: the tables that were just switched to map it.
    unsafe { shared::set_mapped() };

    let words = usize::try_from(words).map_err(|_| MemoryError::TooMuch)?;
    let bits = address_of(Pfn(bitmap.start)).as_mut_ptr::<u64>();
    // SAFETY: these frames are mapped writable now and used for nothing else, ever.
    let bits = unsafe { slice::from_raw_parts_mut(bits, words) };
    let mut frames = Frames::new(bits, total);
    frames.give(bitmap.end..total);
    frames.give(start.page().0..start.page().0 + 1);
    for frame in map.boot_tables.clone() {
        // SAFETY: the tables are unpinned: nobody relies on what is in them.
        if unsafe { paging::set_page(Pfn(frame), Use::Data) }.is_ok() {
            frames.give(frame..frame + 1);
        }
    }
    drop_holes(&mut frames, 0..mapped);
    let holes = (0..total).filter(|&frame| machine_frame(Pfn(frame)).is_none()).count() as u64;
    let spares = [None; 2];
    let tables = own_tables;
    let shared = map.frame_list.end..map.boot_tables.start;
    let mut memory =
        Memory { frames, root, total, holes, mapped, tables, map, shared, bitmap, spares };
    memory.refill();
    MEMORY.call_once(|| Mutex::new(memory));
    Ok(())
}

/// Takes the frames without memory behind them out of the free ones.
fn drop_holes(frames: &mut Frames<'_>, range: Range<u64>) {
    for frame in range {
        if machine_frame(Pfn(frame)).is_none() {
            frames.mark(frame..frame + 1);
        }
    }
}

fn kib(frames: u64) -> u64 {
    frames * (PAGE_BYTES / 1024)
}

impl Memory {
    /// Takes `count` frames in a row, mapped.
    pub(super) fn take(&mut self, count: u64) -> Option<Pfn> {
        loop {
            let first = self.frames.take(count)?;
            if first.0 + count <= self.mapped {
                return Some(first);
            }
            // Growing may need frames, or find that some of these have no memory.
            self.frames.give(first.0..first.0 + count);
            self.grow()?;
        }
    }

    /// Maps 2 MiB more.
    fn grow(&mut self) -> Option<()> {
        let first = self.mapped;
        if first >= self.total {
            return None;
        }
        let end = (first + FRAMES_PER_TABLE).min(self.total);
        let (spares, tables) = (&mut self.spares, &mut self.tables);
        let spare = || {
            let spare = spares.iter_mut().find_map(Option::take)?;
            *tables += 1;
            Some(spare)
        };
        // SAFETY: `mapped` is the first frame without a mapping; the spares came from the free
        // frames below it and are given to nobody else.
        let grown = unsafe { paging::grow(self.root, first, end, spare) }?;
        if grown.is_err() {
            // Nothing more can be mapped: the frames behind do not exist for us.
            self.frames.mark(first..self.total);
            self.total = first;
            return None;
        }
        self.mapped = end;
        drop_holes(&mut self.frames, first..end);
        self.refill();
        Some(())
    }

    fn refill(&mut self) {
        if self.mapped == self.total {
            return;
        }
        for spare in self.spares.iter_mut().filter(|spare| spare.is_none()) {
            // Lowest first, and 2 MiB were mapped just now: the frame is mapped.
            *spare = self.frames.take(1);
        }
    }
}

/// Takes `count` frames in a row, mapped, with anything in them.
pub(super) fn take_frames(count: u64) -> Option<Pfn> {
    MEMORY.get()?.lock().take(count)
}

/// Does something with the memory, nobody else using it meanwhile: nothing may be allocated.
pub(super) fn with_memory<T>(work: impl FnOnce(&mut Memory) -> T) -> Option<T> {
    Some(work(&mut MEMORY.get()?.lock()))
}

/// Frees frames that `take_frames` gave; they are mapped as data again, and nobody uses them.
pub(super) fn give_frames(frames: Range<u64>) {
    with_memory(|memory| memory.frames.give(frames));
}

/// Tells how much memory there is; all zeros before there is any.
pub(crate) fn memory_figures() -> MemoryFigures {
    let figures = with_memory(|memory| MemoryFigures {
        total: memory.total - memory.holes,
        mapped: memory.mapped,
        free: memory.frames.free(),
        heap: heap::frames(),
        tables: memory.tables + memory.spares.iter().flatten().count() as u64,
    });
    figures.unwrap_or_default()
}

/// A part of memory and what it is for, in frames.
pub(crate) type Region = (Range<u64>, &'static str);

/// What lies where, from frame 0 on.
pub(crate) fn regions() -> Vec<Region> {
    let parts = with_memory(|memory| {
        let (map, bitmap) = (memory.map.clone(), memory.bitmap.clone());
        (map, bitmap, memory.shared.clone(), memory.mapped..memory.total)
    });
    let Some((map, bitmap, shared, unmapped)) = parts else { return Vec::new() };
    let image = &map.image;
    let stack = image.guard + 1;
    let mut regions = vec![
        (0..1, "nothing: not mapped"),
        (image.text.clone(), "kernel: instructions"),
        (image.rodata.clone(), "kernel: constants"),
        (image.data.start..image.guard, "kernel: data"),
        (image.guard..stack, "guard page: not mapped"),
        (stack..image.data.end, "kernel: stack"),
        (map.frame_list.clone(), "p2m: own frame to machine frame"),
        (shared, "start info, console and xenstore pages"),
        (map.own_tables.clone(), "page tables"),
        (bitmap.clone(), "bitmap of the frames"),
        (unmapped, "pool: not mapped yet"),
    ];
    regions.sort_unstable_by_key(|(frames, _)| frames.start);
    let known: Vec<Range<u64>> = regions.iter().map(|(frames, _)| frames.clone()).collect();
    let mut at = 0;
    for frames in known {
        if at < frames.start {
            regions.push((at..frames.start, "pool: heap, disk buffers, programs, free"));
        }
        at = at.max(frames.end);
    }
    regions.retain(|(frames, _)| !frames.is_empty());
    regions.sort_unstable_by_key(|(frames, _)| frames.start);
    regions
}

/// A page of our own, alone in its frame. Dropping it frees the frame.
#[derive(Debug)]
pub struct OwnedPage {
    frame: Pfn,
}

/// A page of zeros; `None` when memory is short.
pub(crate) fn own_page() -> Option<OwnedPage> {
    let page = raw_page()?;
    // SAFETY: the frame is mapped writable and was taken just now: nobody else can reach it, so
    // the processor may do it as fast as it can.
    unsafe { address_of(page.frame).as_mut_ptr::<Page>().write_bytes(0, 1) };
    Some(page)
}

/// A page with anything in it; `None` when memory is short.
pub(super) fn raw_page() -> Option<OwnedPage> {
    take_frames(1).map(|frame| OwnedPage { frame })
}

impl OwnedPage {
    /// The machine frame, by which Xen and other domains know it.
    pub(crate) fn machine_frame(&self) -> Mfn {
        machine_frame(self.frame).expect("frames without memory are never handed out")
    }

    /// Our own number of the frame.
    pub(super) const fn frame(&self) -> Pfn {
        self.frame
    }
}

impl AsRef<Page> for OwnedPage {
    fn as_ref(&self) -> &Page {
        self
    }
}

impl Deref for OwnedPage {
    type Target = Page;

    fn deref(&self) -> &Page {
        // SAFETY: the frame is mapped writable, aligned, and ours until it is dropped; a `Page` is
        // words that may change at any moment, so that a peer who maps it does no harm.
        unsafe { &*address_of(self.frame).as_ptr::<Page>() }
    }
}

impl Drop for OwnedPage {
    fn drop(&mut self) {
        give_frames(self.frame.0..self.frame.0 + 1);
    }
}
