//! The back's half of a block ring: it takes requests and puts responses.
//!
//! The mirror of [`Front`](crate::Front). It must never read back what it wrote, never believe
//! more requests than there are free slots, and never initialise a ring: that is the front's.

use crate::index::{Broken, Index, bounded};
use crate::memory::Memory;
use crate::slots::{
    Layout, REQ_EVENT, REQ_PROD, RSP_EVENT, RSP_PROD, Reader, announce, arm, fill, look,
};
use crate::{Full, Notify, Rest};

/// The back's half of a block ring.
#[derive(Debug)]
pub struct Back<M> {
    memory: M,
    layout: Layout,
    /// Responses written, visible or not.
    put: Index,
    /// Responses made visible.
    published: Index,
    /// Requests taken.
    taken: Index,
    /// Requests known to have been made visible.
    seen: Index,
}

impl<M: Memory> Back<M> {
    /// Joins the ring that the front has initialised, at the response index that stands in it: a
    /// ring that was never used begins at 0, and one that a former back left begins at its first
    /// request without a response.
    ///
    /// # Panics
    /// If `memory` is smaller than `layout`.
    pub fn attach(memory: M, layout: Layout) -> Self {
        assert!(memory.words() >= layout.words(), "ring larger than its memory");
        let start = look(&memory, RSP_PROD);
        Self { memory, layout, put: start, published: start, taken: start, seen: start }
    }

    /// The index of the next request to take.
    pub const fn next(&self) -> Index {
        self.taken
    }

    /// How many requests were taken and not yet answered.
    pub fn unanswered(&self) -> u32 {
        self.taken.since(self.put)
    }

    /// Takes the next request, as what `read` makes of its words: what it does not read is not
    /// fetched, and nothing is fetched twice.
    ///
    /// # Errors
    /// [`Broken`] if the front claims more requests than there are slots free for them.
    #[inline]
    pub fn take<T>(
        &mut self,
        read: impl FnOnce(&mut Reader<'_, M>) -> T,
    ) -> Result<Option<T>, Broken> {
        if self.taken == self.seen {
            let alleged = look(&self.memory, REQ_PROD);
            self.believe(alleged)?;
            if self.taken == self.seen {
                return Ok(None);
            }
        }
        let index = self.taken;
        self.taken = index.after(1);
        Ok(Some(read(&mut Reader::new(&self.memory, self.layout, index))))
    }

    /// Writes a response into the oldest slot that was taken. The front does not see it before
    /// [`publish`](Self::publish).
    ///
    /// # Errors
    /// [`Full`] if every request taken has its response already: one of them would be the second.
    ///
    /// # Panics
    /// If `words` is longer than a slot.
    #[inline]
    pub fn put(&mut self, words: &[u32]) -> Result<(), Full> {
        if self.unanswered() == 0 {
            return Err(Full);
        }
        fill(&self.memory, self.layout, self.put, words);
        self.put = self.put.after(1);
        Ok(())
    }

    /// Makes all responses put so far visible to the front.
    #[inline]
    pub fn publish(&mut self) -> Notify {
        let old = core::mem::replace(&mut self.published, self.put);
        announce(&self.memory, (RSP_PROD, RSP_EVENT), old, self.put)
    }

    /// Asks for an event at the next request, unless one arrived meanwhile.
    ///
    /// # Errors
    /// [`Broken`] as for [`take`](Self::take).
    pub fn rest(&mut self) -> Result<Rest, Broken> {
        let alleged = arm(&self.memory, (REQ_PROD, REQ_EVENT), self.taken);
        self.believe(alleged)?;
        Ok(if self.taken == self.seen { Rest::Idle } else { Rest::Work })
    }

    /// Accepts the front's producer index if there are slots for that many requests: a slot is
    /// free for the front once the response in it was made visible.
    fn believe(&mut self, alleged: Index) -> Result<(), Broken> {
        let busy = self.taken.since(self.published);
        let count = bounded(alleged, self.taken, self.layout.slots() - busy)?;
        self.seen = self.taken.after(count);
        Ok(())
    }
}
