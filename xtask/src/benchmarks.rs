//! `cargo xtask bench`: every benchmark, one after the other, into one list of figures and one report.
//!
//! What a second queue costs and how guests share a disk is told by a program of the crate `bench`, in
//! virtual time; how the pair does beside others without Xen by another ([`native`]). On real Xen, what
//! an I/O costs is counted by [`matrix`], with queues on both sides by [`schedulers`], and what a disk
//! costs that does none by [`idle`]. A benchmark reports: nothing here fails because something was slow.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::error::{Context, LabError, Result};
use crate::host::{self, Host};
use crate::matrix::{self, Ask};
use crate::progress::Progress;
use crate::report::{self, Section};
use crate::{figures, idle, native, schedulers, targets};

/// Seeds of the figures on Xen, and in a quick run.
const SEEDS: u32 = 8;
const QUICK_SEEDS: u32 = 1;
/// The same on Dom0's schedulers, where each takes long.
const SCHEDULER_SEEDS: u32 = 3;
/// Seeds in virtual time in a quick run; else the program has its own measure.
const QUICK_MODEL_SEEDS: u64 = 5;
/// About how many seconds each seed takes in virtual time, with its program's build.
const MODEL_SECONDS: u64 = 90;

/// What is checked in: figures of an earlier run, to hold new ones against.
const BASELINE: &str = "docs/bench.json";

/// A part of the benchmarks, in the order in which they are done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// In virtual time.
    Model,
    /// In one process, without Xen.
    Native,
    /// On real Xen: I/O.
    Xen,
    /// On real Xen: Dom0's own schedulers.
    Schedulers,
    /// On real Xen: disks that nobody uses.
    Idle,
}

/// What to run.
#[derive(Debug, Clone, Default)]
pub struct Benchmarks {
    /// Seeds of each figure, instead of what is usual.
    pub seeds: Option<u32>,
    /// Few seeds, without QEMU's back, Dom0's schedulers and idle disks.
    pub quick: bool,
    /// Only this part of them.
    pub only: Option<Part>,
    /// Where the files go; `target/bench` if unset.
    pub out: Option<PathBuf>,
}

impl Benchmarks {
    /// The command that does the part in virtual time.
    fn model(&self, out: &Path) -> Command {
        let seeds = self.seeds.map(u64::from).or(self.quick.then_some(QUICK_MODEL_SEEDS));
        let options = [
            ("--out", Some(out.display().to_string())),
            ("--seeds", seeds.map(|it| it.to_string())),
        ];
        host::program("bench", "bench", &options)
    }

    fn has(&self, part: Part) -> bool {
        let usual = !(self.quick && matches!(part, Part::Schedulers | Part::Idle));
        self.only.map_or(usual, |only| only == part)
    }

    /// About how long it takes on two processors of 2.6 GHz, from what it took there.
    fn estimate(&self, host: Host) -> Duration {
        let native = if self.quick { native::QUICK_SECONDS } else { native::SECONDS };
        let parts = [
            (Part::Model, Duration::from_secs(MODEL_SECONDS)),
            (Part::Native, Duration::from_secs(native)),
            (Part::Xen, self.ask(host).estimate()),
            (Part::Schedulers, schedulers::estimate(self.scheduler_seeds())),
            (Part::Idle, Duration::from_secs(idle::SECONDS)),
        ];
        parts.into_iter().filter(|(part, _)| self.has(*part)).map(|(_, time)| time).sum()
    }

    fn ask(&self, host: Host) -> Ask {
        let usual = if self.quick { QUICK_SEEDS } else { SEEDS };
        Ask { seeds: self.seeds.unwrap_or(usual), quick: self.quick, verbose: host.verbose }
    }

    fn scheduler_seeds(&self) -> u32 {
        self.seeds.unwrap_or(SCHEDULER_SEEDS)
    }
}

