//! A histogram of times with a bounded error and a fixed size, in the manner of HDR histograms.
//!
//! Buckets are linear below 64 ns and 64 to a power of two above: at most 1/64 too wide. Times
//! beyond the last bucket (18 minutes) count as the last.

use alloc::vec;
use alloc::vec::Vec;

/// 2^6 buckets to a power of two.
const FINE: u32 = 6;
/// Powers of two up to 2^40 ns.
const POWERS: u32 = 40;
const BUCKETS: usize = ((POWERS - FINE + 1) << FINE) as usize;

/// Counts of times, in nanoseconds.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: Vec<u32>,
    total: u64,
    sum: u128,
    least: u64,
    most: u64,
}

impl Histogram {
    /// Nothing counted. Allocates about 9 KiB, once.
    pub fn new() -> Self {
        Self { counts: vec![0; BUCKETS], total: 0, sum: 0, least: u64::MAX, most: 0 }
    }

    /// Counts one time.
    pub fn count(&mut self, ns: u64) {
        let bucket = &mut self.counts[bucket(ns)];
        *bucket = bucket.saturating_add(1);
        self.total += 1;
        self.sum += u128::from(ns);
        self.least = self.least.min(ns);
        self.most = self.most.max(ns);
    }

    /// How many were counted.
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// The shortest; 0 if there is none.
    pub const fn least(&self) -> u64 {
        if self.total == 0 { 0 } else { self.least }
    }

    /// The longest.
    pub const fn most(&self) -> u64 {
        self.most
    }

    /// The mean; 0 if there is none.
    pub fn mean(&self) -> u64 {
        let mean = self.sum.checked_div(u128::from(self.total));
        mean.map_or(0, |mean| u64::try_from(mean).unwrap_or(u64::MAX))
    }

    /// The time that `per_mille` of 1000 do not exceed, to within 1/64; 0 if there is none.
    pub fn quantile(&self, per_mille: u64) -> u64 {
        let rank = (self.total * per_mille).div_ceil(1000).max(1);
        let mut seen = 0;
        for (at, &count) in self.counts.iter().enumerate() {
            seen += u64::from(count);
            if seen >= rank {
                return upper(at).clamp(self.least(), self.most);
            }
        }
        self.most
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

fn bucket(ns: u64) -> usize {
    let power = ns.checked_ilog2().unwrap_or(0);
    let index = if power < FINE {
        ns
    } else {
        let shift = power - FINE;
        (u64::from(shift) << FINE) + (ns >> shift)
    };
    usize::try_from(index).map_or(BUCKETS - 1, |index| index.min(BUCKETS - 1))
}

/// The largest time of a bucket.
fn upper(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let shift = (bucket >> FINE).saturating_sub(1);
    if bucket < 1 << FINE { bucket } else { ((bucket - (shift << FINE) + 1) << shift) - 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_lies_in_its_bucket_and_the_bucket_is_narrow() {
        let mut previous = 0;
        for power in 0..POWERS {
            for offset in 0..2000 {
                let ns = (1_u64 << power) + (((1_u64 << power) - 1) / 2000) * offset;
                let at = bucket(ns);
                assert!(ns <= upper(at) && upper(at) - ns <= ns / 64, "{ns} {at}");
                assert!(at >= previous);
                previous = at;
            }
        }
        for at in 1..BUCKETS {
            assert_eq!(bucket(upper(at)), at);
            assert_eq!(bucket(upper(at - 1) + 1), at);
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_those_of_the_counted_times() {
        let mut histogram = Histogram::new();
        (1..=1000).for_each(|us| histogram.count(us * 1000));
        assert_eq!(
            (histogram.total(), histogram.least(), histogram.most()),
            (1000, 1000, 1_000_000)
        );
        assert_eq!(histogram.mean(), 500_500);
        for (per_mille, exact) in
            [(500, 500_000), (990, 990_000), (999, 999_000), (1000, 1_000_000)]
        {
            let found = histogram.quantile(per_mille);
            assert!(found >= exact && found - exact <= exact / 64, "{per_mille}: {found}");
        }
    }

    #[test]
    fn an_empty_histogram_says_zero_and_one_value_says_itself() {
        let mut histogram = Histogram::new();
        assert_eq!((histogram.least(), histogram.most(), histogram.mean()), (0, 0, 0));
        assert_eq!(histogram.quantile(990), 0);
        histogram.count(12345);
        assert_eq!((histogram.quantile(1), histogram.quantile(1000)), (12345, 12345));
    }
}
