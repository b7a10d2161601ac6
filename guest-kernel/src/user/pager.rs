//! Which pages of a program are in memory, which in swap, and which nobody has touched.
//!
//! Memory comes when it is first touched, as zeros. When no frame is to be had, the clock goes
//! over the pages in memory: what was accessed since it last came by gets a second chance, the
//! rest goes out, several together and to places in a row. A page that has not changed since it
//! came from swap has its copy there still and is not written again.
//!
//! The program does not run while this works, so nothing changes under its hands.

use alloc::vec::Vec;
use core::ops::Range;

use arrayvec::ArrayVec;

use super::{PAGE_BYTES, PAGES_MAX, Page, STACK, Slot};
use crate::layout::Use;

/// Pages that go out together.
pub const BATCH: usize = 32;
/// Pages that come back together.
pub const WANTED_MAX: usize = 32;
/// Accesses that are forgotten together.
const GLANCE: usize = 64;

/// What the processor noted about a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// It was read, written or executed since it was mapped or last forgotten.
    pub accessed: bool,
    /// It was written since it was mapped.
    pub dirty: bool,
}

/// The page tables of a program, and the frames for it.
pub trait Space {
    /// A frame: 4096 bytes of memory.
    type Frame;

    /// A frame with anything in it; `None` if memory is short.
    fn frame(&mut self) -> Option<Self::Frame>;
    /// Fills a frame with zeros.
    fn clear(&mut self, frame: &Self::Frame);
    /// Maps pages that are not mapped, at most [`WANTED_MAX`]; `None` if there is no memory for the
    /// tables, and then perhaps only some of them.
    fn map(&mut self, pages: &[(Page, &Self::Frame, Use)]) -> Option<()>;
    /// Ends the mapping of pages; after it nothing reaches their frames.
    fn unmap(&mut self, pages: &[Page]);
    /// What the processor noted about a page that is mapped.
    fn usage(&self, page: Page) -> Usage;
    /// Forgets that pages were accessed. What the processor remembers of them may keep it from noting
    /// the next access, until some page is unmapped.
    fn forget(&mut self, pages: &[Page]);
}

/// Where pages go that have no frame.
pub trait Backing<F> {
    /// What can go wrong there.
    type Error;

    /// A place for a page; `None` if there is none, or no swap at all.
    fn take(&mut self) -> Option<Slot>;
    /// Gives a place back.
    fn give(&mut self, slot: Slot);
    /// Whether places are so few that a page that came back should not keep its own.
    fn scarce(&self) -> bool;
    /// Writes pages out; when it returns their frames may be used for something else.
    ///
    /// # Errors
    /// The backing's own; perhaps that of an earlier write.
    fn write(&mut self, pages: &[(Slot, &F)]) -> Result<(), Self::Error>;
    /// Reads pages back, all at once.
    ///
    /// # Errors
    /// The backing's own.
    fn read(&mut self, pages: &[(Slot, &F)]) -> Result<(), Self::Error>;
}

/// What the program wanted to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read.
    Read,
    /// Write.
    Write,
    /// Execute.
    Execute,
}

/// Why the program cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop<E> {
    /// The address is not its memory, or it may not do that there.
    Wild,
    /// No frame and no place to put a page.
    OutOfMemory,
    /// The backing failed.
    Backing(E),
}

/// What happened so far, in pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Faults that were answered.
    pub faults: u64,
    /// Read from swap.
    pub ins: u64,
    /// Written to swap.
    pub outs: u64,
    /// Taken out of memory without writing, because the copy in swap was good.
    pub clean: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Untouched,
    /// In memory: an index into `residents`.
    Resident(u32),
    Swapped(Slot),
}

struct Resident<F> {
    page: Page,
    frame: F,
    /// Where its copy in swap is.
    slot: Option<Slot>,
    /// Changed by the kernel, which the processor does not note.
    changed: bool,
}

/// A page on its way back from swap.
struct Coming<F> {
    page: Page,
    slot: Slot,
    frame: F,
}

/// The memory of one program.
pub struct Pager<S: Space> {
    // First of all, so that the tables are gone before the frames that they map.
    space: S,
    residents: Vec<Resident<S::Frame>>,
    spares: ArrayVec<S::Frame, BATCH>,
    pages: Vec<State>,
    /// In rising order, without overlap; the last one is the heap.
    regions: Vec<(Range<u32>, Use)>,
    hand: usize,
    counters: Counters,
}

