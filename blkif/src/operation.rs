//! What a request asks for.
//!
//! Only what this project does is named. Write barriers (2) and the reserved 4 are not offered and
//! answered like any other unknown number. 6 is no operation but a form of request: an indirect one
//! has another number for what it asks for.

/// The number in the place of the operation of an indirect request (`BLKIF_OP_INDIRECT`).
pub const INDIRECT: u8 = 6;

/// What a request asks for, by its number in `io/blkif.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Operation {
    /// From the disk into the segments.
    Read = 0,
    /// From the segments onto the disk.
    Write = 1,
    /// All writes answered so far become durable; segments, if any, are written after that.
    Flush = 3,
    /// The content of a range is not needed any more.
    Discard = 5,
}

impl Operation {
    /// All operations.
    pub const ALL: [Self; 4] = [Self::Read, Self::Write, Self::Flush, Self::Discard];

    /// The operation with this number, if it is one of ours.
    pub const fn from_wire(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Read),
            1 => Some(Self::Write),
            3 => Some(Self::Flush),
            5 => Some(Self::Discard),
            _ => None,
        }
    }

    /// The number that stands in requests and responses.
    pub const fn wire(self) -> u8 {
        self as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_of_the_256_numbers_is_one_of_four_operations_or_none() {
        for number in 0..=u8::MAX {
            let operation = Operation::from_wire(number);
            assert_eq!(operation.is_some(), [0, 1, 3, 5].contains(&number), "{number}");
            assert!(operation.is_none_or(|operation| operation.wire() == number));
        }
        assert_eq!(Operation::ALL.map(Operation::wire), [0, 1, 3, 5]);
    }
}
