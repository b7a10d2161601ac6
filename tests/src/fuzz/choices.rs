//! From the bytes of an input to choices.
//!
//! Every choice takes bytes off the front, as few as it needs; when none are left, every choice is
//! the first one, and every odds are the good ones. So a longer input goes on where a shorter one
//! ended.

use arbitrary::Unstructured;

use crate::torture::wild::Choose;

/// Choices that the bytes of an input make.
pub(super) struct Choices<'a>(Unstructured<'a>);

impl<'a> Choices<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(Unstructured::new(bytes))
    }

    /// Whether no bytes are left.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Any byte.
    pub(super) fn byte(&mut self) -> u8 {
        self.0.arbitrary().unwrap_or_default()
    }

    /// Any word.
    pub(super) fn word(&mut self) -> u32 {
        self.0.arbitrary().unwrap_or_default()
    }

    /// Any double word.
    pub(super) fn double(&mut self) -> u64 {
        self.0.arbitrary().unwrap_or_default()
    }

    /// A number below `limit`, which is not 0.
    pub(super) fn below(&mut self, limit: usize) -> usize {
        self.0.int_in_range(0..=limit - 1).unwrap_or_default()
    }

    /// The same in 64 bits.
    pub(super) fn double_below(&mut self, limit: u64) -> u64 {
        self.0.int_in_range(0..=limit - 1).unwrap_or_default()
    }

    /// One of some values.
    pub(super) fn of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())]
    }

    /// True three times in four: what is to be valid.
    pub(super) fn valid(&mut self) -> bool {
        self.0.ratio(3, 4).unwrap_or(true)
    }

    /// True once in `many` times.
    pub(super) fn rarely(&mut self, many: u8) -> bool {
        !self.0.ratio(many - 1, many).unwrap_or(true)
    }

    /// At most `most` bytes as they are.
    pub(super) fn bytes(&mut self, most: usize) -> &'a [u8] {
        let count = self.below(most + 1).min(self.0.len());
        self.0.bytes(count).unwrap_or_default()
    }

    /// All that is left.
    pub(super) fn rest(self) -> &'a [u8] {
        self.0.take_rest()
    }

    /// A number where mistakes are: near one of `edges`, below `usual`, or any.
    pub(super) fn number(&mut self, usual: u64, edges: &[u64]) -> u64 {
        match self.below(4) {
            0 | 1 => self.double_below(usual.max(1)),
            2 => {
                let edge = self.of(edges);
                edge.wrapping_add(self.double_below(17)).wrapping_sub(8)
            }
            _ => self.double(),
        }
    }
}

impl Choose for Choices<'_> {
    fn below(&mut self, limit: usize) -> usize {
        self.below(limit)
    }

    fn byte(&mut self) -> u8 {
        self.byte()
    }

    fn word(&mut self) -> u32 {
        self.word()
    }

    fn double(&mut self) -> u64 {
        self.double()
    }
}

/// Overwrites some bytes here and there.
pub(super) fn damage(choices: &mut Choices<'_>, bytes: &mut [u8]) {
    for _ in 0..1 + choices.below(4) {
        if bytes.is_empty() {
            return;
        }
        let at = choices.below(bytes.len());
        bytes[at] = match choices.below(4) {
            0 => 0,
            1 => u8::MAX,
            2 => bytes[at] ^ (1 << choices.below(8)),
            _ => choices.byte(),
        };
    }
}