impl<S: Space> Pager<S> {
    /// Memory with a stack, `parts` in rising order, and an empty heap from page `end` on. At
    /// most `frames_max` pages will be in memory at a time. `None` if there is no memory for the
    /// bookkeeping.
    pub fn new(
        space: S,
        parts: impl Iterator<Item = (Range<u32>, Use)>,
        end: u32,
        frames_max: usize,
    ) -> Option<Self> {
        let mut residents = Vec::new();
        residents.try_reserve_exact(frames_max.max(1)).ok()?;
        let mut regions = Vec::from([(STACK, Use::Data)]);
        regions.extend(parts);
        regions.push((end..end, Use::Data));
        let mut pager = Self {
            space,
            residents,
            spares: ArrayVec::new(),
            pages: Vec::new(),
            regions,
            hand: 0,
            counters: Counters::default(),
        };
        pager.reach(end)?;
        Some(pager)
    }

    /// What happened so far.
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// The page tables, to run the program on.
    pub const fn space(&self) -> &S {
        &self.space
    }

    /// How many pages are in memory.
    pub fn resident(&self) -> usize {
        self.residents.len()
    }

    /// The first address behind the heap.
    pub fn heap_end(&self) -> u64 {
        let end = self.regions.last().map_or(0, |(heap, _)| heap.end);
        Page(end).address()
    }

    /// Makes the heap longer by so many bytes, in whole pages. `None` if the window, or the memory
    /// for the bookkeeping, does not reach that far; nothing has changed then.
    pub fn grow_heap(&mut self, bytes: u64) -> Option<()> {
        let more = u32::try_from(bytes.div_ceil(PAGE_BYTES)).ok()?;
        let end = self.regions.last()?.0.end.checked_add(more).filter(|&end| end < PAGES_MAX)?;
        self.reach(end)?;
        self.regions.last_mut()?.0.end = end;
        Some(())
    }

    fn reach(&mut self, end: u32) -> Option<()> {
        let length = end as usize;
        self.pages.try_reserve_exact(length.saturating_sub(self.pages.len())).ok()?;
        self.pages.resize(length, State::Untouched);
        Some(())
    }

    /// Answers a page fault: brings the page into memory.
    ///
    /// # Errors
    /// [`Stop`].
    pub fn fault<B: Backing<S::Frame>>(
        &mut self,
        backing: &mut B,
        address: u64,
        access: Access,
    ) -> Result<(), Stop<B::Error>> {
        let page = self.allowed(address, access).ok_or(Stop::Wild)?;
        self.counters.faults += 1;
        self.bring(backing, page).map(drop)
    }

    /// The frame of the page at `address`, for the kernel to read what the program may read.
    ///
    /// # Errors
    /// [`Stop`].
    pub fn readable<B: Backing<S::Frame>>(
        &mut self,
        backing: &mut B,
        address: u64,
    ) -> Result<&S::Frame, Stop<B::Error>> {
        let page = self.allowed(address, Access::Read).ok_or(Stop::Wild)?;
        let at = self.bring(backing, page)?;
        Ok(&self.residents[at].frame)
    }

    /// The frame of the page at `address`, for the kernel to write what the program may write.
    ///
    /// # Errors
    /// [`Stop`].
    pub fn writable<B: Backing<S::Frame>>(
        &mut self,
        backing: &mut B,
        address: u64,
    ) -> Result<&S::Frame, Stop<B::Error>> {
        let page = self.allowed(address, Access::Write).ok_or(Stop::Wild)?;
        self.filled(backing, page)
    }

    /// The frame of a page, for the loader, which writes where the program may not.
    ///
    /// # Errors
    /// [`Stop`].
    pub fn loadable<B: Backing<S::Frame>>(
        &mut self,
        backing: &mut B,
        page: Page,
    ) -> Result<&S::Frame, Stop<B::Error>> {
        rights(&self.regions, page).ok_or(Stop::Wild)?;
        self.filled(backing, page)
    }

    /// Ends the program's memory: all places in swap are given back.
    pub fn end<B: Backing<S::Frame>>(self, backing: &mut B) {
        let resident = self.residents.iter().filter_map(|it| it.slot);
        let swapped = self.pages.iter().filter_map(|state| match state {
            State::Swapped(slot) => Some(*slot),
            _ => None,
        });
        resident.chain(swapped).for_each(|slot| backing.give(slot));
    }

