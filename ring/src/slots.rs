//! Where the words of a block ring lie: the 64-byte header, then the slots.
//!
//! A slot holds a request until it is consumed and a response afterwards. Slots may straddle
//! pages (the ABI of 32-bit guests from order 1 on, of 64-bit guests from order 2 on), so they are
//! addressed by word in the whole ring and never by page. Source: `xen/include/public/io/ring.h`.

use crate::Notify;
use crate::index::Index;
use crate::memory::{Memory, PAGE_SIZE};
use crate::sync::{Ordering, fence};

/// Words of the ring's header; the first slot follows.
pub const HEADER_WORDS: usize = 16;

/// Header word: index of the last request made visible.
pub(crate) const REQ_PROD: usize = 0;
/// Header word: the request at which the back wants an event.
pub(crate) const REQ_EVENT: usize = 1;
/// Header word: index of the last response made visible.
pub(crate) const RSP_PROD: usize = 2;
/// Header word: the response at which the front wants an event.
pub(crate) const RSP_EVENT: usize = 3;

/// How many slots a ring has and how many words each takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    slots: u32,
    slot_words: usize,
}

impl Layout {
    /// The layout of a ring of `2^order` pages with slots of `slot_words` words: as many slots as
    /// the largest power of two that fits behind the header.
    ///
    /// # Panics
    /// If not even one slot fits, or for 65,536 pages and more. Callers bound the order first.
    pub const fn of_pages(order: u32, slot_words: usize) -> Self {
        assert!(order < 16, "a ring has fewer than 2^16 pages");
        let fit = ((PAGE_SIZE << order) / 4 - HEADER_WORDS) / slot_words;
        assert!(fit > 0, "a page holds at least one slot");
        #[expect(
            clippy::cast_possible_truncation,
            reason = "2^16 pages have fewer than 2^32 words"
        )]
        Self { slots: 1 << (fit as u32).ilog2(), slot_words }
    }

    /// A layout with a given number of slots, for models and tests of tiny rings.
    ///
    /// # Panics
    /// If `slots` is not a power of two: free-running indexes would not wrap onto slot 0.
    pub const fn of_slots(slots: u32, slot_words: usize) -> Self {
        assert!(slots.is_power_of_two(), "slots are a power of two");
        Self { slots, slot_words }
    }

    /// How many slots the ring has.
    pub const fn slots(self) -> u32 {
        self.slots
    }

    /// How many words one slot has.
    pub const fn slot_words(self) -> usize {
        self.slot_words
    }

    /// How many words of memory the ring takes, header included.
    pub const fn words(self) -> usize {
        HEADER_WORDS + self.slots as usize * self.slot_words
    }

    /// The first word of the slot that `index` falls into. Whoever made a ring has seen that its memory
    /// holds all of it, so nothing wraps here.
    #[inline]
    pub(crate) const fn slot(self, index: Index) -> usize {
        let number = index.raw() & self.slots.wrapping_sub(1);
        HEADER_WORDS.wrapping_add((number as usize).wrapping_mul(self.slot_words))
    }
}

/// Reads one slot front to back, so that each word is fetched at most once.
///
/// There is no way to go back: a value that was checked cannot be fetched a second time after the
/// peer changed it (XSA-155).
pub struct Reader<'a, M: ?Sized> {
    memory: &'a M,
    next: usize,
    end: usize,
}

impl<'a, M: Memory + ?Sized> Reader<'a, M> {
    #[inline]
    pub(crate) fn new(memory: &'a M, layout: Layout, index: Index) -> Self {
        let next = layout.slot(index);
        Self { memory, next, end: next.wrapping_add(layout.slot_words) }
    }

    /// The next word, or `None` past the end of the slot.
    #[inline]
    pub fn word(&mut self) -> Option<u32> {
        if self.next == self.end {
            return None;
        }
        let word = self.memory.load(self.next, Ordering::Relaxed);
        self.next += 1;
        Some(word)
    }

    /// The next `N` words, or `None` if there are fewer.
    #[inline]
    pub fn array<const N: usize>(&mut self) -> Option<[u32; N]> {
        if self.end - self.next < N {
            return None;
        }
        let mut words = [0; N];
        self.memory.load_all(self.next, &mut words);
        self.next += N;
        Some(words)
    }

    /// Reads the next words into `out`, as many as both have, and tells how many those are.
    #[inline]
    pub fn words(&mut self, out: &mut [u32]) -> usize {
        let count = out.len().min(self.end - self.next);
        self.memory.load_all(self.next, &mut out[..count]);
        self.next += count;
        count
    }

    /// Passes over `count` words without reading them.
    #[inline]
    pub fn skip(&mut self, count: usize) {
        self.next = self.end.min(self.next.saturating_add(count));
    }
}

/// Writes `words` to the start of the slot of `index`. The words behind them keep what they were:
/// a message is complete in itself, whatever stands after its end.
///
/// # Panics
/// If `words` is longer than a slot.
#[inline]
pub(crate) fn fill<M: Memory + ?Sized>(memory: &M, layout: Layout, index: Index, words: &[u32]) {
    assert!(words.len() <= layout.slot_words, "message longer than a slot");
    memory.store_all(layout.slot(index), words);
}

/// Makes the producer index `new` visible and tells whether the peer asked, by the event index in
/// word `event`, to be woken for one of the messages since `old`.
///
/// The full fence orders our producer index before our read of the event index. Its partner is
/// the fence in [`arm`]: of the two sides at least one sees the other's store, so that a side
/// never goes to sleep on a message that nobody announced.
pub(crate) fn announce<M: Memory + ?Sized>(
    memory: &M,
    (producer, event): (usize, usize),
    old: Index,
    new: Index,
) -> Notify {
    if old == new {
        return Notify::Spared;
    }
    memory.store(producer, new.raw(), Ordering::Release);
    fence(Ordering::SeqCst);
    let wanted = Index::new(memory.load(event, Ordering::Relaxed));
    if new.since(wanted) < new.since(old) { Notify::Needed } else { Notify::Spared }
}

/// Asks, in word `event`, to be woken by the message after `consumed`, and looks once more at the
/// peer's producer index.
///
/// The full fence orders our event index before that look; its partner is in [`announce`].
pub(crate) fn arm<M: Memory + ?Sized>(
    memory: &M,
    (producer, event): (usize, usize),
    consumed: Index,
) -> Index {
    memory.store(event, consumed.after(1).raw(), Ordering::Relaxed);
    fence(Ordering::SeqCst);
    look(memory, producer)
}

/// The peer's producer index. The acquire pairs with the release in [`announce`]: what the peer
/// wrote before it made the index visible is visible here.
pub(crate) fn look<M: Memory + ?Sized>(memory: &M, producer: usize) -> Index {
    Index::new(memory.load(producer, Ordering::Acquire))
}
