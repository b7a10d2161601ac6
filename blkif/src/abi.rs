//! The layouts that one protocol has: what a C compiler made of the header on each architecture.
//!
//! Fields are the same in the same order; the 32-bit layout has its 64-bit fields on 4-byte
//! boundaries, so its requests lack the padding word behind the first one and its responses the
//! one at the end. The guest's `protocol` node names its layout.

use ring::Layout;

use crate::keys::{PROTOCOL, Refusal, Silly};

/// Rings have at most `2^ORDER_MAX` pages (`max-ring-page-order`).
pub const ORDER_MAX: u32 = 4;
/// Rings have at most this many pages.
pub const RING_PAGES_MAX: usize = 1 << ORDER_MAX;
/// A slot of the larger layout, in 32-bit words.
pub const SLOT_WORDS_MAX: usize = 28;

/// Which layout the entries of a ring have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abi {
    /// 64-bit x86 (and arm, whose name for it is not taken on x86): slots of 112 bytes.
    X86_64,
    /// 32-bit x86: slots of 108 bytes.
    X86_32,
}

impl Abi {
    /// What a guest that names no protocol is taken for, unless its tool stack said otherwise:
    /// the 32-bit layout, as Linux's backend does on x86.
    pub const WHEN_MISSING: Self = Self::X86_32;

    /// What goes into the `protocol` node.
    pub const fn protocol(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-abi",
            Self::X86_32 => "x86_32-abi",
        }
    }

    /// What a `protocol` node means; `missing` if there is none.
    ///
    /// # Errors
    /// [`Silly::Unknown`] for any other protocol.
    pub fn of_protocol(text: Option<&str>, missing: Self) -> Result<Self, Refusal> {
        match text {
            None => Ok(missing),
            Some("x86_64-abi") => Ok(Self::X86_64),
            Some("x86_32-abi") => Ok(Self::X86_32),
            Some(_) => Err(Refusal::new(PROTOCOL, Silly::Unknown)),
        }
    }

    /// The layout of a ring of `2^order` pages: `32 << order` slots in either ABI.
    ///
    /// # Panics
    /// If `order` is above [`ORDER_MAX`]; [`Agreed`](crate::Agreed) holds none that is.
    pub const fn layout(self, order: u32) -> Layout {
        assert!(order <= ORDER_MAX, "ring order out of bounds");
        Layout::of_pages(order, self.slot_words())
    }

    /// Words of a slot, which are the words of a request with all its segments.
    pub(crate) const fn slot_words(self) -> usize {
        match self {
            Self::X86_64 => 28,
            Self::X86_32 => 27,
        }
    }

    /// Padding words between a request's first word and its id.
    pub(crate) const fn request_padding(self) -> usize {
        match self {
            Self::X86_64 => 1,
            Self::X86_32 => 0,
        }
    }

    /// Padding words behind a response's third: it has 16 or 12 bytes.
    pub(crate) const fn response_padding(self) -> usize {
        match self {
            Self::X86_64 => 1,
            Self::X86_32 => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_has_32_slots_per_page_in_either_abi() {
        for order in 0..=ORDER_MAX {
            assert_eq!(Abi::X86_64.layout(order).slots(), 32 << order);
            assert_eq!(Abi::X86_32.layout(order).slots(), 32 << order);
        }
        assert_eq!(Abi::X86_64.layout(0).slot_words() * 4, 112);
        assert_eq!(Abi::X86_32.layout(0).slot_words() * 4, 108);
    }

    #[test]
    #[should_panic(expected = "ring order out of bounds")]
    fn a_ring_of_32_pages_is_refused() {
        let _ = Abi::X86_64.layout(ORDER_MAX + 1);
    }

    #[test]
    fn a_protocol_is_known_by_its_exact_name() {
        for abi in [Abi::X86_64, Abi::X86_32] {
            assert_eq!(Abi::of_protocol(Some(abi.protocol()), Abi::X86_32), Ok(abi));
            assert_eq!(Abi::of_protocol(None, abi), Ok(abi));
        }
        for text in ["", "native", "arm-abi", "X86_64-ABI", "x86_64-abi ", "x86_64-abi\0"] {
            let refusal = Abi::of_protocol(Some(text), Abi::X86_64).unwrap_err();
            assert_eq!(refusal, Refusal::new(PROTOCOL, Silly::Unknown), "{text:?}");
        }
    }
}