    fn filled<B: Backing<S::Frame>>(
        &mut self,
        backing: &mut B,
        page: Page,
    ) -> Result<&S::Frame, Stop<B::Error>> {
        let at = self.bring(backing, page)?;
        let resident = &mut self.residents[at];
        resident.changed = true;
        Ok(&resident.frame)
    }

    fn allowed(&self, address: u64, access: Access) -> Option<Page> {
        let page = Page::at(address)?;
        let rights = rights(&self.regions, page)?;
        let fits = match access {
            Access::Read => rights != Use::Nothing,
            Access::Write => rights == Use::Data,
            Access::Execute => rights == Use::Code,
        };
        fits.then_some(page)
    }

    /// Reads pages from swap that the program says it will access soon, all at once. Those that
    /// are not in swap, or not its own, are passed over. Tells how many were read.
    ///
    /// # Errors
    /// [`Stop::Backing`].
    pub fn want<B: Backing<S::Frame>>(
        &mut self,
        backing: &mut B,
        addresses: impl Iterator<Item = u64>,
    ) -> Result<usize, Stop<B::Error>> {
        let mut coming = ArrayVec::<Coming<S::Frame>, WANTED_MAX>::new();
        for address in addresses {
            let Some(page) = self.allowed(address, Access::Read) else { continue };
            let State::Swapped(slot) = self.pages[page.0 as usize] else { continue };
            if coming.is_full() || coming.iter().any(|other| other.page == page) {
                continue;
            }
            // When memory is short the program gets fewer: it is a wish.
            match self.obtain(backing, coming.len()) {
                Ok(frame) => coming.push(Coming { page, slot, frame }),
                Err(Stop::Backing(error)) => return Err(Stop::Backing(error)),
                Err(_) => break,
            }
        }
        let count = coming.len();
        self.read(backing, coming)?;
        Ok(count)
    }

    /// Reads pages whose frames are there, and maps them.
    fn read<B: Backing<S::Frame>>(
        &mut self,
        backing: &mut B,
        mut coming: ArrayVec<Coming<S::Frame>, WANTED_MAX>,
    ) -> Result<(), Stop<B::Error>> {
        if coming.is_empty() {
            return Ok(());
        }
        // In the order of their places, so that neighbours come in one request.
        coming.sort_unstable_by_key(|page| page.slot);
        let reads: ArrayVec<_, WANTED_MAX> =
            coming.iter().map(|page| (page.slot, &page.frame)).collect();
        backing.read(&reads).map_err(Stop::Backing)?;
        self.counters.ins += reads.len() as u64;
        drop(reads);
        let count = coming.len();
        for Coming { page, slot, frame } in coming {
            if backing.scarce() {
                // From here on this page is like one that never was in swap.
                backing.give(slot);
                self.settle(page, frame, None);
            } else {
                self.settle(page, frame, Some(slot));
            }
        }
        self.map_last(count)
    }

    /// Notes a page as in memory. Without a place in swap it counts as changed, unless it is zeros.
    fn settle(&mut self, page: Page, frame: S::Frame, slot: Option<Slot>) {
        let was_swapped = matches!(self.pages[page.0 as usize], State::Swapped(_));
        let changed = was_swapped && slot.is_none();
        let at = u32::try_from(self.residents.len()).unwrap_or(u32::MAX);
        self.residents.push(Resident { page, frame, slot, changed });
        self.pages[page.0 as usize] = State::Resident(at);
    }

    /// Maps the last of the residents, together.
    fn map_last<E>(&mut self, count: usize) -> Result<(), Stop<E>> {
        let Self { space, residents, regions, .. } = self;
        let first = residents.len() - count;
        let mut pages = ArrayVec::<_, WANTED_MAX>::new();
        for Resident { page, frame, .. } in &residents[first..] {
            pages.push((*page, frame, rights(regions, *page).ok_or(Stop::Wild)?));
        }
        // Without a mapping they are in memory all the same, and the program ends.
        space.map(&pages).ok_or(Stop::OutOfMemory)
    }

