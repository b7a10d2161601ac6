//! Two plots of the native pair, as one SVG: I/Os for each second by batch, and latencies.

use std::fmt::Write;

use super::study::Measured;
use crate::quantiles::percentile;

const WIDTH: f64 = 430.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 70.0;
const TOP: f64 = 34.0;
/// What is between two plots.
const GAP: f64 = 110.0;
const OURS: &str = "#2b6cb0";
const PEER: &str = "#718096";
/// Shares of I/Os of which latencies are shown.
const SHARES: [f64; 6] = [0.1, 0.5, 0.9, 0.99, 0.999, 0.9999];

/// The plots.
pub fn plot(measured: &Measured) -> String {
    let (width, height) = (LEFT + 2.0 * WIDTH + GAP + 20.0, TOP + HEIGHT + 50.0);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{}{}</svg>\n",
        sweep(measured),
        latencies(measured)
    )
}

/// One curve: its name, its colour, and its points, each from 0 to 1 both ways.
type Curve<'a> = (&'a str, &'a str, Vec<[f64; 2]>);

/// A plot that begins at `left`: marks below and beside it are at places from 0 to 1.
fn axes(
    left: f64,
    title: &str,
    below: &[(f64, String)],
    beside: &[(f64, String)],
    curves: &[Curve<'_>],
) -> String {
    let at = |[x, y]: [f64; 2]| [left + x * WIDTH, TOP + (1.0 - y) * HEIGHT];
    let mut svg = format!("<text x=\"{left}\" y=\"16\">{title}</text>\n");
    for (place, mark) in beside {
        let [x, y] = at([0.0, *place]);
        let _ = writeln!(
            svg,
            "<line x1=\"{x:.1}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#ccc\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#666\">{mark}</text>",
            x + WIDTH,
            x - 4.0,
            y + 4.0
        );
    }
    for (place, mark) in below {
        let [x, y] = at([*place, 0.0]);
        let _ = writeln!(
            svg,
            "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#666\">{mark}</text>",
            y + 18.0
        );
    }
    for (nth, (name, colour, points)) in (0_u8..).zip(curves) {
        let line: String =
            points.iter().map(|&point| at(point)).map(|[x, y]| format!("{x:.1},{y:.1} ")).collect();
        let [x, y] = at([f64::from(nth) * 0.4, 0.0]);
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\
             <text x=\"{x:.1}\" y=\"{:.1}\" fill=\"{colour}\">{name}</text>",
            line.trim_end(),
            y + 38.0
        );
    }
    svg
}

/// The place of the `nth` of so many marks.
fn spread(nth: usize, marks: usize) -> f64 {
    let part = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    part(nth) / part(marks.saturating_sub(1).max(1))
}

fn sweep(measured: &Measured) -> String {
    let points = &measured.sweep;
    let most = points.iter().flat_map(|(_, both)| both).copied().fold(1.0, f64::max);
    let curve = |side: usize| {
        let point = |(nth, (_, both)): (usize, &(u32, [f64; 2]))| {
            [spread(nth, points.len()), both[side] / most]
        };
        points.iter().enumerate().map(point).collect()
    };
    let below: Vec<_> = points
        .iter()
        .enumerate()
        .map(|(nth, (batch, _))| (spread(nth, points.len()), batch.to_string()))
        .collect();
    let beside = [0.0, 0.5, 1.0].map(|part| (part, format!("{:.0} k", part * most / 1000.0)));
    let title = "IOPS by batch: random reads of 4 KiB, 32 in flight, page cache";
    let curves = [("pvblk", OURS, curve(0)), ("raw io_uring", PEER, curve(1))];
    axes(LEFT, title, &below, &beside, &curves)
}

fn latencies(measured: &Measured) -> String {
    let shown = |took: &[f64]| SHARES.map(|share| percentile(took, share) / 1000.0);
    let all: Vec<(u32, [f64; SHARES.len()])> =
        measured.latencies.iter().map(|(depth, took)| (*depth, shown(took))).collect();
    // From 1 µs on, in powers of ten.
    let most = all.iter().flat_map(|(_, values)| values).copied().fold(10.0, f64::max);
    let decades = most.log10().ceil();
    let place = |value: f64| (value.max(1.0).log10() / decades).min(1.0);
    let below: Vec<_> = SHARES
        .iter()
        .enumerate()
        .map(|(nth, share)| (spread(nth, SHARES.len()), format!("{} %", share * 100.0)))
        .collect();
    let mut beside = Vec::new();
    for mark in ["1 µs", "10 µs", "100 µs", "1 ms", "10 ms", "100 ms", "1 s"] {
        let nth = f64::from(u32::try_from(beside.len()).unwrap_or(u32::MAX));
        if nth <= decades {
            beside.push((nth / decades, mark.to_owned()));
        }
    }
    let names: Vec<String> = all.iter().map(|(depth, _)| format!("depth {depth}")).collect();
    let curves: Vec<Curve<'_>> = all
        .iter()
        .zip(&names)
        .zip([OURS, "#dd6b20"])
        .map(|(((_, values), name), colour)| {
            let point = |(nth, &value): (usize, &f64)| [spread(nth, SHARES.len()), place(value)];
            (name.as_str(), colour, values.iter().enumerate().map(point).collect())
        })
        .collect();
    let title = "How long a read takes, by the share of reads that take no longer";
    axes(LEFT + WIDTH + GAP, title, &below, &beside, &curves)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_curve_for_each_side_and_for_each_depth() {
        let measured = Measured {
            sweep: vec![(1, [1e5, 2e5]), (32, [3e5, 4e5])],
            latencies: vec![(1, vec![2e3, 4e3]), (32, vec![5e4, 2e6])],
            ..Measured::default()
        };
        let svg = plot(&measured);
        assert_eq!(svg.matches("<polyline ").count(), 4);
        assert!(svg.contains(">400 k<") && svg.contains(">10 ms<"), "{svg}");
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert!(!svg.contains("NaN"), "{svg}");
    }
}
