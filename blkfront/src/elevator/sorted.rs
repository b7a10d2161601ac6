//! Places in the order of the disk.
//!
//! A vector, not a tree: it holds some hundred entries at most, moves them in one copy, and never
//! allocates after it was made.

use alloc::vec::Vec;

/// An entry: requests at the same sector keep the order of their arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) sector: u64,
    /// How many came before it.
    pub(crate) arrival: u64,
    pub(crate) place: u16,
}

/// Entries by sector.
#[derive(Debug)]
pub(crate) struct Sorted(Vec<Key>);

impl Sorted {
    /// For `capacity` entries.
    pub(crate) fn new(capacity: usize) -> Self {
        Self(Vec::with_capacity(capacity))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn insert(&mut self, key: Key) {
        let at = self.0.partition_point(|other| *other < key);
        self.0.insert(at, key);
    }

    /// Takes an entry out that is in.
    pub(crate) fn remove(&mut self, key: Key) {
        if let Ok(at) = self.0.binary_search(&key) {
            self.0.remove(at);
        }
    }

    /// The first entry at or behind `sector`.
    pub(crate) fn from(&self, sector: u64) -> Option<Key> {
        self.0.get(self.0.partition_point(|key| key.sector < sector)).copied()
    }

    /// The entries from `first` on, as long as they begin before `end`.
    pub(crate) fn between(&self, first: u64, end: u64) -> impl Iterator<Item = Key> {
        let begin = self.0.partition_point(|key| key.sector < first);
        self.0[begin..].iter().take_while(move |key| key.sector < end).copied()
    }
}
