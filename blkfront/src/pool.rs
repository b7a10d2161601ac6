//! I/O buffers out of pages that are granted once, or to nobody.
//!
//! With persistent grants the back keeps them mapped, so that in steady state neither side makes a
//! hypercall for a request; a back that maps per request finds the same grants. A disk without a
//! back has buffers of the same type, in pages that nobody else sees. The free pages are a bounded
//! lock-free queue, so buffers may be taken and dropped anywhere.

use alloc::boxed::Box;
use alloc::sync::Arc;

use arrayvec::ArrayVec;
use blkif::{SECTOR_SIZE, SECTORS_PER_PAGE, SEGMENTS_MAX, Segment, Segments};
use crossbeam_queue::ArrayQueue;
use ring::{PAGE_SIZE, Page};
use xen::Grants;

use crate::lender::{Lender, Lent, SetupError};

/// A pool has at most this many pages.
pub const POOL_PAGES_MAX: usize = 1 << 15;
/// The longest buffer: the 32 pages of an indirect request, 128 KiB. With a back that takes none it is
/// 11 pages, 44 KiB.
pub const BUFFER_BYTES_MAX: usize = SEGMENTS_MAX * PAGE_SIZE;

/// The pages of a pool.
enum Pages<G: Grants> {
    /// The back's as well, as long as the connection lasts.
    Lent(Lent<G>),
    /// Ours alone.
    Own(Box<[G::Page]>),
}

impl<G: Grants> Pages<G> {
    fn len(&self) -> usize {
        match self {
            Self::Lent(lent) => lent.len(),
            Self::Own(pages) => pages.len(),
        }
    }

    #[inline]
    fn page(&self, index: u16) -> &Page {
        match self {
            Self::Lent(lent) => lent.page(usize::from(index)),
            Self::Own(pages) => &pages[usize::from(index)],
        }
    }
}

/// The pages of one disk, in use or free.
struct Shared<G: Grants> {
    pages: Pages<G>,
    free: ArrayQueue<u16>,
}

/// Hands out buffers of one disk.
pub(crate) struct Pool<G: Grants> {
    shared: Arc<Shared<G>>,
}

impl<G: Grants> Pool<G> {
    /// Lends `pages` pages, at least one and at most [`POOL_PAGES_MAX`].
    pub(crate) fn new(lender: &Arc<Lender<G>>, pages: usize) -> Result<Self, SetupError> {
        let lent = Lent::new(lender, pages.clamp(1, POOL_PAGES_MAX))?;
        Ok(Self::of(Pages::Lent(lent)))
    }

    /// Takes `pages` pages, at least one and at most [`POOL_PAGES_MAX`], and lends them to nobody.
    /// `None` if there are not so many.
    pub(crate) fn own(grants: &G, pages: usize) -> Option<Self> {
        let own = (0..pages.clamp(1, POOL_PAGES_MAX)).map(|_| grants.page());
        Some(Self::of(Pages::Own(own.collect::<Option<_>>()?)))
    }

    fn of(pages: Pages<G>) -> Self {
        let free = ArrayQueue::new(pages.len());
        for index in (0..).take(pages.len()) {
            // The queue has room for every page, here and in the drop of a buffer.
            let _ = free.push(index);
        }
        Self { shared: Arc::new(Shared { pages, free }) }
    }

    /// A buffer of `length_bytes`, or `None` if too few pages are free, or the length is 0, above
    /// [`BUFFER_BYTES_MAX`], or not a multiple of 512. It holds whatever its pages held last.
    pub(crate) fn buffer(&self, length_bytes: usize) -> Option<Buffer<G>> {
        let legal = 1..=BUFFER_BYTES_MAX;
        if !legal.contains(&length_bytes) || !length_bytes.is_multiple_of(SECTOR_SIZE) {
            return None;
        }
        let pages = ArrayVec::new();
        let mut buffer = Buffer { shared: self.shared.clone(), pages, length_bytes };
        for _ in 0..length_bytes.div_ceil(PAGE_SIZE) {
            // Those taken so far go back with the drop of the buffer.
            buffer.pages.push(self.shared.free.pop()?);
        }
        Some(buffer)
    }

