//! What a disk holds, and what it would hold if power were cut now.
//!
//! Reads see `bytes`. For every sector that was written since the last flush the version before is
//! kept, so that until a flush covers it any of them may be what is left.

use sim::Random;

const SECTOR: usize = 512;
/// Of so many sectors that lose something in a power cut, one is torn.
const TORN_ONE_IN: usize = 8;

/// A sector before a write that no flush has covered.
struct Before {
    sector: usize,
    bytes: [u8; SECTOR],
    /// A flush should have covered the write and failed: no later one will.
    lost: bool,
}

/// Sectors, and their versions since the last flush.
pub(crate) struct Medium {
    bytes: Vec<u8>,
    /// In the order of the writes.
    before: Vec<Before>,
}

impl Medium {
    /// Zeros.
    pub(crate) fn new(sectors: usize) -> Self {
        // Room for each sector once: it is large, and grows often.
        Self { bytes: vec![0; sectors * SECTOR], before: Vec::with_capacity(sectors) }
    }

    /// So many more sectors of zeros, durable.
    pub(crate) fn grow(&mut self, sectors: usize) {
        self.bytes.resize(self.bytes.len() + sectors * SECTOR, 0);
    }

    /// What reads see.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Writes whole sectors from byte `at` on.
    pub(crate) fn write(&mut self, at: usize, bytes: &[u8]) {
        self.overwritten(at, bytes.len()).copy_from_slice(bytes);
    }

    /// Zeros whole sectors from byte `at` on.
    pub(crate) fn clear(&mut self, at: usize, length: usize) {
        self.overwritten(at, length).fill(0);
    }

    /// The place of whole sectors that are to be overwritten.
    pub(crate) fn overwritten(&mut self, at: usize, length: usize) -> &mut [u8] {
        let old = (at / SECTOR..).zip(self.bytes[at..at + length].as_chunks().0);
        self.before.extend(old.map(|(sector, old)| Before { sector, bytes: *old, lost: false }));
        &mut self.bytes[at..at + length]
    }

    /// How many sector writes no flush has covered.
    pub(crate) fn unsynced(&self) -> usize {
        self.before.len()
    }

    /// A flush covers the first `count` of them.
    pub(crate) fn sync(&mut self, count: usize) {
        let mut at = 0;
        let covered: Vec<usize> =
            self.before[..count].iter().filter(|it| !it.lost).map(|it| it.sector).collect();
        self.before.retain(|it| {
            at += 1;
            // What a failed flush has lost stays so until a later write to the sector is covered.
            at > count || (it.lost && !covered.contains(&it.sector))
        });
    }

    /// A flush that should have covered the first `count` of them failed: each sector loses the
    /// writes at once, or when power is cut, or never.
    pub(crate) fn fail_to_sync(&mut self, count: usize, random: &mut Random) {
        for at in 0..count {
            self.before[at].lost = true;
        }
        let mut at = 0;
        while at < self.before.len() {
            let sector = self.before[at].sector;
            let first = self.before[..at].iter().all(|it| it.sector != sector);
            let all_lost = self.before.iter().filter(|it| it.sector == sector).all(|it| it.lost);
            if first && all_lost && random.below(2) == 0 {
                let bytes = self.before[at].bytes;
                self.bytes[sector * SECTOR..][..SECTOR].copy_from_slice(&bytes);
                self.before.retain(|it| it.sector != sector);
            } else {
                at += 1;
            }
        }
    }

    /// Shows every version that a sector may have after a power cut, of every sector.
    pub(crate) fn versions(&self, mut each: impl FnMut(usize, &[u8])) {
        for before in &self.before {
            each(before.sector, &before.bytes);
        }
        for (sector, bytes) in self.bytes.chunks_exact(SECTOR).enumerate() {
            each(sector, bytes);
        }
    }

    /// Cuts power; what is left is durable. Counts the sectors that lost a write, and those of
    /// them that are torn.
    pub(crate) fn cut(&mut self, random: &mut Random) -> (u64, u64) {
        let (mut lost, mut torn) = (0, 0);
        let mut sectors: Vec<usize> = self.before.iter().map(|it| it.sector).collect();
        sectors.sort_unstable();
        sectors.dedup();
        for sector in sectors {
            let newest = &mut self.bytes[sector * SECTOR..][..SECTOR];
            let old = self.before.iter().filter(|it| it.sector == sector);
            let chosen = random.below(old.clone().count() + 1);
            let Some(chosen) = old.clone().nth(chosen) else { continue };
            lost += 1;
            // The beginning of an older version, the end of a newer one.
            let is_torn = random.below(TORN_ONE_IN) == 0;
            let length = if is_torn { 8 * random.below(SECTOR / 8) } else { SECTOR };
            newest[..length].copy_from_slice(&chosen.bytes[..length]);
            torn += u64::from(is_torn);
        }
        self.before.clear();
        (lost, torn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first_bytes(medium: &Medium) -> Vec<u8> {
        medium.bytes().iter().step_by(SECTOR).copied().collect()
    }

    fn write(medium: &mut Medium, sector: usize, value: u8) {
        medium.write(sector * SECTOR, &[value; SECTOR]);
    }

    #[test]
    fn what_a_flush_covered_survives_and_the_rest_is_any_version() {
        let mut seen = [0_u32; 4];
        for seed in 0..400 {
            let mut medium = Medium::new(2);
            write(&mut medium, 0, 1);
            let covered = medium.unsynced();
            write(&mut medium, 0, 2);
            write(&mut medium, 0, 3);
            write(&mut medium, 1, 1);
            medium.sync(covered);
            medium.cut(&mut Random::new(seed));
            let left = first_bytes(&medium);
            assert!((1..=3).contains(&left[0]) && left[1] <= 1, "{left:?}");
            seen[usize::from(left[0])] += 1;
            assert_eq!(medium.unsynced(), 0);
        }
        assert!(seen[1..].iter().all(|&count| count > 50), "{seen:?}");
    }

    #[test]
    fn a_torn_sector_is_the_beginning_of_one_version_and_the_end_of_another() {
        let torn = (0..400).filter(|&seed| {
            let mut medium = Medium::new(1);
            write(&mut medium, 0, 7);
            medium.cut(&mut Random::new(seed));
            let changes = medium.bytes().windows(2).filter(|pair| pair[0] != pair[1]).count();
            assert!(changes <= 1);
            changes == 1
        });
        assert!(torn.count() > 10);
    }

    #[test]
    fn what_a_failed_flush_lost_is_covered_by_no_later_one() {
        let (mut old, mut new) = (0, 0);
        for seed in 0..100 {
            let mut random = Random::new(seed);
            let mut medium = Medium::new(2);
            write(&mut medium, 0, 1);
            write(&mut medium, 1, 1);
            medium.fail_to_sync(medium.unsynced(), &mut random);
            write(&mut medium, 1, 2);
            medium.sync(medium.unsynced());
            medium.cut(&mut random);
            let left = first_bytes(&medium);
            assert!(left[0] <= 1 && left[1] == 2, "{left:?}");
            old += u32::from(left[0] == 0);
            new += u32::from(left[0] == 1);
        }
        assert!(old > 20 && new > 10, "{old} {new}");
    }
}
