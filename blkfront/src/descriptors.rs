//! Pages that hold the segments of indirect requests.
//!
//! One for each such request in flight, granted once and for the life of the connection, as the
//! data is. A page is written before its request is made visible, and not again before the answer:
//! what the back does with it meanwhile can only harm that request.

use alloc::sync::Arc;
use alloc::vec::Vec;

use blkif::{Agreed, DIRECT_SEGMENTS_MAX};
use ring::Page;
use xen::{GrantRef, Grants};

use crate::lender::{Lender, Lent, SetupError};

/// Pages of descriptors, in use or free.
pub(crate) struct Descriptors<G: Grants> {
    pages: Lent<G>,
    free: Vec<u16>,
}

impl<G: Grants> Descriptors<G> {
    /// Lends as many as there can be indirect requests in flight on what was agreed, with `pool_pages`
    /// pages for data: none has fewer than 12 of them.
    ///
    /// # Errors
    /// [`SetupError`]; then nothing stays lent.
    pub(crate) fn new(
        lender: &Arc<Lender<G>>,
        agreed: &Agreed,
        pool_pages: usize,
    ) -> Result<Self, SetupError> {
        let slots = agreed.abi.layout(agreed.order).slots() as usize;
        let is_offered = agreed.segments_max() > DIRECT_SEGMENTS_MAX;
        let most = pool_pages / (DIRECT_SEGMENTS_MAX + 1);
        let pages = Lent::new(lender, if is_offered { most.min(slots) } else { 0 })?;
        Ok(Self { free: (0..).take(pages.len()).collect(), pages })
    }

    /// How many segments a request has at most: without any page what fits its slot.
    pub(crate) fn segments_max(&self, agreed: &Agreed) -> usize {
        if self.pages.len() > 0 { agreed.segments_max() } else { DIRECT_SEGMENTS_MAX }
    }

    /// The next free one: its number, its page, and the grant of that.
    pub(crate) fn next(&self) -> Option<(u16, &Page, GrantRef)> {
        let number = *self.free.last()?;
        let index = usize::from(number);
        Some((number, self.pages.page(index), self.pages.reference(index)))
    }

    /// Notes that a request was put whose segments are in the one that [`next`](Self::next) gave.
    pub(crate) fn begin(&mut self) {
        self.free.pop();
    }

    /// Notes that a request was answered whose segments are in this one.
    pub(crate) fn end(&mut self, number: u16) {
        self.free.push(number);
    }
}