    /// Whether `buffer` came from here: the pages of another pool are granted to another domain.
    pub(crate) fn owns(&self, buffer: &Buffer<G>) -> bool {
        Arc::ptr_eq(&self.shared, &buffer.shared)
    }

    /// How many pages are free.
    pub(crate) fn free_pages(&self) -> usize {
        self.shared.free.len()
    }
}

/// Memory for the data of one request: 512 bytes to 128 KiB, in pages that the back can reach, if
/// the disk has one.
///
/// The back can change them at any moment, before and after the completion too. So there is no
/// slice of it: [`read`](Self::read) copies out and [`write`](Self::write) copies in. Dropping a
/// buffer gives its pages back to its pool.
pub struct Buffer<G: Grants> {
    shared: Arc<Shared<G>>,
    pages: ArrayVec<u16, SEGMENTS_MAX>,
    length_bytes: usize,
}

impl<G: Grants> Buffer<G> {
    /// How long it is, in bytes.
    pub const fn length_bytes(&self) -> usize {
        self.length_bytes
    }

    /// Its pages in order; of the last one, only what the length reaches is part of the buffer.
    pub fn pages(&self) -> impl ExactSizeIterator<Item = &Page> {
        self.pages.iter().map(|&index| self.shared.pages.page(index))
    }

    /// Copies out `out.len()` bytes from `offset_bytes` on.
    ///
    /// # Panics
    /// If the range leaves the buffer.
    pub fn read(&self, offset_bytes: usize, out: &mut [u8]) {
        self.in_bounds(offset_bytes, out.len());
        let (mut at, mut rest) = (offset_bytes, out);
        while !rest.is_empty() {
            let count = rest.len().min(PAGE_SIZE - at % PAGE_SIZE);
            let (now, later) = rest.split_at_mut(count);
            self.page_at(at).read(at % PAGE_SIZE, now);
            (at, rest) = (at + count, later);
        }
    }

    /// Copies `bytes` in, from `offset_bytes` on.
    ///
    /// # Panics
    /// If the range leaves the buffer.
    pub fn write(&self, offset_bytes: usize, bytes: &[u8]) {
        self.in_bounds(offset_bytes, bytes.len());
        let (mut at, mut rest) = (offset_bytes, bytes);
        while !rest.is_empty() {
            let count = rest.len().min(PAGE_SIZE - at % PAGE_SIZE);
            let (now, later) = rest.split_at(count);
            self.page_at(at).write(at % PAGE_SIZE, now);
            (at, rest) = (at + count, later);
        }
    }

    /// The segments that tell the back of it: whole pages, and the part of the last one. None if
    /// it is lent to nobody.
    pub(crate) fn segments(&self) -> Segments {
        let mut sectors = self.length_bytes / SECTOR_SIZE;
        let mut segments = Segments::new();
        let Pages::Lent(lent) = &self.shared.pages else { return segments };
        for &index in &self.pages {
            let count = sectors.min(usize::from(SECTORS_PER_PAGE));
            let whole = Segment::whole(lent.reference(usize::from(index)));
            let last_sector = u8::try_from(count - 1).unwrap_or(whole.last_sector);
            segments.push(Segment { last_sector, ..whole });
            sectors -= count;
        }
        segments
    }

    fn page_at(&self, offset_bytes: usize) -> &Page {
        self.shared.pages.page(self.pages[offset_bytes / PAGE_SIZE])
    }

    fn in_bounds(&self, offset_bytes: usize, count: usize) {
        let room = self.length_bytes.checked_sub(offset_bytes);
        assert!(room.is_some_and(|room| count <= room), "range outside the buffer");
    }
}

impl<G: Grants> Drop for Buffer<G> {
    fn drop(&mut self) {
        for index in self.pages.drain(..) {
            let _ = self.shared.free.push(index);
        }
    }
}

