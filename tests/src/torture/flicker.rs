//! Memory in which every word changes as soon as it was fetched, and no word is fetched twice.
//!
//! It stands in for a page that a peer writes at any moment: whatever decides on a second look
//! decides on something else here, and the second look itself panics. It must never give out a
//! reference to a word, because what is done through one cannot be seen.

use std::cell::Cell;

use ring::Memory;
use ring::sync::{AtomicU32, Ordering};

/// Words that change when they are fetched.
pub struct Flicker {
    words: Box<[Cell<u32>]>,
    /// In which round each word was last fetched.
    fetched: Box<[Cell<u64>]>,
    round: Cell<u64>,
    /// The first word that changes; those before it are steady and may be fetched again.
    first: usize,
    noise: Cell<u64>,
    loads: Cell<u64>,
    stores: Cell<u64>,
}

impl Flicker {
    /// `words` words of zeros, of which those from `first` on change when they are fetched.
    pub fn new(words: usize, first: usize) -> Self {
        Self {
            words: (0..words).map(|_| Cell::new(0)).collect(),
            fetched: (0..words).map(|_| Cell::new(0)).collect(),
            round: Cell::new(1),
            first,
            noise: Cell::new(0x9e37_79b9_7f4a_7c15),
            loads: Cell::new(0),
            stores: Cell::new(0),
        }
    }

    /// From now on each word may be fetched once more.
    #[inline]
    pub fn begin(&self) {
        self.round.set(self.round.get() + 1);
    }

    /// What the peer sees in a word.
    #[inline]
    pub fn peek(&self, index: usize) -> u32 {
        self.words[index].get()
    }

    /// The peer writes a word.
    #[inline]
    pub fn poke(&self, index: usize, value: u32) {
        self.words[index].set(value);
    }

    /// How many words were fetched and stored so far.
    pub fn accesses(&self) -> (u64, u64) {
        (self.loads.get(), self.stores.get())
    }
}

impl Memory for Flicker {
    fn words(&self) -> usize {
        self.words.len()
    }

    /// # Panics
    /// Always.
    fn word(&self, _index: usize) -> &AtomicU32 {
        panic!("a word was borrowed that is only to be loaded and stored");
    }

    /// # Panics
    /// If the word was fetched in this round already.
    #[inline]
    fn load(&self, index: usize, _order: Ordering) -> u32 {
        self.loads.set(self.loads.get() + 1);
        let value = self.words[index].get();
        if index < self.first {
            return value;
        }
        let before = self.fetched[index].replace(self.round.get());
        assert_ne!(before, self.round.get(), "word {index} was fetched twice");
        // Knuth's MMIX generator.
        let noise = self.noise.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        self.noise.set(noise);
        let [.., a, b, c, d] = noise.to_le_bytes();
        self.words[index].set(u32::from_le_bytes([a, b, c, d]));
        value
    }

    #[inline]
    fn store(&self, index: usize, value: u32, _order: Ordering) {
        self.stores.set(self.stores.get() + 1);
        self.words[index].set(value);
    }
}
