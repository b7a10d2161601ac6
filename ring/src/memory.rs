//! Memory that a peer can change at any moment, as words.
//!
//! Every access is a relaxed atomic access of one 32-bit word: the one width that all fields of
//! both block ABIs are aligned to (the 32-bit ABI has 108-byte slots). It must never hand out a
//! reference to plain data in a shared page.

use crate::sync::{AtomicU32, Ordering};

/// Bytes in a page.
pub const PAGE_SIZE: usize = 4096;
/// 32-bit words in a page.
pub const PAGE_WORDS: usize = PAGE_SIZE / 4;

/// One or more pages shared with a peer, addressed by word.
pub trait Memory {
    /// How many words there are. Never changes during the life of the value.
    fn words(&self) -> usize;

    /// The word at `index`.
    ///
    /// # Panics
    /// If `index` is not below [`words`](Self::words). Callers compute it from their own, bounded
    /// indexes, never from a peer's.
    fn word(&self, index: usize) -> &AtomicU32;

    /// Fetches the word at `index`. Both rings fetch through here only, so that a memory can
    /// count what they fetch, and change it as soon as it was fetched.
    ///
    /// # Panics
    /// As [`word`](Self::word).
    #[inline]
    fn load(&self, index: usize, order: Ordering) -> u32 {
        self.word(index).load(order)
    }

    /// Stores into the word at `index`. Both rings store through here only.
    ///
    /// # Panics
    /// As [`word`](Self::word).
    #[inline]
    fn store(&self, index: usize, value: u32, order: Ordering) {
        self.word(index).store(value, order);
    }

    /// Fetches the words from `index` on, in any order among themselves, each once. A memory that lies
    /// in one piece can do better than word by word.
    ///
    /// # Panics
    /// As [`word`](Self::word).
    #[inline]
    fn load_all(&self, index: usize, out: &mut [u32]) {
        for (at, out) in (index..).zip(out) {
            *out = self.load(at, Ordering::Relaxed);
        }
    }

    /// Stores into the words from `index` on, in any order among themselves.
    ///
    /// # Panics
    /// As [`word`](Self::word).
    #[inline]
    fn store_all(&self, index: usize, values: &[u32]) {
        for (at, &value) in (index..).zip(values) {
            self.store(at, value, Ordering::Relaxed);
        }
    }
}

impl<M: Memory + ?Sized> Memory for &M {
    fn words(&self) -> usize {
        (**self).words()
    }

    fn word(&self, index: usize) -> &AtomicU32 {
        (**self).word(index)
    }

    #[inline]
    fn load(&self, index: usize, order: Ordering) -> u32 {
        (**self).load(index, order)
    }

    #[inline]
    fn store(&self, index: usize, value: u32, order: Ordering) {
        (**self).store(index, value, order);
    }

    #[inline]
    fn load_all(&self, index: usize, out: &mut [u32]) {
        (**self).load_all(index, out);
    }

    #[inline]
    fn store_all(&self, index: usize, values: &[u32]) {
        (**self).store_all(index, values);
    }
}

impl Memory for [AtomicU32] {
    fn words(&self) -> usize {
        self.len()
    }

    fn word(&self, index: usize) -> &AtomicU32 {
        &self[index]
    }
}

impl Memory for [Page] {
    fn words(&self) -> usize {
        self.len() * PAGE_WORDS
    }

    fn word(&self, index: usize) -> &AtomicU32 {
        self[index / PAGE_WORDS].word(index % PAGE_WORDS)
    }
}

/// [`Memory::load_all`] of a memory that is made of pages.
#[inline]
pub fn load_pages<'a>(page: impl Fn(usize) -> &'a Page, index: usize, out: &mut [u32]) {
    let (mut number, mut first, mut rest) = (index / PAGE_WORDS, index % PAGE_WORDS, out);
    while !rest.is_empty() {
        let (here, beyond) = rest.split_at_mut(rest.len().min(PAGE_WORDS - first));
        page(number).load_all(first, here);
        (number, first, rest) = (number + 1, 0, beyond);
    }
}

/// [`Memory::store_all`] of a memory that is made of pages.
#[inline]
pub fn store_pages<'a>(page: impl Fn(usize) -> &'a Page, index: usize, values: &[u32]) {
    let (mut number, mut first, mut rest) = (index / PAGE_WORDS, index % PAGE_WORDS, values);
    while !rest.is_empty() {
        let (here, beyond) = rest.split_at(rest.len().min(PAGE_WORDS - first));
        page(number).store_all(first, here);
        (number, first, rest) = (number + 1, 0, beyond);
    }
}

/// One 4096-byte page shared with a peer.
#[repr(C, align(4096))]
pub struct Page {
    words: [AtomicU32; PAGE_WORDS],
}

