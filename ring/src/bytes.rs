//! Byte rings: the console's (`xen/include/public/io/console.h`) and xenstore's
//! (`io/xs_wire.h`), two in a page, one each way.
//!
//! Either side has a [`Sender`] and a [`Receiver`]. Indexes need not begin at 0: somebody may have
//! used the page before us. After progress the peer is notified always; these rings have no
//! event index.

use crate::index::{Broken, Index, bounded};
use crate::memory::Memory;
use crate::sync::{Ordering, fence};

/// Where one byte ring lies in its page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    first_word: usize,
    size_bytes: u32,
    consumer: usize,
    producer: usize,
}

impl Area {
    /// A ring of `size_bytes` bytes, its start and its two indexes at these bytes of its memory. In
    /// pages there are the four below; others are for models and tests of tiny rings.
    ///
    /// # Panics
    /// If the size is not a power of two of at least 4.
    pub const fn new(
        start_bytes: usize,
        size_bytes: u32,
        consumer: usize,
        producer: usize,
    ) -> Self {
        assert!(size_bytes.is_power_of_two() && size_bytes >= 4);
        Self {
            first_word: start_bytes / 4,
            size_bytes,
            consumer: consumer / 4,
            producer: producer / 4,
        }
    }

    /// Console: 1024 bytes from the backend to the guest.
    pub const CONSOLE_IN: Self = Self::new(0, 1024, 3072, 3076);
    /// Console: 2048 bytes from the guest to the backend.
    pub const CONSOLE_OUT: Self = Self::new(1024, 2048, 3080, 3084);
    /// Xenstore: 1024 bytes of requests, from the guest to the store.
    pub const STORE_REQUESTS: Self = Self::new(0, 1024, 2048, 2052);
    /// Xenstore: 1024 bytes of replies and watch events, from the store to the guest.
    pub const STORE_REPLIES: Self = Self::new(1024, 1024, 2056, 2060);

    /// How many bytes the ring holds.
    pub const fn size_bytes(self) -> u32 {
        self.size_bytes
    }

    /// The word and the bit shift of the byte that `index` falls on.
    const fn place(self, index: Index) -> (usize, u32) {
        let at = index.raw() & (self.size_bytes - 1);
        (self.first_word + at as usize / 4, at % 4 * 8)
    }
}

/// The half that writes bytes.
#[derive(Debug)]
pub struct Sender<M> {
    memory: M,
    area: Area,
    sent: Index,
}

impl<M: Memory> Sender<M> {
    /// Takes over at the producer index that stands in the page.
    pub fn attach(memory: M, area: Area) -> Self {
        let sent = Index::new(memory.load(area.producer, Ordering::Relaxed));
        Self { memory, area, sent }
    }

    /// Writes as many of `bytes` as there is room for, makes them visible, and tells how many;
    /// the caller then notifies the peer, unless it is 0.
    ///
    /// # Errors
    /// [`Broken`] if the peer claims to have read more than was written.
    pub fn send(&mut self, bytes: &[u8]) -> Result<usize, Broken> {
        let size = self.area.size_bytes;
        let unread = self.unread()?;
        let count = bytes.len().min((size - unread) as usize);
        // The peer's reads of the old bytes come before our overwriting them: see `unread`.
        for &byte in &bytes[..count] {
            self.store(byte);
        }
        self.memory.store(self.area.producer, self.sent.raw(), Ordering::Release);
        // The peer, woken by the notification that follows, must see the index; the event channel
        // itself is not relied on to carry it. Partner: the peer's clearing of its pending bit.
        fence(Ordering::Release);
        Ok(count)
    }

    /// How many bytes the peer has not read yet.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn unread(&self) -> Result<u32, Broken> {
        // Partner: the release of the consumer index in `receive`.
        let read = Index::new(self.memory.load(self.area.consumer, Ordering::Acquire));
        let size = self.area.size_bytes;
        // The peer has read at least up to a ring's length behind us, and at most up to us.
        let farthest = self.sent.after(size.wrapping_neg());
        Ok(size - bounded(read, farthest, size)?)
    }

    /// Stores one byte. Its neighbours in the word are ours too: bytes that we sent, or free room.
    fn store(&mut self, byte: u8) {
        let (word, shift) = self.area.place(self.sent);
        let old = self.memory.load(word, Ordering::Relaxed);
        let new = (old & !(0xff << shift)) | (u32::from(byte) << shift);
        self.memory.store(word, new, Ordering::Relaxed);
        self.sent = self.sent.after(1);
    }
}

/// The half that reads bytes.
#[derive(Debug)]
pub struct Receiver<M> {
    memory: M,
    area: Area,
    received: Index,
}

impl<M: Memory> Receiver<M> {
    /// Takes over at the consumer index that stands in the page.
    pub fn attach(memory: M, area: Area) -> Self {
        let received = Index::new(memory.load(area.consumer, Ordering::Relaxed));
        Self { memory, area, received }
    }

    /// Reads what has arrived, at most `out.len()` bytes, gives the room back to the peer, and
    /// tells how many; the caller then notifies the peer, unless it is 0.
    ///
    /// # Errors
    /// [`Broken`] if the peer claims to have written more than the ring holds.
    pub fn receive(&mut self, out: &mut [u8]) -> Result<usize, Broken> {
        // Partner: the release of the producer index in `send`.
        let written = Index::new(self.memory.load(self.area.producer, Ordering::Acquire));
        let ready = bounded(written, self.received, self.area.size_bytes)?;
        let count = out.len().min(ready as usize);
        for byte in &mut out[..count] {
            *byte = self.load();
        }
        // Our reads come before the peer's overwriting them; partner: the acquire in `unread`.
        self.memory.store(self.area.consumer, self.received.raw(), Ordering::Release);
        // As in `send`.
        fence(Ordering::Release);
        Ok(count)
    }

    fn load(&mut self) -> u8 {
        let (word, shift) = self.area.place(self.received);
        let word = self.memory.load(word, Ordering::Relaxed);
        self.received = self.received.after(1);
        word.to_le_bytes()[shift as usize / 8]
    }
}
