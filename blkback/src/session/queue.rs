//! A session's end of a ring, as values: requests come out of it as allegations, answers go in.
//!
//! Exists so that a ring can be wrapped: [`Traced`](crate::trace::Traced) writes down what passes.
//! An implementation must never give a request twice or fetch a word of it twice.

use std::ops::Deref;

use blkif::{Abi, Agreed, Raw, Response, Segments};
use ring::{
    Back, Broken, Full, Index, Memory, Notify, PAGE_WORDS, Page, Rest, load_pages, store_pages,
};

/// What a session asks of its end of a ring: the verbs of [`ring::Back`].
pub trait Queue {
    /// The index of the next request: how many came before it, by the ring's count.
    fn next(&self) -> Index;

    /// How many requests were taken and not yet answered.
    fn unanswered(&self) -> u32;

    /// Takes the next request, if one is visible: `raw` becomes it.
    ///
    /// # Errors
    /// [`Broken`] if the front claims more requests than can be.
    fn take(&mut self, raw: &mut Raw) -> Result<Option<()>, Broken>;

    /// Puts an answer; the front does not see it before [`publish`](Self::publish).
    ///
    /// # Errors
    /// [`Full`] if every request taken has its answer.
    fn put(&mut self, response: Response) -> Result<(), Full>;

    /// Makes all answers put so far visible.
    fn publish(&mut self) -> Notify;

    /// Asks for an event at the next request, unless one arrived meanwhile.
    ///
    /// # Errors
    /// [`Broken`] as for [`take`](Self::take).
    fn rest(&mut self) -> Result<Rest, Broken>;

    /// Hears what the descriptors of the request taken last say, if it is an indirect one and they
    /// were fetched.
    fn described(&mut self, _segments: &Segments) {}

    /// Hears that requests taken from now on may reach up to so many sectors.
    fn grown(&mut self, _sectors: u64) {}
}

/// The pages of a ring, one after the other.
#[derive(Debug)]
pub struct RingPages<P>(pub Vec<P>);

impl<P> RingPages<P> {
    /// These, in this order.
    pub const fn new(pages: Vec<P>) -> Self {
        Self(pages)
    }
}

impl<P: Deref<Target = Page>> Memory for RingPages<P> {
    fn words(&self) -> usize {
        self.0.len() * PAGE_WORDS
    }

    fn word(&self, index: usize) -> &ring::sync::AtomicU32 {
        self.0[index / PAGE_WORDS].word(index % PAGE_WORDS)
    }

    #[inline]
    fn load_all(&self, index: usize, out: &mut [u32]) {
        load_pages(|number| &self.0[number], index, out);
    }

    #[inline]
    fn store_all(&self, index: usize, values: &[u32]) {
        store_pages(|number| &self.0[number], index, values);
    }
}

/// The ring in the memory that a front lent.
#[derive(Debug)]
pub struct Lent<R> {
    back: Back<R>,
    abi: Abi,
}

impl<R: Memory> Lent<R> {
    /// Joins it.
    ///
    /// # Panics
    /// If there is less of it than was agreed on.
    pub(super) fn join(memory: R, agreed: &Agreed) -> Self {
        let layout = agreed.abi.layout(agreed.order);
        Self { back: Back::attach(memory, layout), abi: agreed.abi }
    }
}

impl<R: Memory> Queue for Lent<R> {
    fn next(&self) -> Index {
        self.back.next()
    }

    fn unanswered(&self) -> u32 {
        self.back.unanswered()
    }

    #[inline]
    fn take(&mut self, raw: &mut Raw) -> Result<Option<()>, Broken> {
        let abi = self.abi;
        self.back.take(|slot| raw.read(slot, abi))
    }

    #[inline]
    fn put(&mut self, response: Response) -> Result<(), Full> {
        self.back.put(&response.words(self.abi))
    }

    fn publish(&mut self) -> Notify {
        self.back.publish()
    }

    fn rest(&mut self) -> Result<Rest, Broken> {
        self.back.rest()
    }
}
