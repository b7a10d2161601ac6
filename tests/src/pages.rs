//! Several pages as one ring's memory.

use std::ops::Deref;

use ring::sync::AtomicU32;
use ring::{Memory, PAGE_WORDS, Page};

/// Pages in order, addressed as one run of words.
pub struct Pages<P>(pub Vec<P>);

impl<P: Deref<Target = Page>> Memory for Pages<P> {
    fn words(&self) -> usize {
        self.0.len() * PAGE_WORDS
    }

    fn word(&self, index: usize) -> &AtomicU32 {
        self.0[index / PAGE_WORDS].word(index % PAGE_WORDS)
    }
}
