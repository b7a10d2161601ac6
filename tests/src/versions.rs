//! What one sector may hold: the reference model of a disk, sector by sector.
//!
//! A write adds a version. What a read may see are the last version that is certain and all after
//! it; what a power cut may leave are all versions. A flush that ended well forgets the versions
//! before the last write that was answered before the flush was asked for. That is the whole
//! promise of a disk, and nothing else is believed of one.

/// Bytes in a sector.
pub(crate) const SECTOR: usize = 512;

/// What a sector holds: 0 stands for zeros, anything else for a pattern of its own.
pub(crate) type Stamp = u64;

/// Stands for what a power cut has left of two versions.
const TORN: Stamp = Stamp::MAX;
/// No flush makes it durable.
const NEVER: u64 = u64::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    stamp: Stamp,
    /// Whether it surely took the place of those before it.
    certain: bool,
    /// When the write was answered.
    answered: u64,
}

/// The versions of one sector.
#[derive(Clone, Debug)]
pub(crate) struct Versions {
    oldest: Version,
    /// In order.
    newer: Vec<Version>,
    /// The content of the torn one.
    torn: Option<Box<[u8; SECTOR]>>,
}

impl Versions {
    /// Zeros, durable.
    pub(crate) fn new() -> Self {
        let oldest = Version { stamp: 0, certain: true, answered: 0 };
        Self { oldest, newer: Vec::new(), torn: None }
    }

    /// A write was answered well at `now`.
    pub(crate) fn written(&mut self, stamp: Stamp, now: u64) {
        self.newer.push(Version { stamp, certain: true, answered: now });
    }

    /// A write was answered with an error, or never.
    pub(crate) fn doubted(&mut self, stamp: Stamp) {
        self.newer.push(Version { stamp, certain: false, answered: NEVER });
    }

    /// A flush that was asked for at `asked` ended well.
    pub(crate) fn flushed(&mut self, asked: u64) {
        if let Some(at) = self.newer.iter().rposition(|version| version.answered < asked) {
            self.oldest = self.newer[at];
            self.newer.drain(..=at);
        }
    }

    /// A flush failed: whatever was not durable may be gone, and no later flush brings it back.
    pub(crate) fn not_flushed(&mut self) {
        for version in &mut self.newer {
            (version.certain, version.answered) = (false, NEVER);
        }
    }

    /// Whether a read may see this; then it is certain.
    pub(crate) fn seen(&mut self, sector: usize, bytes: &[u8]) -> bool {
        let certain = self.newer.iter().rposition(|version| version.certain);
        let newest = (certain.unwrap_or(0)..self.newer.len()).rev();
        for at in newest {
            if self.holds(&self.newer[at], sector, bytes) {
                self.newer.truncate(at + 1);
                self.newer[at].certain = true;
                return true;
            }
        }
        let oldest = certain.is_none() && self.holds(&self.oldest, sector, bytes);
        if oldest {
            self.newer.clear();
        }
        oldest
    }

    /// Whether a power cut may leave this, were it not for torn sectors.
    pub(crate) fn may_survive(&self, sector: usize, bytes: &[u8]) -> bool {
        self.all().any(|version| self.holds(version, sector, bytes))
    }

    /// Whether a power cut may have left this; then it is durable.
    pub(crate) fn survived(&mut self, sector: usize, bytes: &[u8]) -> bool {
        let found = self.all().find(|version| self.holds(version, sector, bytes));
        let stamp = match found.map(|version| version.stamp) {
            Some(stamp) => stamp,
            None if self.is_torn(sector, bytes) => {
                self.torn = bytes.try_into().ok().map(Box::new);
                TORN
            }
            None => return false,
        };
        self.oldest = Version { stamp, certain: true, answered: 0 };
        self.newer.clear();
        true
    }

    fn all(&self) -> impl Iterator<Item = &Version> {
        std::iter::once(&self.oldest).chain(&self.newer)
    }

    fn holds(&self, version: &Version, sector: usize, bytes: &[u8]) -> bool {
        match (version.stamp, &self.torn) {
            (TORN, Some(torn)) => bytes == &torn[..],
            (stamp, _) => is_content(sector, stamp, bytes),
        }
    }

