//! Sectors that say what they are, so that whoever reads one knows whether it is the right one.
//!
//! Each 512-byte sector names its disk, its number, the generation of the write and the seed; the
//! rest is filled from these, and a sum over all of it ends the sector. A reader can tell a sector
//! that was lost (an older generation), misplaced (another number or disk), torn (a wrong sum), or
//! never written. The guest writes it and the host checks it with the same code. It is made for
//! speed under emulation, not to withstand anybody.

use core::fmt;

/// Bytes in a sector.
pub const SECTOR_BYTES: usize = 512;

const WORDS: usize = SECTOR_BYTES / 8;
/// "pvblk", a version, and a tail that no text has.
const MAGIC: u64 = u64::from_le_bytes(*b"pvblk\x01\xaa\x55");
const HEADER: usize = 4;
const SUM: usize = WORDS - 1;
/// The step of Vigna's `SplitMix64`.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// One generation of a disk's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// The disk's number, as xenstore has it (51712 for `xvda`).
    pub disk: u32,
    /// Counts the times that the disk is written over.
    pub generation: u32,
    /// Tells runs apart.
    pub seed: u64,
}

/// What stands in a sector instead of what should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Zeros.
    Zeros,
    /// Nothing of ours.
    Foreign,
    /// A sector of ours whose sum is wrong.
    Torn,
    /// A good sector that belongs elsewhere, or to another time.
    Other(Pattern, u64),
}

/// A sector that is not what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// Its number.
    pub sector: u64,
    /// What it should have been part of.
    pub wanted: Pattern,
    /// What it is.
    pub found: Found,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sector, wanted, found } = self;
        write!(f, "sector {sector} ")?;
        match found {
            Found::Zeros => f.write_str("is all zeros"),
            Found::Foreign => f.write_str("holds something else than the pattern"),
            Found::Torn => f.write_str("is torn: its sum is wrong"),
            Found::Other(is, number) => write!(
                f,
                "holds sector {number} of disk {} in generation {} with seed {}, not disk {} in \
                 generation {} with seed {}",
                is.disk, is.generation, is.seed, wanted.disk, wanted.generation, wanted.seed
            ),
        }
    }
}

impl core::error::Error for Mismatch {}

impl Pattern {
    /// Fills a sector.
    pub fn fill(&self, sector: u64, out: &mut [u8; SECTOR_BYTES]) {
        for (bytes, word) in out.as_chunks_mut().0.iter_mut().zip(self.words(sector)) {
            *bytes = word.to_le_bytes();
        }
    }

    /// Checks a sector.
    ///
    /// # Errors
    /// [`Mismatch`], which says what was found instead.
    pub fn check(&self, sector: u64, bytes: &[u8; SECTOR_BYTES]) -> Result<(), Mismatch> {
        let mut words = [0; WORDS];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        if words == self.words(sector) {
            return Ok(());
        }
        Err(Mismatch { sector, wanted: *self, found: identify(&words) })
    }

    fn words(&self, sector: u64) -> [u64; WORDS] {
        let mut words = [0; WORDS];
        let identity = u64::from(self.disk) << 32 | u64::from(self.generation);
        words[..HEADER].copy_from_slice(&[MAGIC, identity, sector, self.seed]);
        let mut state = self.seed ^ identity.rotate_left(17) ^ sector.wrapping_mul(STEP);
        for word in &mut words[HEADER..SUM] {
            state = state.wrapping_add(STEP);
            *word = (state ^ (state >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        }
        words[SUM] = sum(&words);
        words
    }
}

fn sum(words: &[u64; WORDS]) -> u64 {
    words[..SUM].iter().fold(0, |sum: u64, &word| sum.rotate_left(1).wrapping_add(word))
}

fn identify(words: &[u64; WORDS]) -> Found {
    if words.iter().all(|&word| word == 0) {
        return Found::Zeros;
    }
    let [magic, identity, sector, seed] = [words[0], words[1], words[2], words[3]];
    if magic != MAGIC {
        return Found::Foreign;
    }
    let [a, b, c, d, e, f, g, h] = identity.to_le_bytes();
    let disk = u32::from_le_bytes([e, f, g, h]);
    let is = Pattern { disk, generation: u32::from_le_bytes([a, b, c, d]), seed };
    if *words == is.words(sector) { Found::Other(is, sector) } else { Found::Torn }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATTERN: Pattern = Pattern { disk: 51728, generation: 3, seed: 7 };

    fn filled(pattern: Pattern, sector: u64) -> [u8; SECTOR_BYTES] {
        let mut bytes = [0xee; SECTOR_BYTES];
        pattern.fill(sector, &mut bytes);
        bytes
    }

    fn found(bytes: &[u8; SECTOR_BYTES]) -> Option<Found> {
        PATTERN.check(9, bytes).err().map(|mismatch| mismatch.found)
    }

    #[test]
    fn a_sector_is_what_was_filled() {
        for sector in [0, 1, 9, u64::MAX] {
            assert_eq!(PATTERN.check(sector, &filled(PATTERN, sector)), Ok(()));
        }
    }

    #[test]
    fn every_single_bit_counts() {
        for bit in 0..SECTOR_BYTES * 8 {
            let mut bytes = filled(PATTERN, 9);
            bytes[bit / 8] ^= 1 << (bit % 8);
            let expected = if bit < 64 { Found::Foreign } else { Found::Torn };
            assert_eq!(found(&bytes), Some(expected), "bit {bit}");
        }
    }

    #[test]
    fn a_sector_from_elsewhere_or_from_before_says_so() {
        for (pattern, sector) in [
            (PATTERN, 10),
            (Pattern { generation: 2, ..PATTERN }, 9),
            (Pattern { disk: 51712, ..PATTERN }, 9),
            (Pattern { seed: 8, ..PATTERN }, 9),
        ] {
            assert_eq!(found(&filled(pattern, sector)), Some(Found::Other(pattern, sector)));
        }
    }

    #[test]
    fn what_was_never_written_is_told_from_what_is_torn() {
        assert_eq!(found(&[0; SECTOR_BYTES]), Some(Found::Zeros));
        assert_eq!(found(&[0xff; SECTOR_BYTES]), Some(Found::Foreign));
        let mut bytes = filled(PATTERN, 9);
        bytes[256..].copy_from_slice(&filled(Pattern { generation: 2, ..PATTERN }, 9)[256..]);
        assert_eq!(found(&bytes), Some(Found::Torn));
    }
}