    /// Has the page in memory; tells its place among the residents.
    fn bring<B: Backing<S::Frame>>(
        &mut self,
        backing: &mut B,
        page: Page,
    ) -> Result<usize, Stop<B::Error>> {
        match self.pages[page.0 as usize] {
            State::Resident(at) => Ok(at as usize),
            State::Untouched => {
                let frame = self.obtain(backing, 0)?;
                self.space.clear(&frame);
                self.settle(page, frame, None);
                self.map_last(1)?;
                Ok(self.residents.len() - 1)
            }
            State::Swapped(slot) => {
                let frame = self.obtain(backing, 0)?;
                self.read(backing, core::iter::once(Coming { page, slot, frame }).collect())?;
                Ok(self.residents.len() - 1)
            }
        }
    }

    /// A frame, with anything in it. `held` others are not among the residents yet.
    fn obtain<B: Backing<S::Frame>>(
        &mut self,
        backing: &mut B,
        held: usize,
    ) -> Result<S::Frame, Stop<B::Error>> {
        if let Some(frame) = self.spares.pop() {
            return Ok(frame);
        }
        if self.residents.len() + held < self.residents.capacity()
            && let Some(frame) = self.space.frame()
        {
            return Ok(frame);
        }
        self.evict(backing)?;
        self.spares.pop().ok_or(Stop::OutOfMemory)
    }

    /// Takes up to [`BATCH`] pages out of memory; their frames become spares.
    fn evict<B: Backing<S::Frame>>(&mut self, backing: &mut B) -> Result<(), Stop<B::Error>> {
        let victims = self.choose(backing);
        let pages: ArrayVec<Page, BATCH> =
            victims.iter().map(|&(at, _)| self.residents[at].page).collect();
        self.space.unmap(&pages);
        let mut writes = ArrayVec::<(Slot, &S::Frame), BATCH>::new();
        for &(at, write) in &victims {
            let resident = &self.residents[at];
            match resident.slot.filter(|_| write) {
                Some(slot) => writes.push((slot, &resident.frame)),
                None => self.counters.clean += 1,
            }
        }
        self.counters.outs += writes.len() as u64;
        // In the order of their places, so that neighbours go in one request.
        writes.sort_by_key(|write| write.0);
        let written = if writes.is_empty() { Ok(()) } else { backing.write(&writes) };
        drop(writes);
        self.remove(victims);
        written.map_err(Stop::Backing)
    }

    /// Goes over the pages in memory, at most twice round, and finds those to go, each with
    /// whether it must be written. They have a place in swap then, if they need one.
    fn choose<B: Backing<S::Frame>>(&mut self, backing: &mut B) -> ArrayVec<(usize, bool), BATCH> {
        let mut victims = ArrayVec::new();
        let mut seen = ArrayVec::<Page, GLANCE>::new();
        let count = self.residents.len();
        for step in 0..2 * count {
            if victims.is_full() {
                break;
            }
            if seen.is_full() || step == count {
                self.space.forget(&seen);
                seen.clear();
            }
            let at = self.hand % count;
            self.hand = at + 1;
            let resident = &mut self.residents[at];
            let usage = self.space.usage(resident.page);
            if usage.accessed {
                // On the second round the seen ones of the first are forgotten, so this ends.
                seen.push(resident.page);
                continue;
            }
            if victims.iter().any(|&(other, _)| other == at) {
                continue;
            }
            let write = usage.dirty || resident.changed;
            if write {
                // The old copy is good for nothing, and it was read, so nothing is on its way there.
                // A new place, next to those of the others that go now: they go in few requests.
                resident.slot.take().into_iter().for_each(|slot| backing.give(slot));
                resident.slot = backing.take();
                if resident.slot.is_none() {
                    continue;
                }
            }
            victims.push((at, write));
        }
        self.space.forget(&seen);
        victims
    }

    /// Takes those out of the residents that were chosen.
    fn remove(&mut self, mut victims: ArrayVec<(usize, bool), BATCH>) {
        // From the last to the first: what moves into the gap is not to be removed itself.
        victims.sort_unstable_by_key(|victim| core::cmp::Reverse(victim.0));
        for (at, _) in victims {
            let gone = self.residents.swap_remove(at);
            // A page that was read and never written is zeros again when it is next touched.
            let state = gone.slot.map_or(State::Untouched, State::Swapped);
            self.pages[gone.page.0 as usize] = state;
            if let Some(moved) = self.residents.get(at) {
                let index = u32::try_from(at).unwrap_or(u32::MAX);
                self.pages[moved.page.0 as usize] = State::Resident(index);
            }
            // Only asked for when there was no spare, and no more than fit.
            let _ = self.spares.try_push(gone.frame);
        }
    }
}

