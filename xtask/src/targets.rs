//! What was aimed at, and what was found.
//!
//! Looks figures up by name in the list that all of them are written to, wherever they were measured.
//! Must never judge: a target that is missed is said, and so is one of which nothing is known.

use std::fmt::Write;

use serde_json::Value;

use crate::figures::short;

/// What a target bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    /// A figure in parts of its peer's, from above.
    Ratio,
    /// The same from below.
    RatioAtLeast,
    /// The figure itself, from above.
    Value,
}

/// A figure's name, what is bounded, the bound, and what would be splendid.
const TARGETS: [(&str, Bound, f64, f64); 22] = [
    ("randread 4 KiB, depth 32: pvblk × pvblk, added", Bound::Ratio, 0.5, 0.25),
    ("randwrite 4 KiB, depth 32: pvblk × pvblk, added", Bound::Ratio, 0.5, 0.25),
    ("randread 4 KiB, depth 1: pvblk × pvblk, added", Bound::Ratio, 1.0, 0.6),
    ("randwrite 4 KiB, depth 1: pvblk × pvblk, added", Bound::Ratio, 1.0, 0.6),
    ("randread 4 KiB, depth 32: pvblk × kernel, added", Bound::Ratio, 0.75, 0.5),
    ("randwrite 4 KiB, depth 32: pvblk × kernel, added", Bound::Ratio, 0.75, 0.5),
    ("randread 4 KiB, depth 32: Linux × pvblk, added", Bound::Ratio, 1.5, 1.0),
    ("randwrite 4 KiB, depth 32: Linux × pvblk, added", Bound::Ratio, 1.5, 1.0),
    ("randread 4 KiB, depth 32: Linux × pvblk, added, beside qdisk", Bound::Ratio, 0.5, 0.3),
    ("randwrite 4 KiB, depth 32: Linux × pvblk, added, beside qdisk", Bound::Ratio, 0.5, 0.3),
    ("randread, each further 4 KiB: pvblk × pvblk, added", Bound::Value, 300.0, 100.0),
    ("randwrite, each further 4 KiB: pvblk × pvblk, added", Bound::Value, 300.0, 100.0),
    ("randread 4 KiB, depth 32: pvblk × pvblk, notifications", Bound::Value, 0.15, 0.07),
    ("guest entry to first block read: pvblk × pvblk, while the guest ran", Bound::Value, 5e6, 1e6),
    ("256 idle devices on one daemon: memory of Dom0 for each", Bound::Value, 1024.0, 256.0),
    ("randread 4 KiB, depth 32, cached: IOPS", Bound::RatioAtLeast, 0.97, 0.99),
    ("randwrite 4 KiB, depth 32, cached: IOPS", Bound::RatioAtLeast, 0.97, 0.99),
    ("randread 4 KiB, depth 32, O_DIRECT: IOPS", Bound::RatioAtLeast, 0.99, 0.995),
    ("randwrite 4 KiB, depth 32, O_DIRECT: IOPS", Bound::RatioAtLeast, 0.99, 0.995),
    ("randread 4 KiB, depth 32, cached: system calls of the back", Bound::Value, 0.125, 0.0625),
    ("ring, 1 page in batches of 32, beside Xen's macros", Bound::Ratio, 1.0, 0.5),
    ("ring, 1 page in batches of 32, beside Xen's macros", Bound::Value, 66.0, 50.0),
];

/// A line for each target whose figure is in the list.
pub fn table(list: &[Value]) -> String {
    let mut text =
        format!("{:<66} {:>9} {:>9} {:>9} {:>9}\n", "", "found", "worst", "target", "stretch");
    for (name, bound, target, stretch) in TARGETS {
        let Some(figure) = list.iter().find(|figure| figure["name"] == name) else { continue };
        let (found, worst) = found(figure, bound);
        let holds = |value: f64, limit: f64| match bound {
            Bound::RatioAtLeast => value >= limit,
            Bound::Ratio | Bound::Value => value <= limit,
        };
        let verdict = match (holds(worst, target), found.map(|found| holds(found, stretch))) {
            (_, None) => "not known",
            (true, Some(true)) => "stretch",
            (true, Some(false)) => "held",
            (false, _) => "missed",
        };
        let found = found.map_or_else(|| "-".to_owned(), short);
        let [worst, target, stretch] = [worst, target, stretch].map(short);
        let _ =
            writeln!(text, "{name:<66} {found:>9} {worst:>9} {target:>9} {stretch:>9}  {verdict}");
    }
    text
}

/// What is bounded, if it is known, and the worst that it may be.
fn found(figure: &Value, bound: Bound) -> (Option<f64>, f64) {
    let spread = [0, 1].map(|end| figure["spread"][end].as_f64().unwrap_or(f64::NAN));
    let [value, ratio] = ["value", "ratio"].map(|key| figure[key].as_f64());
    match bound {
        Bound::Ratio => (ratio, spread[1]),
        Bound::RatioAtLeast => (ratio, spread[0]),
        // The spread is of the ratio, where there is one.
        Bound::Value => match (value, ratio) {
            (Some(value), Some(ratio)) => (Some(value), spread[1] * value / ratio),
            (value, _) => (value, spread[1]),
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::host;

    fn verdict(figure: &Value) -> String {
        let shown = table(std::slice::from_ref(figure));
        shown.lines().nth(1).expect("a line").rsplit("  ").next().expect("a word").to_owned()
    }

    #[test]
    fn a_target_is_held_only_if_the_worst_seed_holds_it() {
        let added = |ratio: f64, worst: f64| {
            let name = "randread 4 KiB, depth 32: pvblk × pvblk, added";
            json!({ "name": name, "value": 1.0, "ratio": ratio, "spread": [0.1, worst] })
        };
        assert_eq!(verdict(&added(0.4, 0.5)), "held");
        assert_eq!(verdict(&added(0.4, 0.51)), "missed");
        assert_eq!(verdict(&added(0.2, 0.5)), "stretch");
    }

    #[test]
    fn a_target_from_below_is_missed_by_less() {
        let iops = |ratio: Value, least: f64| {
            let name = "randread 4 KiB, depth 32, cached: IOPS";
            json!({ "name": name, "value": ratio, "ratio": ratio, "spread": [least, 1.1] })
        };
        assert_eq!(verdict(&iops(json!(0.98), 0.97)), "held");
        assert_eq!(verdict(&iops(json!(0.98), 0.96)), "missed");
        assert_eq!(verdict(&iops(json!(1.0), 0.99)), "stretch");
        assert_eq!(verdict(&iops(Value::Null, 0.9)), "not known");
    }

    #[test]
    fn a_value_is_bounded_whether_or_not_it_has_a_peer() {
        let ring = json!({ "value": 60.0, "ratio": 0.5, "spread": [0.5, 0.5] });
        assert_eq!(found(&ring, Bound::Value), (Some(60.0), 60.0));
        let alone = json!({ "value": 0.1, "ratio": null, "spread": [0.05, 0.2] });
        assert_eq!(found(&alone, Bound::Value), (Some(0.1), 0.2));
    }

    #[test]
    fn every_target_names_a_figure_that_is_checked_in() {
        let text = std::fs::read(host::workspace().join("docs/bench.json")).unwrap();
        let list: Vec<Value> = serde_json::from_slice(&text).unwrap();
        for (name, ..) in TARGETS {
            assert!(list.iter().any(|figure| figure["name"] == name), "{name}");
        }
    }
}
