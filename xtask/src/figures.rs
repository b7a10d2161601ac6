//! Figures beside those of others: what they are, and how they are shown.
//!
//! A figure is the median of its seeds. Must never judge.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::guest::Backend;
use crate::matrix::{Begun, Costs, Counted, Matrix, PAIRS, PEER, Place, SORTING, WORKS};

/// Where it was measured: counted on real Xen.
const COUNTED: &str = "X";
/// A change from the baseline that is worth a line.
const CHANGE: f64 = 0.02;

/// Which of [`WORKS`] differ in nothing but 7 pages.
const MORE_PAGES: [(&str, [usize; 2]); 2] = [("randread", [1, 6]), ("randwrite", [4, 7])];

/// One figure.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// What it is of.
    pub name: String,
    /// The median of the seeds.
    pub value: f64,
    /// What it counts.
    pub unit: &'static str,
    /// Whose figure is beside it, and that figure's median.
    pub peer: Option<(String, f64)>,
    /// The least and the greatest of the seeds.
    pub spread: [f64; 2],
    /// How many seeds there were.
    pub seeds: usize,
}

impl Figure {
    pub(crate) fn new(
        name: String,
        unit: &'static str,
        values: &[f64],
        peer: Option<(String, f64)>,
    ) -> Self {
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let (value, seeds) = (median(values), values.len());
        Self { name, value, unit, peer, spread: [least, most], seeds }
    }

    /// The figure, its least and its greatest, each in parts of the peer's; of nothing if it has none.
    fn ratios(&self) -> Option<[f64; 3]> {
        let (_, peer) = self.peer.as_ref()?;
        Some([self.value, self.spread[0], self.spread[1]].map(|value| value / peer))
    }

    fn json(&self) -> Value {
        let ratios = self.ratios();
        json!({
            "place": COUNTED,
            "name": self.name,
            "value": self.value,
            "unit": self.unit,
            "peer": self.peer.as_ref().map(|(name, _)| name),
            "peer_value": self.peer.as_ref().map(|(_, value)| value),
            "ratio": ratios.map(|[ratio, ..]| ratio),
            // As everywhere in this list: of the ratio, where there is one.
            "spread": ratios.map_or(self.spread, |[_, least, most]| [least, most]),
            "seeds": self.seeds,
        })
    }
}

/// The middle one; between the two middle ones of an even number.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.get(middle.wrapping_sub(1)), sorted.get(middle)) {
        (Some(&below), Some(&above)) if sorted.len().is_multiple_of(2) => {
            f64::midpoint(below, above)
        }
        (_, Some(&middle)) => middle,
        _ => f64::NAN,
    }
}

/// The figure of this name, if it was measured.
fn named<'a>(figures: &'a [Figure], name: &str) -> Option<&'a Figure> {
    figures.iter().find(|figure| figure.name == name)
}

/// What one pair adds for one kind of I/O, if it was measured.
pub fn of_added<'a>(figures: &'a [Figure], work: &str, place: Place) -> Option<&'a Figure> {
    named(figures, &format!("{work}: {place}, added"))
}

/// All figures of a matrix.
pub fn of(matrix: &Matrix) -> Vec<Figure> {
    let figures = PAIRS.into_iter().flat_map(|place| of_pair(matrix, place));
    figures.chain(sorting(matrix)).chain(counted(matrix)).chain(begun(matrix)).collect()
}

/// What an elevator in the guest costs, beside the same without.
fn sorting(matrix: &Matrix) -> Vec<Figure> {
    let mut figures = Vec::new();
    for (place, without) in SORTING {
        let (Some(own), Some(theirs)) = (matrix.of(place), matrix.of(without)) else { continue };
        figures.extend(beside(own, (without, theirs), |work| format!("{work}: {place}, in all")));
    }
    figures
}

/// What one pair costs, in all and without what the disk alone does, beside Linux on Linux.
fn of_pair(matrix: &Matrix, place: Place) -> Vec<Figure> {
    let mut peers = vec![(PEER, "")];
    if place == Place::Linux(Backend::Pvblk) {
        peers.push((Place::Linux(Backend::Qdisk), ", beside qdisk"));
    }
    let mut figures = Vec::new();
    for (peer, words) in peers {
        if let (Some(own), Some(theirs)) = (matrix.of(place), matrix.of(peer)) {
            let name = |work: &str| format!("{work}: {place}, in all{words}");
            figures.extend(beside(own, (peer, theirs), name));
        }
        if let (Some(own), Some(theirs)) = (added(matrix, place), added(matrix, peer)) {
            let name = |work: &str| format!("{work}: {place}, added{words}");
            figures.extend(beside(&own, (peer, &theirs), name));
        }
    }
    figures
}