impl<G: Grants> core::fmt::Debug for Buffer<G> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Buffer").field("pages", &self.pages).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use xen::DomainId;

    use super::*;
    use crate::fake::FakeGrants;

    fn pool(pages: usize) -> (FakeGrants, Pool<FakeGrants>) {
        let grants = FakeGrants::new(pages);
        let lender = Arc::new(Lender::new(grants.clone(), DomainId(0)));
        (grants, Pool::new(&lender, pages).unwrap())
    }

    #[test]
    fn a_buffer_has_a_multiple_of_512_bytes_up_to_32_pages() {
        let (_, pool) = pool(32);
        for length in 0..=BUFFER_BYTES_MAX + 1024 {
            let legal = length > 0 && length % 512 == 0 && length <= BUFFER_BYTES_MAX;
            assert_eq!(pool.buffer(length).is_some(), legal, "{length}");
        }
    }

    #[test]
    fn no_page_is_in_two_buffers_and_dropped_ones_come_back() {
        let (grants, pool) = pool(12);
        let buffers: Vec<_> = (0..3).map(|_| pool.buffer(4 * PAGE_SIZE).unwrap()).collect();
        let mut seen: Vec<_> = buffers.iter().flat_map(|it| it.segments()).collect();
        seen.sort_by_key(|segment| segment.reference);
        seen.dedup_by_key(|segment| segment.reference);
        assert_eq!(seen.len(), 12);
        assert!(pool.buffer(512).is_none());
        drop(buffers);
        assert_eq!((pool.free_pages(), grants.grants_made()), (12, 12));
    }

    #[test]
    fn a_buffer_that_could_not_be_filled_gives_back_what_it_took() {
        let (_, pool) = pool(3);
        assert!(pool.buffer(4 * PAGE_SIZE).is_none());
        assert_eq!(pool.free_pages(), 3);
    }

    #[test]
    fn pages_stay_granted_while_a_buffer_lives_longer_than_its_pool() {
        let (grants, pool) = pool(2);
        let buffer = pool.buffer(512).unwrap();
        drop(pool);
        assert_eq!(grants.granted(), 2);
        drop(buffer);
        assert_eq!((grants.granted(), grants.pages_out()), (0, 0));
    }

    #[test]
    fn a_pool_of_its_own_grants_nothing_and_gives_all_pages_back() {
        let grants = FakeGrants::new(4);
        assert!(Pool::own(&grants, 5).is_none());
        assert_eq!(grants.pages_out(), 0);
        let pool = Pool::own(&grants, 4).unwrap();
        let buffer = pool.buffer(3 * PAGE_SIZE + 512).unwrap();
        buffer.write(2 * PAGE_SIZE - 1, &[1, 2]);
        let mut out = [0; 2];
        buffer.read(2 * PAGE_SIZE - 1, &mut out);
        assert_eq!((out, buffer.segments().len()), ([1, 2], 0));
        assert_eq!((grants.grants_made(), grants.pages_out(), pool.free_pages()), (0, 4, 0));
        drop((pool, buffer));
        assert_eq!(grants.pages_out(), 0);
    }

    #[test]
    fn what_is_written_is_read_back_across_pages() {
        let (_, pool) = pool(3);
        let buffer = pool.buffer(2 * PAGE_SIZE + 512).unwrap();
        let bytes: Vec<u8> = (0..=255).cycle().take(buffer.length_bytes()).collect();
        buffer.write(0, &bytes);
        buffer.write(4000, &[7; 200]);
        let mut out = vec![0; 300];
        buffer.read(3950, &mut out);
        assert_eq!(out[..50], bytes[3950..4000]);
        assert_eq!(out[50..250], [7; 200]);
        assert_eq!(out[250..], bytes[4200..4250]);
    }

    #[test]
    #[should_panic(expected = "range outside the buffer")]
    fn the_part_of_the_last_page_behind_the_buffer_is_out_of_reach() {
        let (_, pool) = pool(1);
        pool.buffer(512).unwrap().read(512, &mut [0]);
    }

    #[test]
    fn segments_cover_the_buffer_exactly() {
        let (_, pool) = pool(32);
        for sectors in 1..=256 {
            let buffer = pool.buffer(sectors * 512).unwrap();
            let segments = buffer.segments();
            let total: usize = segments.iter().map(|it| it.length_bytes()).sum();
            assert_eq!(total, buffer.length_bytes());
            assert_eq!(segments.len(), buffer.pages().count());
        }
    }
}
