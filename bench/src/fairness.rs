//! What guests that share a disk take from each other: in virtual time, in the machine of
//! [`queueing`](crate::queueing).
//!
//! Two kinds of company. A *victim* reads 4 KiB at a time, at random and at depth 1, beside an *aggressor*
//! that writes 128 KiB at random at depth 256, as far as its ring lets it; both are held against
//! themselves alone. *Equals* all read 4 KiB at random at the same depth, and none of them should get less
//! than another.
//!
//! `blkback` hands each ring's batches straight on, one process for each device and in the order of
//! arrival, so that only the host's elevator and the disk decide who is next. Guests do not sort.
//!
//! The model does not know how Xen shares processors between guests, nor how Dom0 shares its own between
//! the processes of devices: there everybody runs as soon as there is something to do. What is unfair here
//! is so because of the queue; on a machine that is short of processors more may be.
//!
//! An aim that is missed is said, not mended; nothing here may fail for it.

mod report;
mod shares;

use blkfront::elevator::Direction;

use crate::quantiles::{median, percentile};
use crate::queueing::{Load, Model, Order, Pattern, Scene, Seen, Setting, run};
use shares::{least_jain, least_share};

pub use report::{json, table};

/// I/Os of a run that are not counted, and those that are.
const WARM_UP: usize = 5_000;
const COUNTED: usize = 50_000;
/// I/Os in a row over which everybody should get as much as anybody.
const WINDOW: usize = 1_000;
/// Bytes of a sector.
const SECTOR_BYTES: f64 = 512.0;

const VICTIM: Load =
    Load { direction: Direction::Read, sectors: 8, depth: 1, pattern: Pattern::Random };
const AGGRESSOR: Load =
    Load { direction: Direction::Write, sectors: 256, depth: 256, pattern: Pattern::Random };

/// Who shares the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Company {
    /// One that waits for each of its reads, and one that writes as much as it can.
    VictimAndAggressor,
    /// So many that do the same, each at this depth.
    Equals {
        /// How many.
        devices: usize,
        /// I/Os that each has on their way.
        depth: usize,
    },
}

/// A company with its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    /// The disk.
    pub disk: Model,
    /// Requests that a ring holds.
    pub slots: usize,
    /// The host's elevator.
    pub host: Order,
    /// Who shares the disk.
    pub company: Company,
}

impl Case {
    /// What it is called.
    pub fn name(&self) -> String {
        let company = match self.company {
            Company::VictimAndAggressor => "victim and aggressor".into(),
            Company::Equals { devices, depth } => format!("{devices} equals at depth {depth}"),
        };
        let host = match self.host {
            Order::Noop => "noop",
            Order::Deadline => "deadline",
        };
        format!("{}, {company}, ring of {}, host {host}", self.disk.name(), self.slots)
    }

    fn seen(&self, loads: Vec<Load>, seed: u64) -> Seen {
        let setting = Setting { guest: Order::Noop, host: self.host };
        let scene = Scene { disk: self.disk, slots: self.slots, setting, loads };
        run(&scene, seed, WARM_UP, COUNTED)
    }
}

/// All cases.
pub fn cases() -> Vec<Case> {
    let equals = |devices, depth| (Company::Equals { devices, depth }, 32);
    let companies = [
        (Company::VictimAndAggressor, 32),
        (Company::VictimAndAggressor, 256),
        equals(8, 32),
        equals(256, 1),
        equals(256, 4),
    ];
    let mut cases = Vec::new();
    for (company, slots) in companies {
        for disk in Model::ALL {
            for host in [Order::Noop, Order::Deadline] {
                cases.push(Case { disk, slots, host, company });
            }
        }
    }
    cases
}

/// What would be fair.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Aim {
    /// Nothing is aimed at.
    None,
    /// No more than this.
    AtMost(f64),
    /// No less.
    AtLeast(f64),
}

/// One figure over all seeds.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// What it is of.
    pub name: &'static str,
    /// Its unit.
    pub unit: &'static str,
    /// The median.
    pub value: f64,
    /// Whose figure is beside it, that figure's median, and the median of the ratios, seed by seed.
    pub peer: Option<(&'static str, f64, f64)>,
    /// The least and the greatest: of the ratios, if there is a peer.
    pub spread: [f64; 2],
    /// What is aimed at: for the ratio, if there is a peer.
    pub aim: Aim,
}