    /// Whether this is the beginning of one version and the end of another.
    fn is_torn(&self, sector: usize, bytes: &[u8]) -> bool {
        let (mut head, mut tail) = (0, 0);
        for version in self.all() {
            let whole = match (version.stamp, &self.torn) {
                (TORN, Some(torn)) => **torn,
                (stamp, _) => content(sector, stamp),
            };
            let pairs = bytes.iter().zip(&whole);
            head = head.max(pairs.clone().take_while(|(found, wanted)| found == wanted).count());
            tail = tail.max(pairs.rev().take_while(|(found, wanted)| found == wanted).count());
        }
        head + tail >= SECTOR
    }
}

/// Word `at` of the content of a sector with a stamp: no two sectors and no two stamps share one,
/// but for zeros.
const fn word(sector: usize, stamp: Stamp, at: usize) -> u64 {
    if stamp == 0 {
        return 0;
    }
    let first = (stamp << 20 ^ sector as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    first.wrapping_add((at as u64).wrapping_mul(0xd1b5_4a32_d192_ed03))
}

/// The content of a sector with a stamp.
pub(crate) fn content(sector: usize, stamp: Stamp) -> [u8; SECTOR] {
    let mut bytes = [0; SECTOR];
    for (at, place) in bytes.as_chunks_mut().0.iter_mut().enumerate() {
        *place = word(sector, stamp, at).to_le_bytes();
    }
    bytes
}

/// Whether a sector holds what it does with a stamp.
fn is_content(sector: usize, stamp: Stamp, bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks();
    // Without a way out in between, several words are compared at once.
    let differences = words.iter().enumerate().fold(0, |differences, (at, &found)| {
        differences | (u64::from_le_bytes(found) ^ word(sector, stamp, at))
    });
    (differences, rest.len()) == (0, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flush_forgets_what_is_older_than_the_last_write_before_it() {
        let mut versions = Versions::new();
        versions.written(1, 10);
        versions.written(2, 20);
        versions.written(3, 30);
        versions.flushed(25);
        let may = |versions: &Versions, stamp| versions.may_survive(5, &content(5, stamp));
        assert_eq!([0, 1, 2, 3].map(|stamp| may(&versions, stamp)), [false, false, true, true]);
        assert!(!versions.seen(5, &content(5, 2)), "a read sees the last write only");
        assert!(versions.seen(5, &content(5, 3)));
        assert!(!versions.survived(5, &content(4, 3)), "the content of another sector");
        assert!(versions.survived(5, &content(5, 2)));
        assert!(!versions.seen(5, &content(5, 3)));
    }

    #[test]
    fn a_write_in_doubt_is_there_or_not_until_a_read_tells() {
        let mut versions = Versions::new();
        versions.written(1, 10);
        versions.doubted(2);
        assert!(versions.clone().seen(0, &content(0, 1)) && versions.seen(0, &content(0, 2)));
        assert!(!versions.seen(0, &content(0, 1)));
        versions.flushed(50);
        assert!(versions.may_survive(0, &content(0, 1)), "no flush answers for a failed write");
    }

    #[test]
    fn after_a_failed_flush_everything_since_the_last_good_one_is_in_doubt_for_good() {
        let mut versions = Versions::new();
        versions.written(1, 10);
        versions.written(2, 20);
        versions.not_flushed();
        versions.flushed(30);
        for stamp in 0..3 {
            assert!(versions.may_survive(7, &content(7, stamp)));
            assert!(versions.clone().seen(7, &content(7, stamp)));
        }
    }

    #[test]
    fn a_torn_sector_is_two_versions_and_nothing_foreign() {
        let mut versions = Versions::new();
        versions.written(1, 10);
        let mut torn = content(3, 1);
        torn[256..].fill(0);
        let mut foreign = torn;
        foreign[128..136].copy_from_slice(&content(3, 9)[128..136]);
        assert!(!versions.clone().survived(3, &foreign));
        assert!(versions.survived(3, &torn) && versions.seen(3, &torn));
        assert!(!versions.seen(3, &content(3, 1)));
    }
}