fn rights(regions: &[(Range<u32>, Use)], page: Page) -> Option<Use> {
    let region = regions.iter().find(|(pages, _)| pages.contains(&page.0))?;
    Some(region.1)
}

// By hand: a derive would ask that the frames be `Debug` too.
impl<S: Space> core::fmt::Debug for Pager<S> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let counters = &self.counters;
        f.debug_struct("Pager").field("counters", counters).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::super::model::{Model, ModelSwap, Random};
    use super::super::{IMAGE_FIRST, WINDOW};
    use super::*;

    const HEAP: u64 = WINDOW.start + IMAGE_FIRST as u64 * PAGE_BYTES;

    fn pager(frames: usize, pages: u64) -> Pager<Model> {
        let mut pager =
            Pager::new(Model::new(frames), core::iter::empty(), IMAGE_FIRST, 1000).expect("memory");
        pager.grow_heap(pages * PAGE_BYTES).expect("room");
        pager
    }

    /// The program's own accesses: fault until it goes through.
    fn access(
        pager: &mut Pager<Model>,
        swap: &mut ModelSwap,
        page: u64,
        write: Option<u64>,
    ) -> Result<u64, Stop<()>> {
        let address = HEAP + page * PAGE_BYTES;
        let kind = if write.is_some() { Access::Write } else { Access::Read };
        loop {
            let at = Page::at(address).expect("in the window");
            match pager.space.touch(at, write) {
                Some(value) => return Ok(value),
                None => pager.fault(swap, address, kind)?,
            }
        }
    }

    #[test]
    fn four_times_the_memory_keeps_all_it_was_given() {
        for seed in 0..20 {
            let (mut pager, mut swap) = (pager(64, 256), ModelSwap::new(300));
            let mut random = Random(seed);
            let mut truth = std::vec![0_u64; 256];
            for round in 1..5000 {
                let page = random.next() % 256;
                let write = random.next().is_multiple_of(2).then_some(round);
                let found = access(&mut pager, &mut swap, page, write).expect("goes on");
                let known = &mut truth[usize::try_from(page).expect("small")];
                assert_eq!(found, *known, "page {page} in round {round} of seed {seed}");
                *known = write.unwrap_or(*known);
            }
            let counters = pager.counters();
            assert!(counters.ins > 1000 && counters.outs > 500, "{counters:?}");
            assert!(counters.clean > 100, "clean pages are written again: {counters:?}");
            pager.end(&mut swap);
            assert_eq!(swap.free(), 300, "a place was lost");
        }
    }

    #[test]
    fn what_is_wanted_comes_together_and_is_what_it_was() {
        let (mut pager, mut swap) = (pager(64, 256), ModelSwap::new(300));
        for page in 0..256 {
            access(&mut pager, &mut swap, page, Some(page + 1)).expect("goes on");
        }
        let mut random = Random(9);
        for _ in 0..300 {
            let pages: std::vec::Vec<u64> = (0..40).map(|_| random.next() % 260).collect();
            let (faults, reads) = (pager.counters().faults, swap.reads);
            let addresses = pages.iter().map(|page| HEAP + page * PAGE_BYTES);
            let count = pager.want(&mut swap, addresses.chain([0, u64::MAX])).expect("goes on");
            assert!(count <= WANTED_MAX && swap.reads <= reads + 1, "not in one batch");
            assert_eq!(pager.counters().faults, faults);
            for &page in pages.iter().take(8).filter(|page| **page < 256) {
                assert_eq!(access(&mut pager, &mut swap, page, None), Ok(page + 1));
            }
        }
        assert!(pager.counters().ins > 3000, "{:?}", pager.counters());
        pager.end(&mut swap);
        assert_eq!(swap.free(), 300);
    }

    #[test]
    fn what_goes_out_together_lies_together() {
        // Most of the area is free, as after any change of what is in it.
        let (mut pager, mut swap) = (pager(64, 256), ModelSwap::new(2048));
        let mut random = Random(5);
        for round in 1..20_000 {
            let page = random.next() % 256;
            access(&mut pager, &mut swap, page, Some(round)).expect("goes on");
        }
        let (outs, rows) = (pager.counters().outs, swap.rows);
        assert!(outs > 10_000 && rows < outs / 8, "{outs} pages in {rows} rows");
    }

    #[test]
    fn a_swap_that_just_fits_is_enough() {
        // 64 in memory and 192 in swap: places of pages in memory must be given back.
        let (mut pager, mut swap) = (pager(64 + BATCH, 256), ModelSwap::new(224));
        let mut random = Random(3);
        let mut truth = std::vec![0_u64; 256];
        for round in 1..10_000 {
            let page = random.next() % 256;
            let write = (round < 3000 || round % 8 == 0).then_some(round);
            let found = access(&mut pager, &mut swap, page, write).expect("goes on");
            let known = &mut truth[usize::try_from(page).expect("small")];
            assert_eq!(found, *known, "page {page} in round {round}");
            *known = write.unwrap_or(*known);
        }
    }

    #[test]
    fn what_the_kernel_writes_for_a_program_goes_to_swap_too() {
        let (mut pager, mut swap) = (pager(64, 256), ModelSwap::new(300));
        for round in 1..4 {
            for page in 0..256 {
                let address = HEAP + page * PAGE_BYTES;
                pager.writable(&mut swap, address).expect("goes on").set(page * round);
            }
            for page in 0..256 {
                assert_eq!(access(&mut pager, &mut swap, page, None), Ok(page * round));
            }
        }
    }

    #[test]
    fn without_swap_memory_ends_and_what_was_only_read_can_be_forgotten() {
        let (mut pager, mut swap) = (pager(64, 256), ModelSwap::new(0));
        for page in 0..256 {
            assert_eq!(access(&mut pager, &mut swap, page, None), Ok(0));
        }
        let written =
            (0..256).take_while(|&page| access(&mut pager, &mut swap, page, Some(7)).is_ok());
        assert_eq!(written.count(), 64);
        let stop = access(&mut pager, &mut swap, 255, Some(7));
        assert_eq!(stop, Err(Stop::OutOfMemory));
    }

    #[test]
    fn what_is_in_use_stays_and_what_is_not_goes() {
        let (mut pager, mut swap) = (pager(256, 2048), ModelSwap::new(2048));
        for page in 0..2048 {
            access(&mut pager, &mut swap, page, Some(1)).expect("goes on");
            // Eight pages are used all the time.
            (0..8).for_each(|hot| {
                access(&mut pager, &mut swap, hot, None).expect("goes on");
            });
        }
        // Whenever all were accessed, the first in the row go; without a second chance these
        // eight would go and come about sixty times.
        assert!(pager.counters().ins <= 16, "{:?}", pager.counters());
    }

    #[test]
    fn errors_of_the_swap_reach_the_program() {
        let (mut pager, mut swap) = (pager(64, 256), ModelSwap::new(300));
        swap.fail_writes = true;
        let stop = (0..256).find_map(|page| access(&mut pager, &mut swap, page, Some(1)).err());
        assert_eq!(stop, Some(Stop::Backing(())));
        pager.end(&mut swap);
        assert_eq!(swap.free(), 300);
    }

    #[test]
    fn only_what_is_its_own_can_be_touched() {
        let parts = [(IMAGE_FIRST..IMAGE_FIRST + 1, Use::Code)].into_iter();
        let model = Model::new(64);
        let mut pager = Pager::new(model, parts, IMAGE_FIRST + 1, 64).expect("memory");
        let swap = &mut ModelSwap::new(0);
        for (address, access, fits) in [
            (HEAP, Access::Execute, true),
            (HEAP, Access::Write, false),
            (HEAP + PAGE_BYTES, Access::Read, false),
            (Page(STACK.start).address(), Access::Write, true),
            (Page(STACK.start).address(), Access::Execute, false),
            (Page(STACK.start).address() - 1, Access::Write, false),
            (Page(STACK.end).address(), Access::Write, false),
            (0, Access::Read, false),
            (WINDOW.end, Access::Read, false),
            (u64::MAX, Access::Read, false),
        ] {
            let found = pager.fault(swap, address, access);
            assert_eq!(found.is_ok(), fits, "{address:#x} {access:?}");
        }
        assert!(pager.writable(swap, HEAP).is_err(), "the kernel writes no code for it");
        assert!(pager.loadable(swap, Page(IMAGE_FIRST)).is_ok());
        assert_eq!(pager.grow_heap(u64::MAX), None);
        assert_eq!(pager.grow_heap(1 << 30), None);
    }
}