impl Figure {
    /// Of values that stand for themselves, one of each seed.
    fn plain(name: &'static str, unit: &'static str, values: Vec<f64>, aim: Aim) -> Self {
        let spread = spread(&values);
        Self { name, unit, value: median(&values), peer: None, spread, aim }
    }

    /// Of values beside those of a peer with the same seeds.
    fn beside(
        (name, unit): (&'static str, &'static str),
        values: Vec<f64>,
        (peer, theirs): (&'static str, Vec<f64>),
        aim: Aim,
    ) -> Self {
        let ratios: Vec<f64> = values.iter().zip(&theirs).map(|(own, peer)| own / peer).collect();
        let spread = spread(&ratios);
        let peer = Some((peer, median(&theirs), median(&ratios)));
        Self { name, unit, value: median(&values), peer, spread, aim }
    }

    /// Whether each seed came up to what is aimed at.
    pub fn holds(&self) -> bool {
        match self.aim {
            Aim::None => true,
            Aim::AtMost(most) => self.spread[1] <= most,
            Aim::AtLeast(least) => self.spread[0] >= least,
        }
    }
}

fn spread(values: &[f64]) -> [f64; 2] {
    [0.0, 1.0].map(|share| percentile(values, share))
}

/// What came out of a case.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The case.
    pub case: Case,
    /// Its figures.
    pub figures: Vec<Figure>,
    /// Seeds.
    pub seeds: u64,
}

/// Tries a case with so many seeds.
///
/// # Panics
/// If `seeds` is 0.
pub fn study(case: Case, seeds: u64) -> Row {
    assert!(seeds > 0, "a figure needs a seed");
    let figures = match case.company {
        Company::VictimAndAggressor => beside_an_aggressor(&case, seeds),
        Company::Equals { devices, depth } => {
            among_equals(&case, vec![Load { depth, ..VICTIM }; devices], seeds)
        }
    };
    Row { case, figures, seeds }
}

fn beside_an_aggressor(case: &Case, seeds: u64) -> Vec<Figure> {
    let figures = |loads: &[Load]| {
        columns((0..seeds).map(|seed| {
            let seen = case.seen(loads.to_vec(), seed);
            let [p50, p99] = latencies_ms(&seen, 0);
            [p50, p99, megabytes_a_second(&seen, loads)]
        }))
    };
    let [p50, p99, total] = figures(&[VICTIM, AGGRESSOR]);
    let [p50_alone, p99_alone, _] = figures(&[VICTIM]);
    let [_, _, total_alone] = figures(&[AGGRESSOR]);
    let victim = "the victim alone";
    vec![
        Figure::beside(("victim's p50", "ms"), p50, (victim, p50_alone), Aim::None),
        Figure::beside(("victim's p99", "ms"), p99, (victim, p99_alone), Aim::AtMost(2.0)),
        Figure::beside(
            ("total throughput", "MB/s"),
            total,
            ("the aggressor alone", total_alone),
            Aim::AtLeast(0.97),
        ),
    ]
}

fn among_equals(case: &Case, loads: Vec<Load>, seeds: u64) -> Vec<Figure> {
    let devices = loads.len();
    let seen = |seed| {
        let seen = case.seen(loads.clone(), seed);
        let whose: Vec<usize> = seen.ended.iter().map(|io| io.guest).collect();
        [least_jain(devices, &whose, WINDOW), least_share(devices, &whose)]
    };
    let [jain, share] = columns((0..seeds).map(seen));
    vec![
        Figure::plain("least Jain's index of 1000 I/Os", "1", jain, Aim::AtLeast(0.99)),
        Figure::plain("least share of a device", "fair shares", share, Aim::AtLeast(0.9)),
    ]
}

/// Figures of each seed as seeds of each figure.
fn columns<const N: usize>(rows: impl Iterator<Item = [f64; N]>) -> [Vec<f64>; N] {
    let rows: Vec<[f64; N]> = rows.collect();
    std::array::from_fn(|at| rows.iter().map(|row| row[at]).collect())
}