/// Costs beside those of a peer, by kind of I/O.
fn beside(
    own: &[Costs],
    (peer, theirs): (Place, &[Costs]),
    name: impl Fn(&str) -> String,
) -> Vec<Figure> {
    let both = columns(own).into_iter().zip(columns(theirs));
    let figure = |((work, values), (_, theirs)): ((String, Vec<f64>), (String, Vec<f64>))| {
        let peer = Some((peer.to_string(), median(&theirs)));
        Figure::new(name(&work), "instructions/I/O", &values, peer)
    };
    both.map(figure).collect()
}

/// What rows of costs say, seed by seed: of each kind of I/O, and of each page that an I/O has more.
fn columns(rows: &[Costs]) -> Vec<(String, Vec<f64>)> {
    let column = |cost: &dyn Fn(&Costs) -> f64| rows.iter().map(cost).collect::<Vec<f64>>();
    let mut columns = Vec::new();
    for (at, work) in WORKS.iter().enumerate() {
        columns.push((work.to_string(), column(&|costs| costs[at])));
    }
    for (rw, [small, large]) in MORE_PAGES {
        let each = column(&|costs| (costs[large] - costs[small]) / 7.0);
        columns.push((format!("{rw}, each further 4 KiB"), each));
    }
    columns
}

/// What comes on top of what the disk costs in Dom0. The same program runs there as in a Linux guest;
/// it is not in our guest, so that there only the disk is taken off, and not fio.
fn added(matrix: &Matrix, place: Place) -> Option<Vec<Costs>> {
    let medians = |place: Place| -> Option<Vec<f64>> {
        Some(columns(matrix.of(place)?).iter().map(|(_, values)| median(values)).collect())
    };
    let (direct, fio) = (medians(Place::Dom0)?, medians(Place::Nothing)?);
    let there = |at: usize| match place {
        Place::Ours(_) => direct[at] - fio[at],
        _ => direct[at],
    };
    let row = |costs: &Costs| std::array::from_fn(|at| costs[at] - there(at));
    Some(matrix.of(place)?.iter().map(row).collect())
}

/// What our guest on our back counts by itself.
fn counted(matrix: &Matrix) -> Vec<Figure> {
    let mut figures = Vec::new();
    for (at, work) in WORKS.iter().enumerate() {
        let values = |count: fn(&Counted) -> f64| {
            matrix.counted.iter().map(|seed| count(&seed[at])).collect::<Vec<f64>>()
        };
        let mut add = |what: &str, values: Vec<f64>| {
            let name = format!("{work}: {}, {what}", PAIRS[0]);
            figures.push(Figure::new(name, "1/I/O", &values, None));
        };
        add("notifications", values(|it| it.notifications));
        add("hypercalls of the guest", values(|it| it.hypercalls));
    }
    figures
}

fn begun(matrix: &Matrix) -> [Figure; 2] {
    let linux = Some(("Linux, first program".to_owned(), matrix.linux_up));
    let values = |of: fn(&Begun) -> f64| matrix.first_read.iter().map(of).collect::<Vec<f64>>();
    let figure = |what: &str, values: Vec<f64>, peer| {
        let name = format!("guest entry to first block read: {}, {what}", PAIRS[0]);
        Figure::new(name, "instructions", &values, peer)
    };
    [
        figure("the whole machine", values(|it| it.machine), linux),
        figure("while the guest ran", values(|it| it.guest), None),
    ]
}

/// The figures as JSON, in the order given.
pub fn json(figures: &[Figure]) -> Vec<Value> {
    figures.iter().map(Figure::json).collect()
}

/// A figure with as many digits as it deserves.
pub(crate) fn short(value: f64) -> String {
    if value.abs() < 100.0 { format!("{value:.2}") } else { format!("{value:.0}") }
}

/// A line for each kind of I/O, a column for each pair: what it adds, and how that is to Linux's.
pub fn table(figures: &[Figure]) -> String {
    let mut text = format!("{:<26}", "added instructions/I/O");
    for place in PAIRS {
        let _ = write!(text, " {:>17}", place.to_string());
    }
    text.push('\n');
    for (work, _) in columns(&[]) {
        let _ = write!(text, "{work:<26}");
        for place in PAIRS {
            let figure = of_added(figures, &work, place);
            let cell =
                figure.and_then(|it| Some(format!("{:.0} ({:.2})", it.value, it.ratios()?[0])));
            let _ = write!(text, " {:>17}", cell.unwrap_or_else(|| "not measured".into()));
        }
        text.push('\n');
    }
    text
}

