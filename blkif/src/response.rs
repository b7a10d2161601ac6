//! What the back answers: 16 bytes in the 64-bit layout, 12 in the 32-bit one.

use ring::{Memory, Reader};

use crate::{Abi, Words};

/// The words of one response, in its slot's order.
pub type ResponseWords = Words<4>;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Done (0).
    Okay,
    /// Not done (-1).
    Error,
    /// Nothing that this back does (-2).
    Unsupported,
}

impl Status {
    /// The number that stands in a response.
    pub const fn wire(self) -> i16 {
        match self {
            Self::Okay => 0,
            Self::Error => -1,
            Self::Unsupported => -2,
        }
    }

    /// What a response's number means: whatever is not known is an error.
    pub const fn from_wire(number: i16) -> Self {
        match number {
            0 => Self::Okay,
            -2 => Self::Unsupported,
            _ => Self::Error,
        }
    }
}

/// An answer to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response {
    /// The request's id.
    pub id: u64,
    /// The request's operation, as the front wrote it.
    pub operation: u8,
    /// How it ended.
    pub status: Status,
}

impl Response {
    /// The words of the response. Padding is 0: nothing of ours leaks to the guest (XSA-216).
    #[inline]
    pub fn words(self, abi: Abi) -> ResponseWords {
        let [a, b, c, d, e, f, g, h] = self.id.to_le_bytes();
        let [status_low, status_high] = self.status.wire().to_le_bytes();
        let mut words = ResponseWords::new();
        words.push([
            u32::from_le_bytes([a, b, c, d]),
            u32::from_le_bytes([e, f, g, h]),
            u32::from_le_bytes([self.operation, 0, status_low, status_high]),
        ]);
        words.use_more(abi.response_padding());
        words
    }

    /// Reads a response out of its slot, each word once.
    #[inline]
    pub fn parse<M: Memory + ?Sized>(reader: &mut Reader<'_, M>) -> Self {
        let [id_low, id_high, last] = reader.array().unwrap_or_default();
        let id = u64::from(id_low) | u64::from(id_high) << 32;
        let [operation, _, status_low, status_high] = u32::to_le_bytes(last);
        let status = i16::from_le_bytes([status_low, status_high]);
        Self { id, operation, status: Status::from_wire(status) }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::boxed::Box;
    use std::vec::Vec;

    use ring::{Back, Front, PAGE_WORDS, Page};

    use super::*;

    const RESPONSE: Response =
        Response { id: 0x8877_6655_4433_2211, operation: 0xaa, status: Status::Unsupported };

    fn bytes(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn a_response_has_16_bytes_in_the_64_bit_layout_and_its_padding_is_zero() {
        let expected =
            [0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0xaa, 0, 0xfe, 0xff, 0, 0, 0, 0];
        assert_eq!(bytes(&RESPONSE.words(Abi::X86_64)), expected);
    }

    #[test]
    fn a_response_has_12_bytes_in_the_32_bit_layout() {
        let expected = [0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0xaa, 0, 0xfe, 0xff];
        assert_eq!(bytes(&RESPONSE.words(Abi::X86_32)), expected);
    }

    #[test]
    fn a_response_arrives_as_it_was_put() {
        for abi in [Abi::X86_64, Abi::X86_32] {
            let page = Box::new(Page::new());
            let mut front = Front::new(&*page, abi.layout(0));
            let mut back = Back::attach(&*page, abi.layout(0));
            front.put(&[0; 8]).unwrap();
            let _ = front.publish();
            back.take(|_| ()).unwrap();
            back.put(&RESPONSE.words(abi)).unwrap();
            let _ = back.publish();
            assert_eq!(front.take(Response::parse), Ok(Some(RESPONSE)));
            assert!(PAGE_WORDS > abi.layout(0).words());
        }
    }

    #[test]
    fn any_other_status_is_an_error() {
        for number in i16::MIN..=i16::MAX {
            let status = Status::from_wire(number);
            let known = (-2..=0).contains(&number);
            assert_eq!(status.wire(), if known { number } else { -1 });
        }
    }
}
