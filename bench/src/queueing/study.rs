//! Which cases are tried, and what is compared with what.
//!
//! Figures of two settings are compared seed by seed: the same writers, the same disk.

use blkfront::elevator::Direction;

use super::disks::Model;
use super::machine::{Load, Pattern, Scene, run};
use crate::quantiles::median;

/// Sectors of a write.
const WRITE_SECTORS: u64 = 8;
/// Writes of each writer that are not counted, and those that are.
const WARM_UP: usize = 4;
const COUNTED: usize = 24;

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

/// What a run has measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Waits {
    /// The mean wait, in nanoseconds.
    pub(super) mean_ns: f64,
    /// What 99 of 100 writes do not wait for longer than, in nanoseconds.
    pub(super) p99_ns: f64,
    /// Writes that were counted.
    pub(super) writes: usize,
    /// How long that took, in nanoseconds of the model.
    pub(super) time_ns: u64,
}

/// Runs a case.
#[expect(clippy::cast_precision_loss, reason = "nanoseconds of some minutes")]
pub(super) fn waits(case: &Case, setting: Setting, seed: u64) -> Waits {
    let Case { disk, guests, slots, backlog, pattern } = *case;
    let direction = Direction::Write;
    let load = Load { direction, sectors: WRITE_SECTORS, depth: backlog, pattern };
    let scene = Scene { disk, slots, setting, loads: vec![load; guests] };
    let writers = guests * backlog;
    let seen = run(&scene, seed, WARM_UP * writers, COUNTED * writers);
    let mut waits_ns: Vec<u64> = seen.ended.iter().map(|write| write.wait_ns).collect();
    waits_ns.sort_unstable();
    let writes = waits_ns.len();
    Waits {
        mean_ns: waits_ns.iter().sum::<u64>() as f64 / writes as f64,
        p99_ns: waits_ns[writes * 99 / 100] as f64,
        writes,
        time_ns: seen.time_ns,
    }
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
    let all = |setting| (0..seeds).map(|seed| waits(&case, setting, seed)).collect::<Vec<_>>();
    let both = all(Setting::BOTH);
    let others = Setting::OTHERS.map(|setting| {
        let these = all(setting);
        figures().map(|figure| cell(&these, &both, figure))
    });
    let both_ns = figures().map(|figure| median(&both.iter().map(figure).collect::<Vec<_>>()));
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
        value_ns: median(&these.iter().map(figure).collect::<Vec<_>>()),
        ratio: median(&ratios),
        spread: [least, most],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_compared_seed_by_seed() {
        let waits = |mean_ns, p99_ns| Waits { mean_ns, p99_ns, writes: 1, time_ns: 1 };
        let these = [waits(2.0, 9.0), waits(30.0, 9.0), waits(8.0, 9.0)];
        let both = [waits(1.0, 9.0), waits(10.0, 9.0), waits(8.0, 9.0)];
        let cell = cell(&these, &both, |waits| waits.mean_ns);
        assert_eq!(cell, Cell { value_ns: 8.0, ratio: 2.0, spread: [1.0, 3.0] });
    }
}
