//! One page with all figures: no script, nothing that has to be fetched.

use std::fmt::Write;

use crate::figures::{Figure, of_added};
use crate::matrix::{PAIRS, WORKS};

/// Pixels of a bar's line, of the names, and of the widest bar.
const LINE: usize = 20;
const NAMES: f64 = 250.0;
const WIDEST: f64 = 520.0;
/// A colour for each pair.
const COLOURS: [&str; PAIRS.len()] =
    ["#2b6cb0", "#63b3ed", "#bee3f8", "#dd6b20", "#f6ad55", "#718096"];

/// A part of the page.
#[derive(Debug, Clone, PartialEq)]
pub struct Section {
    title: &'static str,
    /// In HTML.
    body: String,
}

impl Section {
    /// A plot (an SVG), what it shows, and tables as they are printed.
    pub fn new(title: &'static str, words: &str, plot: &str, tables: &[String]) -> Self {
        let table = |it: &String| format!("<pre>{}</pre>\n", escaped(it));
        let tables: String = tables.iter().filter(|it| !it.is_empty()).map(table).collect();
        Self { title, body: format!("<p>{}</p>\n{plot}{tables}", escaped(words)) }
    }

    /// What each pair adds to an I/O on real Xen.
    pub fn costs(figures: &[Figure], tables: &[String]) -> Self {
        let words = "Instructions of the whole machine for one I/O, on top of what the disk costs in \
                     Dom0. Counted in emulation: caches and TLBs cost nothing here, and no figure is \
                     a time.";
        Self::new("What an I/O costs", words, &plot(figures), tables)
    }
}

/// The page.
pub fn html(sections: &[Section]) -> String {
    let section = |it: &Section| format!("<h2>{}</h2>\n{}", it.title, it.body);
    format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>pvblk: figures</title>\n\
         <style>body {{ font-family: sans-serif; max-width: 70em; margin: 2em auto }}\
         pre {{ overflow-x: auto }}</style>\n\
         <h1>pvblk: figures</h1>\n{}</html>\n",
        sections.iter().map(section).collect::<String>()
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// A bar for each pair and kind of I/O, each kind to its own scale.
fn plot(figures: &[Figure]) -> String {
    let mut bars = String::new();
    let mut line = 1;
    for work in WORKS {
        let found = PAIRS.map(|place| of_added(figures, &work.to_string(), place));
        let most = found.iter().flatten().map(|it| it.value).fold(1.0, f64::max);
        let _ = writeln!(bars, "<text x=\"4\" y=\"{}\">{work}</text>", line * LINE + 14);
        for ((place, figure), colour) in PAIRS.iter().zip(found).zip(COLOURS) {
            let Some(Figure { value, .. }) = figure else { continue };
            let (y, wide) = (line * LINE, value.max(0.0) / most * WIDEST);
            let _ = writeln!(
                bars,
                "<rect x=\"{NAMES}\" y=\"{y}\" width=\"{wide:.1}\" height=\"16\" fill=\"{colour}\"/>\
                 <text x=\"{:.1}\" y=\"{}\">{place} {value:.0}</text>",
                NAMES + wide + 4.0,
                y + 13
            );
            line += 1;
        }
        line += 1;
    }
    let (width, height) = (NAMES + WIDEST + 200.0, line * LINE);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n{bars}</svg>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_a_bar_for_each_figure_and_needs_nothing_else() {
        let figure = |place| Figure {
            name: format!("{}: {place}, added", WORKS[2]),
            value: 10.0,
            unit: "instructions/I/O",
            peer: None,
            spread: [9.0, 11.0],
            seeds: 2,
        };
        let figures = [figure(PAIRS[0]), figure(PAIRS[5])];
        let page = html(&[
            Section::costs(&figures, &["a < b".into(), String::new()]),
            Section::new("Queues", "1 & 2", "<svg>queues</svg>", &[]),
        ]);
        assert_eq!(page.matches("<rect ").count(), 2);
        assert!(
            page.contains("<pre>a &lt; b</pre>\n<h2>Queues</h2>\n<p>1 &amp; 2</p>")
                && page.contains("<svg>queues</svg>")
        );
        assert!(page.contains("width=\"520.0\"") && !page.contains("src="));
    }
}
