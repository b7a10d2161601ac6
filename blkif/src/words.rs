//! The words of one message on their way into a slot.
//!
//! They are filled in where they stand: a message is not moved once it is complete.

use core::ops::Deref;

/// At most `N` words, in the order of the slot.
#[derive(Clone, Debug)]
pub struct Words<const N: usize> {
    all: [u32; N],
    used: usize,
}

impl<const N: usize> Words<N> {
    /// The first `used` of these.
    #[inline]
    pub(crate) const fn new(all: [u32; N], used: usize) -> Self {
        Self { all, used }
    }
}

impl<const N: usize> Deref for Words<N> {
    type Target = [u32];

    #[inline]
    fn deref(&self) -> &[u32] {
        &self.all[..self.used]
    }
}
