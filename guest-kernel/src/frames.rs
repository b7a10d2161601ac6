//! Which frames of memory are free: one bit each.
//!
//! Arithmetic over a slice of words that the caller provides; it never touches the frames
//! themselves. Frames are handed out lowest first, so that memory which is mapped on first use
//! stays small.

use core::ops::Range;

use xen::Pfn;

const BITS: u64 = u64::BITS as u64;

/// The frames `0..total`, each free or in use.
#[derive(Debug)]
pub struct Frames<'a> {
    /// A set bit is a frame in use.
    words: &'a mut [u64],
    total: u64,
    free: u64,
    /// No frame below this one is free.
    lowest: u64,
}

/// How many words [`Frames::new`] wants for `total` frames.
pub const fn words_for(total: u64) -> u64 {
    total.div_ceil(BITS)
}

impl<'a> Frames<'a> {
    /// All frames below `total` in use, whatever was in `words`. If the words do not reach, there
    /// are fewer frames.
    pub fn new(words: &'a mut [u64], total: u64) -> Self {
        words.fill(u64::MAX);
        let total = total.min(words.len() as u64 * BITS);
        Self { words, total, free: 0, lowest: total }
    }

    /// How many frames are free.
    pub fn free(&self) -> u64 {
        self.free
    }

    /// Takes `count` frames in a row; tells the first. `None` if there is no such run, or if
    /// `count` is 0.
    pub fn take(&mut self, count: u64) -> Option<Pfn> {
        if count == 0 || count > self.free {
            return None;
        }
        let mut start = self.lowest;
        while start + count <= self.total {
            match (start..start + count).rev().find(|&frame| self.is_used(frame)) {
                None => {
                    self.mark(start..start + count);
                    return Some(Pfn(start));
                }
                Some(used) => start = self.next_free(used + 1),
            }
        }
        None
    }

    /// Takes the last free frame.
    pub fn take_last(&mut self) -> Option<Pfn> {
        let word = self.words.iter().rposition(|&word| word != u64::MAX)?;
        let frame = word as u64 * BITS + u64::from(63 - self.words[word].leading_ones());
        self.mark(frame..frame + 1);
        Some(Pfn(frame))
    }

    /// Goes on with more frames, all of the new ones in use: moves to `words`, whatever was in
    /// them. Nothing happens if `words` or `total` hold less than there is.
    pub fn extend(&mut self, words: &'a mut [u64], total: u64) {
        let total = total.min(words.len() as u64 * BITS);
        if total < self.total || words.len() < self.words.len() {
            return;
        }
        let (old, new) = words.split_at_mut(self.words.len());
        old.copy_from_slice(self.words);
        new.fill(u64::MAX);
        self.words = words;
        self.total = total;
        self.lowest = self.next_free(self.lowest);
    }

    /// Gives frames back, or gives them to the allocator in the first place. Those that are free
    /// already, or do not exist, are left alone.
    pub fn give(&mut self, frames: Range<u64>) {
        let range = frames.start..frames.end.min(self.total);
        for (index, bits) in pieces(range.clone()) {
            let word = &mut self.words[index];
            self.free += u64::from((*word & bits).count_ones());
            *word &= !bits;
        }
        if !range.is_empty() {
            self.lowest = self.lowest.min(range.start);
        }
    }

    /// Takes these frames, whether free or not: they are not to be handed out.
    pub fn mark(&mut self, frames: Range<u64>) {
        for (index, bits) in pieces(frames.start..frames.end.min(self.total)) {
            let word = &mut self.words[index];
            self.free -= u64::from((!*word & bits).count_ones());
            *word |= bits;
        }
        self.lowest = self.next_free(self.lowest);
    }

    fn is_used(&self, frame: u64) -> bool {
        self.words[index(frame)] & bit(frame) != 0
    }

    /// The first free frame at or behind `from`; `total` if there is none.
    fn next_free(&self, from: u64) -> u64 {
        let mut frame = from;
        while frame < self.total {
            let word = self.words[index(frame)] | (bit(frame) - 1);
            if word != u64::MAX {
                let found = frame / BITS * BITS + u64::from(word.trailing_ones());
                return found.min(self.total);
            }
            frame = (frame / BITS + 1) * BITS;
        }
        self.total
    }
}

/// The words that a range of frames lies in, each with the bits of the range.
fn pieces(frames: Range<u64>) -> impl Iterator<Item = (usize, u64)> {
    let first = frames.start / BITS;
    let behind = if frames.is_empty() { first } else { frames.end.div_ceil(BITS) };
    (first..behind).map(move |word| {
        let from = frames.start.max(word * BITS) - word * BITS;
        let to = frames.end.min((word + 1) * BITS) - word * BITS;
        (index(word * BITS), u64::MAX << from & u64::MAX >> (BITS - to))
    })
}