/// The median and the 99th percentile of how long a guest's I/Os took.
#[expect(clippy::cast_precision_loss, reason = "nanoseconds of some minutes")]
fn latencies_ms(seen: &Seen, guest: usize) -> [f64; 2] {
    let own = seen.ended.iter().filter(|io| io.guest == guest);
    let waits: Vec<f64> = own.map(|io| io.wait_ns as f64 / 1e6).collect();
    [0.5, 0.99].map(|share| percentile(&waits, share))
}

/// What all guests together read and wrote.
#[expect(clippy::cast_precision_loss, reason = "some gigabytes, some minutes")]
fn megabytes_a_second(seen: &Seen, loads: &[Load]) -> f64 {
    let sectors: u64 = seen.ended.iter().map(|io| loads[io.guest].sectors).sum();
    sectors as f64 * SECTOR_BYTES * 1e3 / seen.time_ns as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queueing::Ended;

    const EQUALS: Company = Company::Equals { devices: 2, depth: 4 };
    const CASE: Case = Case { disk: Model::SataSsd, slots: 32, host: Order::Noop, company: EQUALS };

    #[test]
    fn a_seed_gives_the_same_figures_again_and_another_seed_others() {
        let case = Case { disk: Model::Sas15k, host: Order::Deadline, ..CASE };
        let seen = |seed| case.seen(vec![VICTIM, Load { depth: 8, ..AGGRESSOR }], seed);
        assert_eq!(seen(7), seen(7));
        assert_ne!(seen(7), seen(8));
    }

    #[test]
    fn two_equal_guests_share_equally() {
        let row = study(CASE, 1);
        assert!(row.figures.iter().all(|figure| figure.value > 0.999), "{row:?}");
    }

    #[test]
    fn behind_a_full_queue_a_victim_waits_for_all_of_it_and_the_table_says_so() {
        let case = Case { slots: 256, company: Company::VictimAndAggressor, ..CASE };
        let row = study(case, 1);
        let p99 = &row.figures[1];
        // 256 requests of 44 KiB in front of it, on 4 channels, beside 80 µs.
        assert!(p99.peer.is_some_and(|(.., ratio)| ratio > 50.0) && !p99.holds(), "{row:?}");
        assert!(table(&[row]).contains("NOT FAIR: victim's p99 (at most 2)"));
    }

    #[test]
    fn latencies_are_one_guests_and_bytes_are_everybodys() {
        let io = |guest, wait_ns| Ended { guest, wait_ns };
        let mut ended: Vec<Ended> = (0..=100).rev().map(|ms| io(0, ms * 1_000_000)).collect();
        ended.push(io(1, 7));
        let seen = Seen { ended, time_ns: 1_000_000 };
        assert_eq!(latencies_ms(&seen, 0), [50.0, 99.0]);
        let megabytes = (101.0 * 4096.0 + 131_072.0) / 1e6;
        let found = megabytes_a_second(&seen, &[VICTIM, AGGRESSOR]);
        assert!((found - megabytes * 1e3).abs() < 1e-6, "{found}");
    }

    #[test]
    fn figures_are_compared_seed_by_seed_and_the_worst_seed_must_hold_the_aim() {
        let [own, peer] = [vec![2.0, 30.0, 8.0], vec![1.0, 10.0, 8.0]];
        let figure = |aim| Figure::beside(("", "ms"), own.clone(), ("", peer.clone()), aim);
        let three = figure(Aim::AtMost(3.0));
        assert_eq!((three.value, three.peer), (8.0, Some(("", 8.0, 2.0))));
        assert_eq!(three.spread, [1.0, 3.0]);
        assert!(three.holds() && figure(Aim::None).holds() && figure(Aim::AtLeast(1.0)).holds());
        assert!(!figure(Aim::AtMost(2.9)).holds() && !figure(Aim::AtLeast(1.1)).holds());
        let plain = Figure::plain("", "1", vec![0.9, 0.8, 1.0], Aim::AtLeast(0.8));
        assert_eq!((plain.value, plain.spread, plain.holds()), (0.9, [0.8, 1.0], true));
    }
}