impl Page {
    /// A page of zeros.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self { words: [const { AtomicU32::new(0) }; PAGE_WORDS] }
    }

    /// A page of zeros.
    #[cfg(loom)]
    pub fn new() -> Self {
        Self { words: core::array::from_fn(|_| AtomicU32::new(0)) }
    }

    /// Overwrites every word with 0.
    pub fn clear(&self) {
        for word in &self.words {
            word.store(0, Ordering::Relaxed);
        }
    }

    /// Copies all of another page, each word once.
    pub fn copy_from(&self, from: &Page) {
        for (word, from) in self.words.iter().zip(&from.words) {
            word.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    /// Copies bytes of another page to the same place here, each word once. What is beside them stays,
    /// as with [`write`](Self::write).
    ///
    /// # Panics
    /// If the range leaves the page.
    pub fn copy_part(&self, from: &Page, offset_bytes: usize, length_bytes: usize) {
        assert!(offset_bytes + length_bytes <= PAGE_SIZE, "copy past the end of a page");
        let head = before_word(offset_bytes, length_bytes);
        let (first, count) = (offset_bytes.div_ceil(4), (length_bytes - head) / 4);
        let tail = (length_bytes - head) % 4;
        let whole = self.words[first..][..count].iter().zip(&from.words[first..][..count]);
        whole.for_each(|(word, from)| word.store(from.load(Ordering::Relaxed), Ordering::Relaxed));
        for (at, length) in [(offset_bytes, head), ((first + count) * 4, tail)] {
            let mut bytes = [0; 4];
            from.read_part(at, &mut bytes[..length]);
            self.write_part(at, &bytes[..length]);
        }
    }

    /// Copies `out.len()` bytes, from `offset_bytes` on, each word once.
    ///
    /// # Panics
    /// If the range leaves the page.
    pub fn read(&self, offset_bytes: usize, out: &mut [u8]) {
        assert!(offset_bytes + out.len() <= PAGE_SIZE, "read past the end of a page");
        let (head, rest) = out.split_at_mut(before_word(offset_bytes, out.len()));
        let (whole, tail) = rest.as_chunks_mut();
        self.read_part(offset_bytes, head);
        let first = offset_bytes.div_ceil(4);
        for (word, bytes) in self.words[first..][..whole.len()].iter().zip(&mut *whole) {
            *bytes = word.load(Ordering::Relaxed).to_le_bytes();
        }
        self.read_part((first + whole.len()) * 4, tail);
    }

    /// Writes `bytes` at `offset_bytes`. Words that are covered only in part keep their other
    /// bytes, as read a moment before: a peer that writes those meanwhile may lose its write.
    ///
    /// # Panics
    /// If the range leaves the page.
    pub fn write(&self, offset_bytes: usize, bytes: &[u8]) {
        assert!(offset_bytes + bytes.len() <= PAGE_SIZE, "write past the end of a page");
        let (head, rest) = bytes.split_at(before_word(offset_bytes, bytes.len()));
        let (whole, tail) = rest.as_chunks();
        self.write_part(offset_bytes, head);
        let first = offset_bytes.div_ceil(4);
        for (word, &bytes) in self.words[first..][..whole.len()].iter().zip(whole) {
            word.store(u32::from_le_bytes(bytes), Ordering::Relaxed);
        }
        self.write_part((first + whole.len()) * 4, tail);
    }

    /// Reads bytes of one word.
    fn read_part(&self, offset_bytes: usize, out: &mut [u8]) {
        if out.is_empty() {
            return;
        }
        let word = self.words[offset_bytes / 4].load(Ordering::Relaxed).to_le_bytes();
        for (out, byte) in out.iter_mut().zip(&word[offset_bytes % 4..]) {
            *out = *byte;
        }
    }

    /// Writes bytes of one word.
    fn write_part(&self, offset_bytes: usize, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let word = &self.words[offset_bytes / 4];
        let mut value = word.load(Ordering::Relaxed).to_le_bytes();
        for (byte, new) in value[offset_bytes % 4..].iter_mut().zip(bytes) {
            *byte = *new;
        }
        word.store(u32::from_le_bytes(value), Ordering::Relaxed);
    }
}

/// How many of `length` bytes from `offset_bytes` on lie before the next whole word.
fn before_word(offset_bytes: usize, length: usize) -> usize {
    length.min(offset_bytes.next_multiple_of(4) - offset_bytes)
}

impl Default for Page {
    fn default() -> Self {
        Self::new()
    }
}

impl Memory for Page {
    fn words(&self) -> usize {
        PAGE_WORDS
    }

    fn word(&self, index: usize) -> &AtomicU32 {
        &self.words[index]
    }

    // Four at a time, here and below: compilers do not unroll loops of atomic accesses.
    #[inline]
    fn load_all(&self, index: usize, out: &mut [u32]) {
        let (words, last_words) = self.words[index..][..out.len()].as_chunks::<4>();
        let (out, last_out) = out.as_chunks_mut();
        for (out, words) in out.iter_mut().zip(words) {
            *out = words.each_ref().map(|word| word.load(Ordering::Relaxed));
        }
        for (out, word) in last_out.iter_mut().zip(last_words) {
            *out = word.load(Ordering::Relaxed);
        }
    }

    #[inline]
    fn store_all(&self, index: usize, values: &[u32]) {
        let (words, last_words) = self.words[index..][..values.len()].as_chunks::<4>();
        let (values, last_values) = values.as_chunks::<4>();
        for (values, words) in values.iter().zip(words) {
            for (&value, word) in values.iter().zip(words) {
                word.store(value, Ordering::Relaxed);
            }
        }
        for (&value, word) in last_values.iter().zip(last_words) {
            word.store(value, Ordering::Relaxed);
        }
    }
}