/// Runs them, writes `bench.json` and `report.html`, and gives what differs from what is checked in.
///
/// Errors: [`LabError::Failed`] if a lab cannot be had or the files cannot be written.
pub fn run(host: Host, benchmarks: &Benchmarks) -> Result<Vec<String>> {
    let out = benchmarks.out.clone().unwrap_or_else(|| host::target().join("bench"));
    let minutes = benchmarks.estimate(host).as_secs().div_ceil(60);
    eprintln!("about {minutes} min, without what has to be fetched or built first");
    fs::create_dir_all(&out).context(|| format!("making {}", out.display()))?;
    let list = out.join("bench.json");
    let (mut all, mut sections, mut found) = (Vec::new(), Vec::new(), Vec::new());
    if benchmarks.has(Part::Model) {
        host.show(&mut benchmarks.model(&out))?;
        all.extend(listed(&list)?);
        let words = "How waits change with elevators, in virtual time, on modelled disks.";
        let plot = text(&out.join("queueing.svg"))?;
        sections.push(Section::new("What a second queue costs", words, &plot, &[]));
        let words = "What guests take from each other, in virtual time, on the same disks: medians, in \
                     brackets the least and the greatest of the seeds. An aim counts as missed if one \
                     seed misses it.";
        let table = text(&out.join("fairness.txt"))?;
        sections.push(Section::new("Fairness between guests", words, "", &[table]));
    }
    if benchmarks.has(Part::Native) {
        let left = native::run(host, benchmarks.quick, &out)?;
        all.extend(listed(&left.figures)?);
        let words = "Front and back as two threads of one process, on a file. Times are of this \
                     machine in these minutes: what is told is how they are to others beside them.";
        let (plots, table) = (text(&left.plots)?, text(&left.table)?);
        sections.push(Section::new("The pair without Xen", words, &plots, &[table]));
    }
    if benchmarks.has(Part::Xen) {
        let matrix = matrix::run(benchmarks.ask(host), &Progress::new(host.verbose))?;
        found = figures::of(&matrix);
        let tables = [figures::table, figures::elevators].map(|of| of(&found));
        tables.iter().filter(|table| !table.is_empty()).for_each(|it| println!("\n{it}"));
        all.extend(figures::json(&found));
        sections.push(Section::costs(&found, &tables));
    }
    if benchmarks.has(Part::Schedulers) {
        let seeds = benchmarks.scheduler_seeds();
        let seen = schedulers::run(host, seeds, &Progress::new(host.verbose))?;
        let (figures, table) = (seen.figures(), seen.table());
        println!("\n{table}");
        all.extend(figures::json(&figures));
        let words = "Random writes of guests that do not sort, on disks of Dom0 with each of its \
                     schedulers; in brackets how that is to the same guest with an elevator that sorts. \
                     Instructions are of a disk that nobody waits for, waits of a slow one.";
        sections.push(Section::new("Schedulers of Dom0", words, "", &[table]));
        found.extend(figures);
    }
    if benchmarks.has(Part::Idle) {
        let idle = idle::run(host, &Progress::new(host.verbose))?;
        println!("\n{}", idle.line());
        all.extend(figures::json(&idle.figures()));
        let words = "How much less memory Dom0 has for each disk that is connected, with all that its \
                     kernel, the daemon and xenstored keep for it.";
        sections.push(Section::new("Idle devices", words, "", &[idle.line()]));
        found.extend(idle.figures());
    }
    if !matches!(benchmarks.only, Some(Part::Model | Part::Schedulers)) {
        let aimed = targets::table(&all);
        println!("\n{aimed}");
        let words =
            "A target counts as held if the worst of seeds or the end of the interval holds it.";
        sections.push(Section::new("What was aimed at", words, "", &[aimed]));
    }
    write(&list, &format!("{:#}\n", Value::Array(all)))?;
    write(&out.join("report.html"), &report::html(&sections))?;
    println!("{} and report.html beside it", list.display());
    Ok(figures::changes(&found, &Value::Array(listed(&host::workspace().join(BASELINE))?)))
}

fn text(path: &Path) -> Result<String> {
    fs::read_to_string(path).context(|| format!("reading {}", path.display()))
}

/// The figures in a file.
fn listed(path: &Path) -> Result<Vec<Value>> {
    serde_json::from_str(&text(path)?)
        .map_err(|error| LabError::Failed(format!("{}: {error}", path.display())))
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_set_is_said() {
        let line = |it: Benchmarks| host::command_line(&it.model(Path::new("there")));
        assert!(line(Benchmarks::default()).ends_with(" -- --out there"));
        let some = Benchmarks { seeds: Some(3), ..Benchmarks::default() };
        assert!(line(some.clone()).ends_with(" -- --out there --seeds 3"));
        assert_eq!(some.ask(Host::default()).seeds, 3);
        let quick = Benchmarks { quick: true, ..Benchmarks::default() };
        assert!(line(quick.clone()).ends_with(" --seeds 5"));
        assert_eq!(quick.ask(Host::default()).seeds, 1);
    }

    #[test]
    fn what_is_left_out_is_not_in_the_estimate() {
        let time = |quick, only| {
            let some = Benchmarks { quick, only, ..Benchmarks::default() };
            some.estimate(Host::default())
        };
        assert_eq!(time(true, Some(Part::Native)), Duration::from_secs(native::QUICK_SECONDS));
        assert_eq!(time(false, Some(Part::Model)), Duration::from_secs(MODEL_SECONDS));
        let parts = [Part::Model, Part::Native, Part::Xen, Part::Schedulers, Part::Idle];
        let parts = parts.map(|part| time(false, Some(part)));
        assert_eq!(time(false, None), parts.into_iter().sum());
        assert_eq!(time(true, Some(Part::Idle)), parts[4]);
        let quick = [Part::Model, Part::Native, Part::Xen].map(|part| time(true, Some(part)));
        assert_eq!(time(true, None), quick.into_iter().sum());
    }

    #[test]
    fn the_baseline_is_a_list() {
        assert!(listed(&host::workspace().join(BASELINE)).is_ok_and(|list| !list.is_empty()));
    }
}
