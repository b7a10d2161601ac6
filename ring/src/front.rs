//! The front's half of a block ring: it puts requests and takes responses.
//!
//! The mirror of [`Back`](crate::Back). It must never read back what it wrote, and never believe
//! more responses than it has requests outstanding.

use crate::index::{Broken, Index, bounded};
use crate::memory::Memory;
use crate::slots::{
    Layout, REQ_EVENT, REQ_PROD, RSP_EVENT, RSP_PROD, Reader, announce, arm, fill, look,
};
use crate::sync::Ordering;
use crate::{Full, Notify, Rest};

/// The front's half of a block ring.
#[derive(Debug)]
pub struct Front<M> {
    memory: M,
    layout: Layout,
    /// Requests written, visible or not.
    put: Index,
    /// Requests made visible.
    published: Index,
    /// Responses taken.
    taken: Index,
    /// Responses known to have been made visible; at most `published`.
    seen: Index,
}

impl<M: Memory> Front<M> {
    /// Clears `memory` and writes the header of an empty ring. The back must not be connected yet.
    ///
    /// # Panics
    /// If `memory` is smaller than `layout`.
    pub fn new(memory: M, layout: Layout) -> Self {
        Self::starting_at(memory, layout, Index::new(0))
    }

    /// Like [`new`](Self::new) with indexes that begin at `start`: tests begin just below the wrap.
    pub fn starting_at(memory: M, layout: Layout, start: Index) -> Self {
        assert!(memory.words() >= layout.words(), "ring larger than its memory");
        for at in 0..memory.words() {
            memory.store(at, 0, Ordering::Relaxed);
        }
        for (word, index) in [
            (REQ_PROD, start),
            (RSP_PROD, start),
            (REQ_EVENT, start.after(1)),
            (RSP_EVENT, start.after(1)),
        ] {
            // Whatever tells the back that there is a ring carries this with it.
            memory.store(word, index.raw(), Ordering::Relaxed);
        }
        Self { memory, layout, put: start, published: start, taken: start, seen: start }
    }

    /// How many requests can be put before responses must be taken.
    pub fn free(&self) -> u32 {
        self.layout.slots() - self.put.since(self.taken)
    }

    /// Writes a request into the next slot. The back does not see it before
    /// [`publish`](Self::publish).
    ///
    /// # Errors
    /// [`Full`] if every slot holds a request whose response was not taken.
    ///
    /// # Panics
    /// If `words` is longer than a slot.
    #[inline]
    pub fn put(&mut self, words: &[u32]) -> Result<(), Full> {
        if self.free() == 0 {
            return Err(Full);
        }
        fill(&self.memory, self.layout, self.put, words);
        self.put = self.put.after(1);
        Ok(())
    }

    /// Makes all requests put so far visible to the back.
    #[inline]
    pub fn publish(&mut self) -> Notify {
        let old = core::mem::replace(&mut self.published, self.put);
        announce(&self.memory, (REQ_PROD, REQ_EVENT), old, self.put)
    }

    /// Takes the next response, as what `read` makes of its words.
    ///
    /// # Errors
    /// [`Broken`] if the back claims more responses than there are requests visible to it.
    #[inline]
    pub fn take<T>(
        &mut self,
        read: impl FnOnce(&mut Reader<'_, M>) -> T,
    ) -> Result<Option<T>, Broken> {
        if self.taken == self.seen {
            let alleged = look(&self.memory, RSP_PROD);
            self.believe(alleged)?;
            if self.taken == self.seen {
                return Ok(None);
            }
        }
        let index = self.taken;
        self.taken = index.after(1);
        Ok(Some(read(&mut Reader::new(&self.memory, self.layout, index))))
    }

    /// Whether the back claims responses that were not taken; whether the claim makes sense, the next
    /// [`take`](Self::take) tells.
    pub fn unread(&self) -> bool {
        look(&self.memory, RSP_PROD) != self.taken
    }

    /// Asks for an event at the next response, unless one arrived meanwhile.
    ///
    /// # Errors
    /// [`Broken`] as for [`take`](Self::take).
    pub fn rest(&mut self) -> Result<Rest, Broken> {
        let alleged = arm(&self.memory, (RSP_PROD, RSP_EVENT), self.taken);
        self.believe(alleged)?;
        Ok(if self.taken == self.seen { Rest::Idle } else { Rest::Work })
    }

    /// Accepts the back's producer index if that many requests are outstanding.
    fn believe(&mut self, alleged: Index) -> Result<(), Broken> {
        let count = bounded(alleged, self.taken, self.published.since(self.taken))?;
        self.seen = self.taken.after(count);
        Ok(())
    }
}
