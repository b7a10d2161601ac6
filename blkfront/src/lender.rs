//! Pages granted to the back, and the rule for their end.
//!
//! A page that the back may still have mapped is never used for anything else: when its grant
//! cannot be taken back, the page is given up for good and counted (XSA-396).

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicUsize, Ordering};

use ring::sync::AtomicU32;
use ring::{Memory, PAGE_WORDS, Page, load_pages, store_pages};
use xen::{Access, DomainId, GrantError, GrantRef, Grants, NoPort};

/// Why a connection could not be set up on our side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetupError {
    /// No free page.
    OutOfMemory,
    /// No free grant.
    Grant(GrantError),
    /// No free event channel.
    NoPort(NoPort),
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfMemory => f.write_str("out of memory for pages to share"),
            Self::Grant(error) => error.fmt(f),
            Self::NoPort(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for SetupError {}

/// Grants pages to one domain and counts those that it did not give back.
#[derive(Debug)]
pub struct Lender<G> {
    grants: G,
    to: DomainId,
    kept: AtomicUsize,
}

impl<G: Grants> Lender<G> {
    /// Lends to `to`.
    pub fn new(grants: G, to: DomainId) -> Self {
        Self { grants, to, kept: AtomicUsize::new(0) }
    }

    /// The domain that pages are granted to.
    pub(crate) const fn to(&self) -> DomainId {
        self.to
    }

    /// How many pages were given up because the peer still had them mapped.
    pub(crate) fn kept(&self) -> usize {
        self.kept.load(Ordering::Relaxed)
    }
}

/// Pages lent together: they are granted, writable, from here to the drop of this value.
pub struct Lent<G: Grants> {
    lender: Arc<Lender<G>>,
    pages: Vec<(G::Page, GrantRef)>,
}

impl<G: Grants> Lent<G> {
    /// Lends `count` fresh pages of zeros; all or none.
    ///
    /// # Errors
    /// [`SetupError`]; then nothing stays lent.
    pub fn new(lender: &Arc<Lender<G>>, count: usize) -> Result<Self, SetupError> {
        let mut lent = Self { lender: lender.clone(), pages: Vec::with_capacity(count) };
        for _ in 0..count {
            let page = lender.grants.page().ok_or(SetupError::OutOfMemory)?;
            let granted = lender.grants.grant(&page, lender.to, Access::Write);
            lent.pages.push((page, granted.map_err(SetupError::Grant)?));
        }
        Ok(lent)
    }

    pub(crate) fn len(&self) -> usize {
        self.pages.len()
    }

    /// The page at `index`, one of ours and so below [`len`](Self::len).
    pub(crate) fn page(&self, index: usize) -> &Page {
        &self.pages[index].0
    }

    /// The grant of the page at `index`.
    ///
    /// # Panics
    /// If there are not so many pages.
    pub fn reference(&self, index: usize) -> GrantRef {
        self.pages[index].1
    }
}

impl<G: Grants> Memory for Lent<G> {
    fn words(&self) -> usize {
        self.pages.len() * PAGE_WORDS
    }

    fn word(&self, index: usize) -> &AtomicU32 {
        self.page(index / PAGE_WORDS).word(index % PAGE_WORDS)
    }

    #[inline]
    fn load_all(&self, index: usize, out: &mut [u32]) {
        load_pages(|number| self.page(number), index, out);
    }

    #[inline]
    fn store_all(&self, index: usize, values: &[u32]) {
        store_pages(|number| self.page(number), index, values);
    }
}

impl<G: Grants> Drop for Lent<G> {
    fn drop(&mut self) {
        for (page, reference) in self.pages.drain(..) {
            if self.lender.grants.revoke(reference).is_err() {
                core::mem::forget(page);
                self.lender.kept.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeGrants;

    #[test]
    fn pages_come_back_when_the_peer_has_let_go() {
        let grants = FakeGrants::new(10);
        let lender = Arc::new(Lender::new(grants.clone(), DomainId(3)));
        let lent = Lent::new(&lender, 4).unwrap();
        assert_eq!((grants.granted(), grants.pages_out()), (4, 4));
        assert!(grants.all_granted_to(DomainId(3), Access::Write));
        drop(lent);
        assert_eq!((grants.granted(), grants.pages_out(), lender.kept()), (0, 0, 0));
    }

    #[test]
    fn a_page_that_is_still_mapped_is_never_freed_but_counted() {
        let grants = FakeGrants::new(10);
        let lender = Arc::new(Lender::new(grants.clone(), DomainId(3)));
        let lent = Lent::new(&lender, 4).unwrap();
        grants.map(lent.reference(2));
        drop(lent);
        assert_eq!((grants.granted(), grants.pages_out(), lender.kept()), (1, 1, 1));
    }

    #[test]
    fn when_pages_run_out_those_lent_before_come_back() {
        let grants = FakeGrants::new(3);
        let lender = Arc::new(Lender::new(grants.clone(), DomainId(3)));
        assert_eq!(Lent::new(&lender, 4).err(), Some(SetupError::OutOfMemory));
        assert_eq!((grants.granted(), grants.pages_out()), (0, 0));
    }

    #[test]
    fn when_grants_run_out_those_lent_before_come_back() {
        let grants = FakeGrants::new(10);
        grants.limit_grants(3);
        let lender = Arc::new(Lender::new(grants.clone(), DomainId(3)));
        let full = SetupError::Grant(GrantError::TableFull);
        assert_eq!(Lent::new(&lender, 4).err(), Some(full));
        assert_eq!((grants.granted(), grants.pages_out()), (0, 0));
    }

    #[test]
    fn lent_pages_are_one_row_of_words() {
        let lender = Arc::new(Lender::new(FakeGrants::new(2), DomainId(0)));
        let lent = Lent::new(&lender, 2).unwrap();
        assert_eq!((lent.len(), lent.words()), (2, 2 * PAGE_WORDS));
        lent.word(PAGE_WORDS).store(7, ring::sync::Ordering::Relaxed);
        assert_eq!(lent.page(1).word(0).load(ring::sync::Ordering::Relaxed), 7);
        // Across the border, and up to it.
        for first in [PAGE_WORDS - 2, PAGE_WORDS - 3] {
            lent.store_all(first, &[1, 2, 3]);
            let mut out = [0; 3];
            lent.load_all(first, &mut out);
            assert_eq!(out, [1, 2, 3]);
            let words = [0, 1, 2].map(|at| lent.load(first + at, ring::sync::Ordering::Relaxed));
            assert_eq!(words, out);
        }
    }
}
