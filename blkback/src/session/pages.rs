//! From the grant references of a batch to memory that the disk can use.
//!
//! Two ways, decided once per connection. *Kept*: both sides agreed that grants stay, so pages are
//! mapped once, in one call per batch, and found again by reference. *Copied*: the front takes its
//! grants back after each request, so data goes through pages of our own, by one grant copy per
//! batch and direction; nothing is mapped, so nothing can be left mapped. What one request's
//! grants are worth never touches another request.

use std::ops::Deref;
use std::sync::Arc;

use blkif::{Agreed, Indirect, Operation, Request, Segments, segments_in};
use ring::Page;
use xen::{Access, Direction, DomainId, GrantCopy, GrantRef, Maps};

use super::PAGES_IN_FLIGHT_MAX;
use super::cache::Cache;
use super::counters::Counters;
use crate::disk::Extent;

/// A segment in a page of descriptors.
const SEGMENT_BYTES: u16 = 8;

/// A page for the disk to work on.
#[derive(Clone)]
pub enum Buffer<P> {
    /// The guest's own, mapped here.
    Mapped(P),
    /// One of ours, to be copied from or to the guest's.
    Own(Arc<Page>),
}

impl<P: Deref<Target = Page>> Deref for Buffer<P> {
    type Target = Page;

    fn deref(&self) -> &Page {
        match self {
            Self::Mapped(page) => page,
            Self::Own(page) => page,
        }
    }
}

/// The memory of one request; `None` if a grant of it cannot be used.
pub(super) type Fetched<P> = Option<Vec<Extent<Buffer<P>>>>;

/// A request that read, and its memory.
pub(super) type Read<'a, P> = (&'a Request, &'a [Extent<Buffer<P>>]);

/// Where the pages of requests come from.
pub(super) struct Pages<M: Maps> {
    maps: M,
    peer: DomainId,
    way: Way<M::Page>,
    /// Empty lists to be used again; at most as many as there can be requests in flight.
    spare: Vec<Vec<Extent<Buffer<M::Page>>>>,
    spare_max: usize,
    missing: Vec<GrantRef>,
}

#[expect(clippy::large_enum_variant, reason = "there is one for each device")]
enum Way<P> {
    Kept {
        data: Cache<P>,
        /// Pages of descriptors, read only: they may be granted so.
        descriptors: Cache<P>,
    },
    Copied(Vec<Arc<Page>>),
}

impl<M: Maps> Pages<M> {
    pub(super) fn new(maps: M, peer: DomainId, agreed: &Agreed) -> Self {
        let slots = agreed.abi.layout(agreed.order).slots() as usize;
        let way = if agreed.persistent() {
            let data = Cache::new((slots * agreed.segments_max()).min(PAGES_IN_FLIGHT_MAX));
            Way::Kept { data, descriptors: Cache::new(slots) }
        } else {
            Way::Copied(Vec::new())
        };
        let spare_max = slots;
        Self { maps, peer, way, spare: Vec::new(), spare_max, missing: Vec::new() }
    }

    /// The segments of an indirect request, as they are now: whatever becomes of the page of
    /// descriptors, it is not looked at again. `None` if its grant cannot be used.
    pub(super) fn describe(
        &mut self,
        Indirect { count, descriptors: reference }: Indirect,
        counters: &mut Counters,
    ) -> Option<Segments> {
        match &mut self.way {
            Way::Kept { descriptors, .. } => {
                descriptors.tick();
                if let Some(page) = descriptors.find(reference) {
                    return Some(segments_in(&*page, count));
                }
                descriptors.make_room(1);
                counters.map_calls += 1;
                let pages = self.maps.map(self.peer, &[reference], Access::Read).ok()?;
                counters.pages_mapped += pages.len() as u64;
                let segments = pages.first().map(|page| segments_in(&**page, count));
                descriptors.insert(&[reference], pages);
                segments
            }
            Way::Copied(pool) => {
                let page = pool.pop().unwrap_or_default();
                let mut copies = [GrantCopy {
                    reference,
                    local: &page,
                    offset_bytes: 0,
                    length_bytes: count * SEGMENT_BYTES,
                    direction: Direction::FromPeer,
                    done: false,
                }];
                counters.copy_calls += 1;
                counters.copies += 1;
                self.maps.copy(self.peer, &mut copies);
                let segments = copies[0].done.then(|| segments_in(&*page, count));
                pool.push(page);
                segments
            }
        }
    }

    /// Finds the memory of all requests of a batch, in their order, with the data of those that
    /// write in it.
    pub(super) fn fetch(
        &mut self,
        batch: &[Request],
        fetched: &mut Vec<Fetched<M::Page>>,
        counters: &mut Counters,
    ) {
        if let Way::Kept { data, .. } = &mut self.way {
            data.tick();
            fetched.extend(batch.iter().map(|request| self.kept(request)));
            self.map(batch, fetched, counters);
        } else {
            fetched.extend(batch.iter().map(|request| Some(self.own(request))));
            self.copy_in(batch, fetched, counters);
        }
    }

    /// Maps what the batch needs and is not mapped: all in one call; if that is refused, request
    /// by request, so that only the bad ones suffer.
    fn map(
        &mut self,
        batch: &[Request],
        fetched: &mut [Fetched<M::Page>],
        counters: &mut Counters,
    ) {
        let lacking = batch.iter().zip(&*fetched).filter(|(_, found)| found.is_none());
        let lacking: Vec<&Request> = lacking.map(|(request, _)| request).collect();
        if lacking.is_empty() {
            return;
        }
        if !self.map_missing(&lacking, counters) {
            for request in lacking {
                self.map_missing(&[request], counters);
            }
        }
        let again = batch.iter().zip(fetched).filter(|(_, found)| found.is_none());
        again.for_each(|(request, found)| *found = self.kept(request));
    }