/// A line for each kind of I/O: by how many percent a guest that sorts costs more, in all. Nothing if
/// that was not measured.
pub fn elevators(figures: &[Figure]) -> String {
    let mut text = format!("{:<26}", "with an elevator, %");
    for (place, _) in SORTING {
        let _ = write!(text, " {:>27}", place.to_string());
    }
    text.push('\n');
    let heading = text.len();
    for (work, _) in columns(&[]) {
        let found = SORTING.map(|(place, _)| {
            let name = format!("{work}: {place}, in all");
            named(figures, &name)?.ratios()
        });
        let [Some(ours), Some(linux)] = found else { continue };
        let [ours, linux] =
            [ours, linux].map(|[ratio, ..]| format!("{:+.1}", (ratio - 1.0) * 100.0));
        let _ = writeln!(text, "{work:<26} {ours:>27} {linux:>27}");
    }
    if text.len() == heading { String::new() } else { text }
}

/// Which figures differ by more than 2 % from those of as many seeds in a baseline, one line for each.
pub fn changes(figures: &[Figure], baseline: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    for figure in figures {
        let known = baseline.as_array().into_iter().flatten();
        let mut known =
            known.filter(|it| it["name"] == figure.name.as_str() && it["seeds"] == figure.seeds);
        let Some(before) = known.find_map(|it| it["value"].as_f64()) else { continue };
        let change = figure.value / before - 1.0;
        if change.abs() > CHANGE {
            let [before, value] = [before, figure.value].map(short);
            let (name, percent) = (&figure.name, change * 100.0);
            lines.push(format!("{name}: {before} before, {value} now ({percent:+.1} %)"));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::Told;

    fn matrix() -> Matrix {
        let told = |place, costs: &[f64]| Told {
            place,
            costs: costs.iter().map(|&cost| [cost; WORKS.len()]).collect(),
        };
        let counted = vec![vec![Counted { notifications: 0.1, hypercalls: 0.5 }; WORKS.len()]; 3];
        Matrix {
            told: vec![
                told(PAIRS[0], &[14.0, 11.0, 12.0]),
                told(PAIRS[3], &[30.0]),
                told(PEER, &[25.0, 27.0]),
                told(Place::Dom0, &[6.0]),
                told(Place::Nothing, &[2.0]),
            ],
            counted,
            first_read: vec![Begun { machine: 200.0, guest: 20.0 }],
            linux_up: 1000.0,
        }
    }

    fn find(figures: &[Figure], name: &str) -> Figure {
        named(figures, name).unwrap_or_else(|| panic!("{name}")).clone()
    }

    #[test]
    fn what_the_disk_costs_is_taken_off_and_fio_only_where_it_runs() {
        let figures = of(&matrix());
        // 12 less the disk's 4, beside the 26 less the 6 of fio on the disk.
        let ours = find(&figures, "randread 4 KiB, depth 32: pvblk × pvblk, added");
        assert_eq!((ours.value, ours.peer.clone()), (8.0, Some(("Linux × kernel".into(), 20.0))));
        assert_eq!(ours.ratios(), Some([0.4, 0.35, 0.5]));
        assert_eq!(ours.json()["spread"], json!([0.35, 0.5]));
        let linux = find(&figures, "write 128 KiB, depth 8: Linux × pvblk, added");
        assert_eq!((linux.value, linux.seeds), (24.0, 1));
        let all = find(&figures, "write 128 KiB, depth 8: Linux × pvblk, in all");
        assert_eq!(all.ratios().map(|[ratio, ..]| ratio), Some(30.0 / 26.0));
        let boot = "guest entry to first block read: pvblk × pvblk, the whole machine";
        assert_eq!(find(&figures, boot).ratios().map(|[ratio, ..]| ratio), Some(0.2));
        assert_eq!(elevators(&figures), "");
        let qdisk = |figure: &Figure| figure.name.contains("qdisk");
        assert!(!figures.iter().any(qdisk), "it was not measured");
    }

    #[test]
    fn changes_of_more_than_two_percent_are_told() {
        let figures = of(&matrix());
        let mut baseline = Value::Array(json(&figures));
        assert!(changes(&figures, &baseline).is_empty());
        baseline[0]["value"] = json!(10.0);
        baseline[1]["value"] = json!(12.1);
        let told = changes(&figures, &baseline);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].ends_with("10.00 before, 12.00 now (+20.0 %)"), "{told:?}");
        baseline[0]["seeds"] = json!(1);
        assert!(changes(&figures, &baseline).is_empty(), "another measurement");
        assert!(changes(&figures, &Value::Null).is_empty());
    }

    #[test]
    fn an_elevator_is_shown_beside_the_same_without() {
        let mut all = matrix();
        let told = |place, cost| Told { place, costs: vec![[cost; WORKS.len()]] };
        let sorting = SORTING.map(|(place, _)| told(place, 9.9));
        all.told.splice(..3, PAIRS.map(|place| told(place, 9.0)).into_iter().chain(sorting));
        let figures = of(&all);
        let shown = elevators(&figures);
        assert!(
            shown.lines().nth(1).is_some_and(|line| line.matches("+10.0").count() == 2),
            "{shown}"
        );
    }

    #[test]
    fn a_median_is_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }
}
