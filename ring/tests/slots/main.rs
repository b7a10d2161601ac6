//! Tests of the block ring in one thread: against a model, against a lying peer, and against the
//! layout that a C compiler gives it.
#![cfg(not(any(loom, miri, narrow)))]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod hostile;
mod layout;
mod model;
mod notify;

use std::sync::atomic::{AtomicU32, Ordering};

use ring::{Back, Front, HEADER_WORDS, Index, Layout};

pub(crate) const REQ_PROD: usize = 0;
pub(crate) const REQ_EVENT: usize = 1;
pub(crate) const RSP_PROD: usize = 2;
pub(crate) const RSP_EVENT: usize = 3;

/// A ring of `slots` slots, as words.
pub(crate) fn memory(slots: u32, slot_words: usize) -> Vec<AtomicU32> {
    let words = HEADER_WORDS + slots as usize * slot_words;
    // What stood there before must not matter.
    (0..words).map(|_| AtomicU32::new(0xdead_beef)).collect()
}

/// Both halves on `words`, with indexes that begin at `start`.
pub(crate) fn halves(
    words: &[AtomicU32],
    layout: Layout,
    start: u32,
) -> (Front<&[AtomicU32]>, Back<&[AtomicU32]>) {
    let front = Front::starting_at(words, layout, Index::new(start));
    (front, Back::attach(words, layout))
}

pub(crate) fn poke(words: &[AtomicU32], word: usize, value: u32) {
    words[word].store(value, Ordering::Relaxed);
}

pub(crate) fn peek(words: &[AtomicU32], word: usize) -> u32 {
    words[word].load(Ordering::Relaxed)
}
