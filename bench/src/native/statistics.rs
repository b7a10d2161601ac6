//! What paired blocks say of a ratio, and when they say nothing.
//!
//! Two programs take turns, ours, peer, peer, ours, so that a drift of the machine falls on both. Each
//! pair of neighbours gives one ratio; a geometric mean is the same whichever of the two is the unit.
//! Must never give a number whose interval is wider than [`WIDEST`].

use sim::Random;

use crate::quantiles::percentile;

/// Half of the widest interval that a number is given for, in parts of the number.
pub const WIDEST: f64 = 0.03;
/// How often the ratios are drawn anew for an interval.
const DRAWS: usize = 2000;
/// What is drawn is the same each time.
const SEED: u64 = 1;

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The program that is measured.
    Ours,
    /// The one that it is held against.
    Peer,
}

/// Turns for so many pairs of neighbours.
pub fn turns(pairs: usize) -> impl Iterator<Item = [Side; 2]> {
    let both = [[Side::Ours, Side::Peer], [Side::Peer, Side::Ours]];
    both.into_iter().cycle().take(pairs)
}

/// A ratio, as some pairs of blocks have it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratio {
    /// The geometric mean.
    pub mean: f64,
    /// Where 95 of 100 means lie, of ratios that are drawn from these.
    pub interval: [f64; 2],
    /// How many pairs there were.
    pub pairs: usize,
}

impl Ratio {
    /// The ratio that these say, each above 0; `None` if there are none.
    pub fn of(ratios: &[f64]) -> Option<Self> {
        if ratios.is_empty() {
            return None;
        }
        let logs: Vec<f64> = ratios.iter().map(|ratio| ratio.ln()).collect();
        let mut random = Random::new(SEED);
        let draw = |_| mean((0..logs.len()).map(|_| logs[random.below(logs.len())])).exp();
        let drawn: Vec<f64> = (0..DRAWS).map(draw).collect();
        let interval = [0.025, 0.975].map(|share| percentile(&drawn, share));
        Some(Self { mean: mean(logs.iter().copied()).exp(), interval, pairs: ratios.len() })
    }

    /// Half of the interval, in parts of the mean.
    pub fn width(&self) -> f64 {
        (self.interval[1] - self.interval[0]) / 2.0 / self.mean
    }

    /// Whether the interval is narrow enough for a number.
    pub fn is_known(&self) -> bool {
        self.width() <= WIDEST
    }
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len();
    values.sum::<f64>() / f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(value: f64, expected: f64) -> bool {
        (value / expected - 1.0).abs() < 1e-9
    }

    #[test]
    fn the_mean_of_ratios_is_geometric() {
        let ratio = Ratio::of(&[0.5, 2.0]).unwrap();
        assert!(about(ratio.mean, 1.0), "{ratio:?}");
        assert!(about(Ratio::of(&[1.0, 8.0, 1.0]).unwrap().mean, 2.0));
        assert_eq!(Ratio::of(&[]), None);
    }

    #[test]
    fn an_interval_is_the_same_each_time_and_holds_the_mean() {
        let ratios: Vec<f64> = (0..100).map(|at| 0.9 + 0.002 * f64::from(at)).collect();
        let ratio = Ratio::of(&ratios).unwrap();
        assert_eq!(Some(ratio), Ratio::of(&ratios));
        let [low, high] = ratio.interval;
        assert!(low < ratio.mean && ratio.mean < high, "{ratio:?}");
        // Of 100 values with a deviation of 0.058: twice 1.96 times a tenth of that.
        assert!((high - low - 0.0226).abs() < 0.004, "{ratio:?}");
        assert_eq!(ratio.pairs, 100);
    }

    #[test]
    fn equal_ratios_have_no_interval() {
        let ratio = Ratio::of(&[0.97; 10]).unwrap();
        assert!(about(ratio.interval[0], 0.97) && about(ratio.interval[1], 0.97));
        assert!(ratio.is_known() && ratio.width() < 1e-9);
    }

    #[test]
    fn no_number_is_given_for_an_interval_that_is_wider_than_three_percent() {
        let ratio = |half: f64| Ratio { mean: 2.0, interval: [2.0 - half, 2.0 + half], pairs: 9 };
        assert!(ratio(0.059).is_known());
        assert!(!ratio(0.061).is_known());
        assert!(!Ratio::of(&[0.5, 2.0, 0.7, 1.5]).unwrap().is_known());
    }

    #[test]
    fn turns_are_ours_peer_peer_ours() {
        use Side::{Ours, Peer};
        let order: Vec<Side> = turns(5).flatten().collect();
        assert_eq!(
            order,
            [Ours, Peer, Peer, Ours, Ours, Peer, Peer, Ours, Ours, Peer],
            "a drift falls on both"
        );
    }
}
