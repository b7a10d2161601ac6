//! Which cases are tried, and what is compared with what.
//!
//! Figures of two settings are compared seed by seed: the same writers, the same disk.

use super::disks::Model;
use super::machine::{Waits, run};

/// An elevator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// First come, first served.
    Noop,
    /// Sorted by sector, with an end to waiting.
    Deadline,
}

/// Who sorts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The elevator of every guest.
    pub guest: Order,
    /// The host's.
    pub host: Order,
}

impl Setting {
    /// Both sort: what the others are compared with.
    pub const BOTH: Self = Self { guest: Order::Deadline, host: Order::Deadline };
    /// The rest: the guest does not sort, the host does not, and nobody does.
    pub const OTHERS: [Self; 3] = [
        Self { guest: Order::Noop, host: Order::Deadline },
        Self { guest: Order::Deadline, host: Order::Noop },
        Self { guest: Order::Noop, host: Order::Noop },
    ];

    /// What it is called.
    pub const fn name(self) -> &'static str {
        match (self.guest, self.host) {
            (Order::Deadline, Order::Deadline) => "both sort",
            (Order::Noop, Order::Deadline) => "guest noop",
            (Order::Deadline, Order::Noop) => "host noop",
            (Order::Noop, Order::Noop) => "both noop",
        }
    }
}

/// Where the writes of a guest go, 4 KiB each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// Anywhere.
    Random,
    /// Four of five behind the one before, the fifth anywhere.
    Runs,
}

/// A machine with its load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    /// The disk.
    pub disk: Model,
    /// Guests, each with a part of the disk.
    pub guests: usize,
    /// Requests that a ring holds.
    pub slots: usize,
    /// Writers of each guest.
    pub backlog: usize,
    /// Where they write.
    pub pattern: Pattern,
}

impl Case {
    /// What it is called.
    pub fn name(&self) -> String {
        let guests =
            if self.guests == 1 { "1 guest".into() } else { format!("{} guests", self.guests) };
        let pattern = match self.pattern {
            Pattern::Random => "random",
            Pattern::Runs => "runs",
        };
        format!("{}, {guests}, ring of {}, {pattern}", self.disk.name(), self.slots)
    }
}

/// All cases: heavy writes, of which 256 wait in each guest at any time.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for disk in Model::ALL {
        for guests in [1, 4] {
            for slots in [32, 256] {
                for pattern in [Pattern::Random, Pattern::Runs] {
                    cases.push(Case { disk, guests, slots, backlog: 256, pattern });
                }
            }
        }
    }
    cases
}

/// One figure beside that of [`Setting::BOTH`], over all seeds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cell {
    /// The median, in nanoseconds.
    pub value_ns: f64,
    /// The median of the ratios, seed by seed.
    pub ratio: f64,
    /// The least and the greatest ratio.
    pub spread: [f64; 2],
}

/// What came out of a case.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The case.
    pub case: Case,
    /// Mean and 99th percentile of the wait where both sort: medians over the seeds.
    pub both_ns: [f64; 2],
    /// The same for [`Setting::OTHERS`], in their order.
    pub others: [[Cell; 2]; 3],
    /// Seeds.
    pub seeds: u64,
}

/// Tries a case with so many seeds.
///
/// # Panics
/// If `seeds` is 0.
pub fn study(case: Case, seeds: u64) -> Row {
    assert!(seeds > 0, "a figure needs a seed");
    let waits = |setting| (0..seeds).map(|seed| run(&case, setting, seed)).collect::<Vec<_>>();
    let both = waits(Setting::BOTH);
    let others = Setting::OTHERS.map(|setting| {
        let these = waits(setting);
        figures().map(|figure| cell(&these, &both, figure))
    });
    let both_ns = figures().map(|figure| median(both.iter().map(figure).collect()));
    Row { case, both_ns, others, seeds }
}

type Figure = fn(&Waits) -> f64;

fn figures() -> [Figure; 2] {
    [|waits| waits.mean_ns, |waits| waits.p99_ns]
}

fn cell(these: &[Waits], both: &[Waits], figure: Figure) -> Cell {
    let ratios: Vec<f64> =
        these.iter().zip(both).map(|(this, both)| figure(this) / figure(both)).collect();
    let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    let most = ratios.iter().copied().fold(0.0, f64::max);
    Cell {
        value_ns: median(these.iter().map(figure).collect()),
        ratio: median(ratios),
        spread: [least, most],
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        values[middle]
    } else {
        f64::midpoint(values[middle - 1], values[middle])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle_or_between_the_two_that_are() {
        assert!((median(vec![5.0, 1.0, 3.0]) - 3.0).abs() < f64::EPSILON);
        assert!((median(vec![5.0, 1.0, 3.0, 2.0]) - 2.5).abs() < f64::EPSILON);
    }

    #[test]
    fn settings_are_compared_seed_by_seed() {
        let waits = |mean_ns, p99_ns| Waits { mean_ns, p99_ns, writes: 1, time_ns: 1 };
        let these = [waits(2.0, 9.0), waits(30.0, 9.0), waits(8.0, 9.0)];
        let both = [waits(1.0, 9.0), waits(10.0, 9.0), waits(8.0, 9.0)];
        let cell = cell(&these, &both, |waits| waits.mean_ns);
        assert_eq!(cell, Cell { value_ns: 8.0, ratio: 2.0, spread: [1.0, 3.0] });
    }
}
