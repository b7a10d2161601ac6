//! Fairness as tables for a terminal and as JSON for programs.
//!
//! A row that misses an aim says which. Must never leave one out because it looks bad.

use std::fmt::Write;

use serde_json::{Value, json};

use super::{Aim, Company, Figure, Row};

/// What the figures cannot say.
const WORDS: &str =
    "Not in the model: how Xen shares processors between guests, and Dom0 between processes.";

/// A table for those beside an aggressor, and one for equals: medians, least and greatest of the seeds.
pub fn table(rows: &[Row]) -> String {
    let (beside, equals): (Vec<&Row>, Vec<&Row>) =
        rows.iter().partition(|row| row.case.company == Company::VictimAndAggressor);
    let tables = [beside, equals].map(|rows| one(&rows));
    format!("{}\n{}{WORDS}\n", tables[0], tables[1])
}

/// Rows with the same figures.
fn one(rows: &[&Row]) -> String {
    let wide = rows.iter().map(|row| row.case.name().len()).max().unwrap_or(0);
    let mut text = format!("{:wide$}", "");
    for figure in rows.first().map_or(&[][..], |row| &row.figures) {
        let peer = figure.peer.map_or_else(String::new, |(peer, ..)| format!(", × {peer}"));
        let _ = write!(text, "  {:>38}", format!("{}{peer}", figure.name));
    }
    text.push('\n');
    for row in rows {
        let _ = write!(text, "{:wide$}", row.case.name());
        for figure in &row.figures {
            let _ = write!(text, "  {:>38}", cell(figure));
        }
        let missed = row.figures.iter().filter(|figure| !figure.holds());
        let missed: Vec<String> = missed.map(|it| format!("{} ({})", it.name, aim(it))).collect();
        let verdict = if missed.is_empty() { "fair" } else { "NOT FAIR: " };
        let _ = writeln!(text, "  {verdict}{}", missed.join(", "));
    }
    text
}

fn cell(figure: &Figure) -> String {
    let Figure { value, unit, spread: [least, most], .. } = figure;
    match figure.peer {
        Some((_, _, ratio)) => {
            format!("{value:.2} {unit}, {ratio:.2} ({least:.2} to {most:.2})")
        }
        None => format!("{value:.3} ({least:.3} to {most:.3})"),
    }
}

fn aim(figure: &Figure) -> String {
    match figure.aim {
        Aim::None => String::new(),
        Aim::AtMost(most) => format!("at most {most}"),
        Aim::AtLeast(least) => format!("at least {least}"),
    }
}

/// A list of figures.
pub fn json(rows: &[Row]) -> Vec<Value> {
    let figures = rows.iter().flat_map(|row| row.figures.iter().map(move |it| (row, it)));
    let figure = |(row, figure): (&Row, &Figure)| {
        json!({
            "place": "V",
            "name": format!("{}: {}", row.case.name(), figure.name),
            "value": figure.value,
            "unit": figure.unit,
            "peer": figure.peer.map(|(name, ..)| name),
            "peer_value": figure.peer.map(|(_, value, _)| value),
            "ratio": figure.peer.map(|(.., ratio)| ratio),
            "spread": figure.spread,
            "seeds": row.seeds,
        })
    };
    figures.map(figure).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Case;
    use super::*;
    use crate::queueing::{Model, Order};

    fn row(company: Company, least: f64) -> Row {
        let case = Case { disk: Model::Nvme, slots: 32, host: Order::Noop, company };
        let aim = Aim::AtLeast(0.9);
        let plain =
            Figure { name: "share", unit: "1", value: 0.95, peer: None, spread: [least, 1.0], aim };
        let beside = Figure { name: "speed", peer: Some(("alone", 0.5, 1.9)), ..plain.clone() };
        Row { case, figures: vec![plain, beside], seeds: 3 }
    }

    #[test]
    fn a_row_says_which_aims_it_misses() {
        let equals = Company::Equals { devices: 8, depth: 4 };
        let text = table(&[row(Company::VictimAndAggressor, 0.9), row(equals, 0.8)]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 6, "{text}");
        assert!(lines[0].ends_with("speed, × alone") && lines[1].ends_with("  fair"), "{text}");
        assert!(lines[4].starts_with("NVMe, 8 equals at depth 4, ring of 32, host noop "));
        assert!(lines[4].contains("0.95 1, 1.90 (0.80 to 1.00)"), "{text}");
        assert!(lines[4].ends_with("NOT FAIR: share (at least 0.9), speed (at least 0.9)"));
        assert_eq!(lines[5], WORDS);
    }

    #[test]
    fn a_figure_without_a_peer_has_its_own_spread_and_no_ratio() {
        let list = json(&[row(Company::VictimAndAggressor, 0.9)]);
        let name = "NVMe, victim and aggressor, ring of 32, host noop: share";
        assert_eq!((&list[0]["place"], &list[0]["name"]), (&json!("V"), &json!(name)));
        assert_eq!((&list[0]["ratio"], &list[0]["spread"]), (&Value::Null, &json!([0.9, 1.0])));
        assert_eq!((&list[1]["peer"], &list[1]["peer_value"]), (&json!("alone"), &json!(0.5)));
        assert_eq!((&list[1]["ratio"], &list[1]["seeds"]), (&json!(1.9), &json!(3)));
    }
}
