//! A figure beside its peer's, in the form of all figures: as JSON, and as a line of a table.
//!
//! Must never show a number that its blocks do not hold: then it says how wide they are apart.

use std::fmt::Write;

use serde_json::{Value, json};

use super::statistics::Ratio;
use crate::quantiles::median;

/// One figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// What it is of.
    pub name: String,
    /// What it counts.
    pub unit: &'static str,
    /// Ours; of some blocks, the median.
    pub value: f64,
    /// Whose figure is beside it, and that figure.
    pub peer: Option<(&'static str, f64)>,
    /// How ours is to the peer's, if that is known from pairs of blocks; else it was counted.
    pub ratio: Option<Ratio>,
}

impl Figure {
    /// What was counted, and is the same each time.
    pub fn counted(
        name: impl Into<String>,
        unit: &'static str,
        value: f64,
        peer: Option<(&'static str, f64)>,
    ) -> Self {
        Self { name: name.into(), unit, value, peer, ratio: None }
    }

    /// What pairs of blocks say: ours and the peer's.
    pub fn paired(
        name: impl Into<String>,
        unit: &'static str,
        peer: &'static str,
        blocks: &[[f64; 2]],
    ) -> Self {
        let [ours, theirs] =
            [0, 1].map(|side| median(&blocks.iter().map(|both| both[side]).collect::<Vec<_>>()));
        let ratios: Vec<f64> = blocks.iter().map(|[ours, theirs]| ours / theirs).collect();
        let ratio = Ratio::of(&ratios);
        Self { name: name.into(), unit, value: ours, peer: Some((peer, theirs)), ratio }
    }

    /// Whether its blocks are too far apart for a number.
    fn is_unknown(&self) -> bool {
        self.ratio.is_some_and(|ratio| !ratio.is_known())
    }

    /// Ours in parts of the peer's, and what that is between.
    fn ratios(&self) -> Option<[f64; 3]> {
        if let Some(Ratio { mean, interval: [low, high], .. }) = self.ratio {
            return Some([mean, low, high]);
        }
        self.peer.map(|(_, peer)| [self.value / peer; 3])
    }

    /// As all figures are written: without numbers where they are not known, but always with the
    /// interval. Pairs of blocks stand where others have seeds.
    pub fn json(&self) -> Value {
        let ratios = self.ratios();
        let known = |number: f64| (!self.is_unknown()).then_some(number);
        json!({
            "place": "N",
            "name": self.name,
            "value": known(self.value),
            "unit": self.unit,
            "peer": self.peer.map(|(name, _)| name),
            "peer_value": self.peer.and_then(|(_, value)| known(value)),
            "ratio": ratios.and_then(|[ratio, ..]| known(ratio)),
            "spread": ratios.map_or([self.value; 2], |[_, low, high]| [low, high]),
            "seeds": self.ratio.map_or(1, |ratio| ratio.pairs),
        })
    }

    fn line(&self) -> String {
        let Self { name, value, unit, peer, ratio } = self;
        if let Some(ratio) = ratio.filter(|ratio| !ratio.is_known()) {
            let wide = ratio.width() * 100.0;
            return format!("{name:<92} too wide: ±{wide:.0} % of {} pairs of blocks", ratio.pairs);
        }
        let mut line = format!("{name:<92} {:>11} {unit:<12}", short(*value));
        if let (Some((peer, theirs)), Some([mean, low, high])) = (peer, self.ratios()) {
            let _ = write!(line, " {mean:5.2} of {} ({peer})", short(*theirs));
            if ratio.is_some() {
                let _ = write!(line, ", {low:.2} to {high:.2}");
            }
        }
        line.trim_end().to_owned()
    }
}

/// A line for each.
pub fn table(figures: &[Figure]) -> String {
    figures.iter().map(|figure| figure.line() + "\n").collect()
}

/// A number with as many digits as it deserves.
fn short(value: f64) -> String {
    if value.abs() < 100.0 { format!("{value:.2}") } else { format!("{value:.0}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_of_narrow_blocks_is_shown_with_its_interval() {
        let blocks = [[97.0, 100.0], [98.0, 100.0], [99.0, 100.0], [98.0, 100.0]];
        let figure = Figure::paired("reads: IOPS", "IOPS", "raw", &blocks);
        let json = figure.json();
        assert_eq!((&json["place"], &json["seeds"]), (&json!("N"), &json!(4)));
        assert_eq!((&json["value"], &json["peer_value"]), (&json!(98.0), &json!(100.0)));
        assert!(json["ratio"].as_f64().is_some_and(|it| (it - 0.98).abs() < 1e-3), "{json}");
        let line = table(&[figure]);
        assert!(line.contains(" 98.00 IOPS          0.98 of 100 (raw), 0.97 to 0.99"), "{line}");
    }

    #[test]
    fn a_figure_of_wide_blocks_has_an_interval_and_no_number() {
        let blocks = [[50.0, 100.0], [200.0, 100.0], [100.0, 100.0]];
        let figure = Figure::paired("reads: IOPS", "IOPS", "raw", &blocks);
        let json = figure.json();
        for key in ["value", "peer_value", "ratio"] {
            assert_eq!(json[key], Value::Null, "{key}");
        }
        assert!(json["spread"][0].as_f64() < json["spread"][1].as_f64(), "{json}");
        let line = table(&[figure]);
        assert!(line.contains(" too wide: ±") && !line.contains("of 100"), "{line}");
    }

    #[test]
    fn what_was_counted_needs_no_interval() {
        let figure = Figure::counted("ring", "instructions", 90.0, Some(("macros", 100.0)));
        let json = figure.json();
        assert_eq!((&json["ratio"], &json["spread"]), (&json!(0.9), &json!([0.9, 0.9])));
        let alone = Figure::counted("ring", "1/I/O", 0.5, None);
        assert_eq!(
            (&alone.json()["ratio"], &alone.json()["spread"]),
            (&Value::Null, &json!([0.5, 0.5]))
        );
        assert!(table(&[alone]).ends_with(" 0.50 1/I/O\n"));
    }
}
