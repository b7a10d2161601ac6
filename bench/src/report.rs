//! Figures as a table for a terminal, as JSON for programs, and as a plot.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::queueing::{Cell, Row, Setting};

const FIGURES: [&str; 2] = ["mean wait", "99th percentile of the wait"];

/// A ratio as a change in percent.
fn percent(ratio: f64) -> f64 {
    (ratio - 1.0) * 100.0
}

/// One line for each case: what both waits are where both sort, and by how much they change where
/// somebody does not.
pub fn table(rows: &[Row]) -> String {
    let names = Setting::OTHERS.map(Setting::name);
    let wide = rows.iter().map(|row| row.case.name().len()).max().unwrap_or(0);
    let mut text = format!("{:wide$}  {:>21}", "", "both sort");
    for name in names {
        let _ = write!(text, "  {name:>17}");
    }
    let _ = write!(text, "\n{:wide$}  {:>10} {:>10}", "", "mean ms", "p99 ms");
    for _ in names {
        let _ = write!(text, "  {:>8} {:>8}", "mean %", "p99 %");
    }
    for row in rows {
        let [mean, p99] = row.both_ns.map(|ns| ns / 1e6);
        let _ = write!(text, "\n{:wide$}  {mean:10.2} {p99:10.2}", row.case.name());
        for [mean, p99] in row.others {
            let (mean, p99) = (percent(mean.ratio), percent(p99.ratio));
            let _ = write!(text, "  {mean:+8.1} {p99:+8.1}");
        }
    }
    text + "\n"
}

/// A list of figures, each beside that of the setting in which both sort.
pub fn json(rows: &[Row]) -> Vec<Value> {
    let mut figures = Vec::new();
    for row in rows {
        for (setting, cells) in Setting::OTHERS.into_iter().zip(row.others) {
            for ((name, cell), both_ns) in FIGURES.into_iter().zip(cells).zip(row.both_ns) {
                let Cell { value_ns, ratio, spread } = cell;
                figures.push(json!({
                    "place": "V",
                    "name": format!("{}: {name}, {}", row.case.name(), setting.name()),
                    "value": value_ns / 1e6,
                    "unit": "ms",
                    "peer": Setting::BOTH.name(),
                    "peer_value": both_ns / 1e6,
                    "ratio": ratio,
                    "spread": spread,
                    "seeds": row.seeds,
                }));
            }
        }
    }
    figures
}

/// Pixels of the plot: a line, the names, and one percent.
const LINE: usize = 22;
const NAMES: f64 = 330.0;
const PERCENT: f64 = 2.4;
/// Changes that are shown; what is beyond is cut off there and has its number beside it.
const LEAST: f64 = -60.0;
const MOST: f64 = 60.0;
const COLOURS: [&str; 2] = ["#2b6cb0", "#dd6b20"];

/// How the waits change when the guest's elevator is `noop` and the host's sorts on, as SVG: two
/// bars for each case, the whiskers from the least to the greatest of the seeds.
pub fn plot(rows: &[Row]) -> String {
    let zero = NAMES - LEAST * PERCENT;
    let width = NAMES + (MOST - LEAST) * PERCENT + 60.0;
    let height = LINE * (rows.len() + 2);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"4\" y=\"15\">Change of the wait with elevator=noop in the guest, in percent: \
         <tspan fill=\"{}\">mean</tspan>, <tspan fill=\"{}\">99th percentile</tspan></text>\n",
        COLOURS[0], COLOURS[1]
    );
    for mark in [-40.0, -20.0, 0.0, 20.0, 40.0] {
        let x = zero + mark * PERCENT;
        let _ = writeln!(
            svg,
            "<line x1=\"{x}\" x2=\"{x}\" y1=\"{LINE}\" y2=\"{height}\" stroke=\"#ccc\"/>\
             <text x=\"{x}\" y=\"{}\" text-anchor=\"middle\" fill=\"#666\">{mark:+}</text>",
            height - 6
        );
    }
    for (at, row) in rows.iter().enumerate() {
        let top = LINE * (at + 1);
        let _ = writeln!(svg, "<text x=\"4\" y=\"{}\">{}</text>", top + 15, row.case.name());
        for (nth, (cell, colour)) in row.others[0].iter().zip(COLOURS).enumerate() {
            svg.push_str(&bar(zero, top + 4 + 8 * nth, cell, colour));
        }
    }
    svg + "</svg>\n"
}

fn bar(zero: f64, top: usize, cell: &Cell, colour: &str) -> String {
    let x = |ratio| zero + percent(ratio).clamp(LEAST, MOST) * PERCENT;
    let (end, [least, most]) = (x(cell.ratio), cell.spread.map(x));
    let (left, wide) = (zero.min(end), (end - zero).abs());
    let middle = top + 3;
    let mut bar = format!(
        "<rect x=\"{left:.1}\" y=\"{top}\" width=\"{wide:.1}\" height=\"7\" fill=\"{colour}\"/>\
         <line x1=\"{least:.1}\" x2=\"{most:.1}\" y1=\"{middle}\" y2=\"{middle}\" stroke=\"black\"/>\n"
    );
    let change = percent(cell.ratio);
    if !(LEAST..=MOST).contains(&change) {
        let x = if change > 0.0 { end + 4.0 } else { end - 40.0 };
        let _ = writeln!(
            bar,
            "<text x=\"{x:.1}\" y=\"{}\" font-size=\"9\">{change:+.0}</text>",
            top + 7
        );
    }
    bar
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queueing::{Case, Model, Pattern};

    fn row() -> Row {
        let case =
            Case { disk: Model::Nvme, guests: 4, slots: 32, backlog: 256, pattern: Pattern::Runs };
        let cell =
            |ratio| Cell { value_ns: ratio * 2e6, ratio, spread: [ratio - 0.1, ratio + 0.1] };
        let others = [[cell(0.9), cell(0.5)], [cell(1.0), cell(1.0)], [cell(1.25), cell(2.0)]];
        Row { case, both_ns: [2e6, 4e6], others, seeds: 3 }
    }

    #[test]
    fn a_table_has_a_line_for_each_case_and_changes_in_percent() {
        let text = table(&[row(), row()]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4);
        let words: Vec<&str> = lines[2].split_whitespace().collect();
        assert!(lines[2].starts_with("NVMe, 4 guests, ring of 32, runs "));
        assert_eq!(
            words[words.len() - 8..],
            ["2.00", "4.00", "-10.0", "-50.0", "+0.0", "+0.0", "+25.0", "+100.0"]
        );
    }

    #[test]
    fn every_figure_has_its_peer_its_spread_and_its_seeds() {
        let figures = json(&[row()]);
        assert_eq!(figures.len(), 6);
        let name = "NVMe, 4 guests, ring of 32, runs: 99th percentile of the wait, guest noop";
        assert_eq!(figures[1]["name"], name);
        assert_eq!(figures[1]["peer_value"], 4.0);
        assert_eq!(figures[1]["ratio"], 0.5);
        assert_eq!((&figures[1]["unit"], &figures[1]["seeds"]), (&json!("ms"), &json!(3)));
        assert_eq!(figures[1]["spread"], json!([0.4, 0.6]));
    }

    #[test]
    fn a_plot_has_two_bars_for_each_case() {
        let svg = plot(&[row(), row()]);
        assert_eq!(svg.matches("<rect x=").count(), 4);
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    }
}