    fn map_missing(&mut self, requests: &[&Request], counters: &mut Counters) -> bool {
        let Way::Kept { data, .. } = &mut self.way else { return false };
        let references = requests.iter().flat_map(|it| &it.segments).map(|it| it.reference);
        self.missing.clear();
        self.missing.extend(references.filter(|&reference| data.find(reference).is_none()));
        self.missing.sort_unstable();
        self.missing.dedup();
        if self.missing.is_empty() {
            return true;
        }
        data.make_room(self.missing.len());
        counters.map_calls += 1;
        match self.maps.map(self.peer, &self.missing, Access::Write) {
            Ok(pages) => {
                counters.pages_mapped += pages.len() as u64;
                data.insert(&self.missing, pages);
                true
            }
            Err(_) => false,
        }
    }

    fn kept(&mut self, request: &Request) -> Fetched<M::Page> {
        let Way::Kept { data, .. } = &mut self.way else { return None };
        let mut extents = self.spare.pop().unwrap_or_default();
        for segment in &request.segments {
            let Some(page) = data.find(segment.reference) else {
                self.give_back(extents);
                return None;
            };
            let page = Buffer::Mapped(page);
            extents.push(extent(page, segment.offset_bytes(), segment.length_bytes()));
        }
        Some(extents)
    }

    /// Pages of ours in the shape of the request's.
    fn own(&mut self, request: &Request) -> Vec<Extent<Buffer<M::Page>>> {
        let mut extents = self.spare.pop().unwrap_or_default();
        let Way::Copied(pool) = &mut self.way else { return extents };
        for segment in &request.segments {
            let page = Buffer::Own(pool.pop().unwrap_or_default());
            extents.push(extent(page, segment.offset_bytes(), segment.length_bytes()));
        }
        extents
    }

    /// Copies what is to be written. A request of which a part fails loses its memory.
    fn copy_in(
        &mut self,
        batch: &[Request],
        fetched: &mut [Fetched<M::Page>],
        counters: &mut Counters,
    ) {
        let mut copies = Vec::new();
        let mut owners = Vec::new();
        for (at, (request, extents)) in batch.iter().zip(&*fetched).enumerate() {
            if request.operation == Operation::Read {
                continue;
            }
            let parts = copies_of(request, extents.iter().flatten(), Direction::FromPeer);
            copies.extend(parts);
            owners.resize(copies.len(), at);
        }
        let failed = self.copy(&mut copies, &owners, counters);
        for at in failed {
            if let Some(extents) = fetched[at].take() {
                self.give_back(extents);
            }
        }
    }

    /// Copies what was read to the guest. Each item is a request and its memory; the places in
    /// `reads` of those that failed are returned.
    pub(super) fn copy_out(
        &self,
        reads: &[Read<'_, M::Page>],
        counters: &mut Counters,
    ) -> Vec<usize> {
        if matches!(self.way, Way::Kept { .. }) {
            return Vec::new();
        }
        let mut copies = Vec::new();
        let mut owners = Vec::new();
        for (at, (request, extents)) in reads.iter().enumerate() {
            copies.extend(copies_of(request, extents.iter(), Direction::ToPeer));
            owners.resize(copies.len(), at);
        }
        self.copy(&mut copies, &owners, counters)
    }

    fn copy(
        &self,
        copies: &mut [GrantCopy<'_>],
        owners: &[usize],
        counters: &mut Counters,
    ) -> Vec<usize> {
        if copies.is_empty() {
            return Vec::new();
        }
        counters.copy_calls += 1;
        counters.copies += copies.len() as u64;
        self.maps.copy(self.peer, copies);
        let bad = copies.iter().zip(owners).filter(|(copy, _)| !copy.done);
        let mut failed: Vec<usize> = bad.map(|(_, &owner)| owner).collect();
        failed.dedup();
        failed
    }

    /// An empty list for memory.
    pub(super) fn list(&mut self) -> Vec<Extent<Buffer<M::Page>>> {
        self.spare.pop().unwrap_or_default()
    }

    /// Takes memory back after use. A page that another job still uses is left to that.
    pub(super) fn give_back(&mut self, mut extents: Vec<Extent<Buffer<M::Page>>>) {
        for extent in extents.drain(..) {
            if let (Way::Copied(pool), Buffer::Own(mut page)) = (&mut self.way, extent.page)
                && Arc::get_mut(&mut page).is_some()
            {
                pool.push(page);
            }
        }
        if extents.capacity() > 0 && self.spare.len() < self.spare_max {
            self.spare.push(extents);
        }
    }

    /// How many lists are kept to be used again.
    #[cfg(test)]
    pub(super) fn spares(&self) -> usize {
        self.spare.len()
    }
}

#[expect(clippy::cast_possible_truncation, reason = "blkif bounds both by the size of a page")]
fn extent<B>(page: B, offset_bytes: usize, length_bytes: usize) -> Extent<B> {
    Extent { page, offset_bytes: offset_bytes as u16, length_bytes: length_bytes as u16 }
}

/// One copy for each segment of a request.
fn copies_of<'a, P: Deref<Target = Page> + 'a>(
    request: &Request,
    extents: impl Iterator<Item = &'a Extent<Buffer<P>>>,
    direction: Direction,
) -> impl Iterator<Item = GrantCopy<'a>> {
    request.segments.iter().zip(extents).map(move |(segment, extent)| GrantCopy {
        reference: segment.reference,
        local: &extent.page,
        offset_bytes: extent.offset_bytes,
        length_bytes: extent.length_bytes,
        direction,
        done: false,
    })
}
