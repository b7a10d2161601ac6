//! One granted page of a request, or a part of it.
//!
//! Sectors are 512 bytes here, whatever the disk's sector size is.

use arrayvec::ArrayVec;
use xen::GrantRef;

/// A direct request has at most this many segments (`BLKIF_MAX_SEGMENTS_PER_REQUEST`).
pub const DIRECT_SEGMENTS_MAX: usize = 11;
/// No request has more segments, if indirect ones were agreed on: 128 KiB of whole pages. The
/// protocol would allow 4096.
pub const SEGMENTS_MAX: usize = 32;
/// The protocol's unit of length and place, in bytes.
pub const SECTOR_SIZE: usize = 512;
/// How many sectors a page holds.
pub const SECTORS_PER_PAGE: u8 = 8;

/// The segments of one request.
pub type Segments = ArrayVec<Segment, SEGMENTS_MAX>;

/// A run of sectors in one granted page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The page, in the front's grant table.
    pub reference: GrantRef,
    /// First sector, 0 to 7.
    pub first_sector: u8,
    /// Last sector, from the first to 7.
    pub last_sector: u8,
}

impl Segment {
    /// A whole page.
    pub const fn whole(reference: GrantRef) -> Self {
        Self { reference, first_sector: 0, last_sector: SECTORS_PER_PAGE - 1 }
    }

    /// How many sectors it has, 1 to 8; `None` if its ends are not in order and inside the page.
    pub const fn sectors(self) -> Option<u8> {
        if self.first_sector <= self.last_sector && self.last_sector < SECTORS_PER_PAGE {
            Some(self.last_sector - self.first_sector + 1)
        } else {
            None
        }
    }

    /// Where it begins in its page, in bytes.
    pub const fn offset_bytes(self) -> usize {
        self.first_sector as usize * SECTOR_SIZE
    }

    /// How long it is, in bytes: 512 to 4096, and 0 if its ends make no sense.
    pub const fn length_bytes(self) -> usize {
        match self.sectors() {
            Some(sectors) => sectors as usize * SECTOR_SIZE,
            None => 0,
        }
    }

    /// Whether both ends fall on multiples of `unit` sectors, a power of two.
    pub(crate) const fn is_aligned(self, unit: u8) -> bool {
        (self.first_sector | (self.last_sector + 1)) & (unit - 1) == 0
    }

    #[inline]
    pub(crate) fn from_words([reference, ends]: [u32; 2]) -> Self {
        let [first_sector, last_sector, _, _] = ends.to_le_bytes();
        Self { reference: GrantRef(reference), first_sector, last_sector }
    }

    #[inline]
    pub(crate) fn words(self) -> [u32; 2] {
        let ends = u32::from_le_bytes([self.first_sector, self.last_sector, 0, 0]);
        [self.reference.0, ends]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_all_65536_pairs_of_ends_the_36_in_order_and_inside_the_page_are_taken() {
        let mut taken = 0;
        for first_sector in 0..=u8::MAX {
            for last_sector in 0..=u8::MAX {
                let segment = Segment { reference: GrantRef(1), first_sector, last_sector };
                let fits = first_sector <= last_sector && last_sector <= 7;
                assert_eq!(segment.sectors().is_some(), fits, "{first_sector} {last_sector}");
                if let Some(sectors) = segment.sectors() {
                    taken += 1;
                    assert_eq!(usize::from(sectors) * 512, segment.length_bytes());
                    assert!(segment.offset_bytes() + segment.length_bytes() <= 4096);
                } else {
                    assert_eq!(segment.length_bytes(), 0);
                }
                assert_eq!(segment.offset_bytes(), usize::from(first_sector) * 512);
                assert_eq!(Segment::from_words(segment.words()), segment);
            }
        }
        assert_eq!(taken, 36);
    }

    #[test]
    fn a_segment_is_aligned_if_both_its_ends_are() {
        let segment = |first_sector, last_sector| Segment {
            reference: GrantRef(1),
            first_sector,
            last_sector,
        };
        assert!(segment(3, 3).is_aligned(1));
        assert!(segment(2, 5).is_aligned(2));
        assert!(!segment(1, 5).is_aligned(2));
        assert!(!segment(1, 2).is_aligned(2));
        assert!(!segment(2, 4).is_aligned(2));
        assert!(segment(0, 7).is_aligned(8));
        assert!(!segment(0, 3).is_aligned(8));
    }
}