const fn bit(frame: u64) -> u64 {
    1 << (frame % BITS)
}

const fn index(frame: u64) -> usize {
    (frame / BITS) as usize
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec;
    use std::vec::Vec;

    use super::*;

    #[test]
    fn frames_come_lowest_first_and_come_back() {
        let mut words = [0; 3];
        let mut frames = Frames::new(&mut words, 130);
        assert_eq!(frames.take(1), None, "nothing is free before it is given");
        frames.give(3..130);
        assert_eq!(frames.free(), 127);
        assert_eq!(frames.take(1), Some(Pfn(3)));
        assert_eq!(frames.take(1), Some(Pfn(4)));
        frames.give(3..4);
        assert_eq!(frames.take(1), Some(Pfn(3)));
        assert_eq!(frames.free(), 125);
    }

    #[test]
    fn the_last_frame_is_used_and_the_one_past_it_is_not() {
        let mut words = [0; 2];
        let mut frames = Frames::new(&mut words, 65);
        frames.give(0..1000);
        assert_eq!(frames.free(), 65);
        let taken: Vec<_> = core::iter::from_fn(|| frames.take(1)).collect();
        assert_eq!(taken.len(), 65);
        assert_eq!(taken.last(), Some(&Pfn(64)));
        assert_eq!(frames.free(), 0);
    }

    #[test]
    fn a_run_skips_what_is_in_its_way() {
        let mut words = [0; 4];
        let mut frames = Frames::new(&mut words, 256);
        frames.give(0..256);
        frames.mark(10..11);
        frames.mark(70..72);
        assert_eq!(frames.take(11), Some(Pfn(11)));
        assert_eq!(frames.take(60), Some(Pfn(72)));
        assert_eq!(frames.take(10), Some(Pfn(0)));
        assert_eq!(frames.take(125), None, "only 124 are left in a row");
        assert_eq!(frames.take(124), Some(Pfn(132)));
        assert_eq!(frames.take(0), None);
    }

    #[test]
    fn the_last_frame_is_the_highest_that_is_free() {
        let mut words = [0; 3];
        let mut frames = Frames::new(&mut words, 130);
        assert_eq!(frames.take_last(), None);
        frames.give(0..130);
        frames.mark(128..130);
        let taken: Vec<_> = core::iter::from_fn(|| frames.take_last()).collect();
        assert_eq!(taken, (0..128).rev().map(Pfn).collect::<Vec<_>>());
        assert_eq!(frames.free(), 0);
    }

    #[test]
    fn more_frames_come_in_use_and_what_was_free_stays_free() {
        let (mut few, mut many, mut none) = ([0; 1], [7; 3], [0; 0]);
        let mut frames = Frames::new(&mut few, 60);
        frames.give(3..60);
        frames.mark(3..50);
        frames.extend(&mut none, 1000);
        frames.extend(&mut many, 190);
        assert_eq!(frames.free(), 10);
        assert_eq!(frames.take(10), Some(Pfn(50)));
        assert_eq!(frames.take(1), None);
        frames.give(60..1000);
        assert_eq!((frames.free(), frames.take_last()), (130, Some(Pfn(189))));
    }

    #[test]
    fn giving_twice_counts_once() {
        let mut words = [0; 1];
        let mut frames = Frames::new(&mut words, 64);
        frames.give(1..3);
        frames.give(2..4);
        assert_eq!(frames.free(), 3);
        frames.mark(0..64);
        frames.mark(0..64);
        assert_eq!(frames.free(), 0);
    }

    #[test]
    fn it_agrees_with_a_list_of_flags() {
        let mut words = [0; 5];
        let mut frames = Frames::new(&mut words, 300);
        let mut model = vec![false; 300];
        let mut seed = 7_u64;
        for _ in 0..20_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (verb, at, count) = (seed >> 62, (seed >> 40) % 310, (seed >> 20) % 9);
            if verb < 2 {
                let expected = (0..300).find(|&start| {
                    count > 0
                        && start + count <= 300
                        && (start..start + count).all(|frame| model[index_of(frame)])
                });
                assert_eq!(frames.take(count), expected.map(Pfn));
                if let Some(start) = expected {
                    (start..start + count).for_each(|frame| model[index_of(frame)] = false);
                }
            } else {
                frames.give(at..at + count);
                (at..(at + count).min(300)).for_each(|frame| model[index_of(frame)] = true);
            }
            let free = model.iter().filter(|&&free| free).count();
            assert_eq!(frames.free(), free as u64);
        }
    }

    fn index_of(frame: u64) -> usize {
        usize::try_from(frame).expect("small")
    }
}
