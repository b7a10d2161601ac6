//! The words of one message on their way into a slot.
//!
//! A message is built in private memory and stored from there: nothing is read back from a slot.

use core::ops::Deref;

/// At most `N` words, in the order of the slot.
#[derive(Clone, Debug)]
pub struct Words<const N: usize> {
    /// Those that are not used are 0.
    all: [u32; N],
    used: usize,
}

impl<const N: usize> Words<N> {
    /// None.
    #[inline]
    pub(crate) const fn new() -> Self {
        Self { all: [0; N], used: 0 }
    }

    /// Appends some words.
    #[inline]
    pub(crate) fn push<const M: usize>(&mut self, words: [u32; M]) {
        self.unused()[..M].copy_from_slice(&words);
        self.used += M;
    }

    /// The words that are not used yet.
    #[inline]
    pub(crate) fn unused(&mut self) -> &mut [u32] {
        &mut self.all[self.used..]
    }

    /// Uses `count` more of them.
    #[inline]
    pub(crate) const fn use_more(&mut self, count: usize) {
        self.used += count;
    }
}

impl<const N: usize> Deref for Words<N> {
    type Target = [u32];

    #[inline]
    fn deref(&self) -> &[u32] {
        &self.all[..self.used]
    }
}
