//! What a hostile guest has granted, and the event channel to it, with every use counted.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ring::{Memory, Page};
use xen::{Access, Direction, DomainId, Events, GrantCopy, GrantRef, MapError, Maps, NoPort, Port};

use crate::torture::wild::Descriptors;

/// The first reference of a yard.
const FIRST: u32 = 8;
/// The reference of the page of descriptors: far from the others, so that none of those becomes it by
/// a bit.
pub(super) const DESCRIPTORS: u32 = 0xd35c_5000;

/// What was asked of a yard.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// Pages that are mapped now.
    pub(super) mapped: AtomicU64,
    /// Calls that map or copy.
    pub(super) calls: AtomicU64,
    /// References in those calls.
    pub(super) references: AtomicU64,
    /// Events sent.
    pub(super) events: AtomicU64,
    /// Event channels that are open.
    pub(super) ports: AtomicU64,
}

impl Asked {
    /// All that costs something.
    pub(super) fn work(&self) -> u64 {
        let sum = [&self.calls, &self.references, &self.events];
        sum.map(|count| count.load(Ordering::Relaxed)).iter().sum()
    }
}

/// The grants of a guest: `FIRST` and the references that follow. Clones are the same.
#[derive(Clone)]
pub(super) struct Yard {
    pages: Arc<[Arc<Page>]>,
    descriptors: Arc<Page>,
    /// How often each was asked for.
    pub(super) asked: Arc<Asked>,
}

impl Yard {
    /// A yard of `pages` granted pages.
    pub(super) fn new(pages: usize) -> Self {
        let pages = (0..pages).map(|_| Arc::new(Page::new())).collect();
        Self { pages, descriptors: Arc::default(), asked: Arc::default() }
    }

    /// The first reference, and how many there are.
    pub(super) fn grants(&self) -> (u32, u32) {
        (FIRST, u32::try_from(self.pages.len()).unwrap_or(u32::MAX))
    }

    /// Fills the page of descriptors.
    pub(super) fn describe(&self, words: &Descriptors) {
        self.descriptors.store_all(0, words);
    }

    /// Whether a reference can be used.
    pub(super) fn has(&self, reference: u32) -> bool {
        self.page(GrantRef(reference)).is_some()
    }

    fn page(&self, reference: GrantRef) -> Option<&Arc<Page>> {
        if reference.0 == DESCRIPTORS {
            return Some(&self.descriptors);
        }
        self.pages.get(reference.0.checked_sub(FIRST)? as usize)
    }

    fn count(&self, references: usize) {
        self.asked.calls.fetch_add(1, Ordering::Relaxed);
        self.asked.references.fetch_add(references as u64, Ordering::Relaxed);
    }
}

/// A mapped page, counted until its last clone is dropped.
#[derive(Clone)]
pub(super) struct Lease(Arc<Held>);

struct Held {
    page: Arc<Page>,
    asked: Arc<Asked>,
}

impl Deref for Lease {
    type Target = Page;

    fn deref(&self) -> &Page {
        &self.0.page
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.asked.mapped.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Maps for Yard {
    type Page = Lease;

    fn map(&self, _: DomainId, wanted: &[GrantRef], _: Access) -> Result<Vec<Lease>, MapError> {
        self.count(wanted.len());
        let pages: Option<Vec<_>> = wanted.iter().map(|&it| self.page(it)).collect();
        let lease = |page: &Arc<Page>| {
            self.asked.mapped.fetch_add(1, Ordering::Relaxed);
            Lease(Arc::new(Held { page: page.clone(), asked: self.asked.clone() }))
        };
        Ok(pages.ok_or(MapError::Refused)?.into_iter().map(lease).collect())
    }

    /// # Panics
    /// If a copy is empty or leaves its page.
    fn copy(&self, _: DomainId, copies: &mut [GrantCopy<'_>]) {
        self.count(copies.len());
        for copy in copies {
            let (offset, length) = (usize::from(copy.offset_bytes), usize::from(copy.length_bytes));
            assert!(length > 0 && offset + length <= ring::PAGE_SIZE, "a copy outside its page");
            let Some(theirs) = self.page(copy.reference) else { continue };
            let mut bytes = [0; ring::PAGE_SIZE];
            let bytes = &mut bytes[..length.min(256)];
            match copy.direction {
                Direction::FromPeer => {
                    theirs.read(offset, bytes);
                    copy.local.write(offset, bytes);
                }
                Direction::ToPeer => {
                    copy.local.read(offset, bytes);
                    theirs.write(offset, bytes);
                }
            }
            copy.done = true;
        }
    }
}

impl Events for Yard {
    fn offer(&self, _: DomainId) -> Result<Port, NoPort> {
        self.asked.ports.fetch_add(1, Ordering::Relaxed);
        Ok(Port(9))
    }

    fn bind(&self, peer: DomainId, _: Port) -> Result<Port, NoPort> {
        self.offer(peer)
    }

    fn notify(&self, _: Port) {
        self.asked.events.fetch_add(1, Ordering::Relaxed);
    }

    fn close(&self, _: Port) {
        self.asked.ports.fetch_sub(1, Ordering::Relaxed);
    }
}
