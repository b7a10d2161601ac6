//! `cargo xtask bench`: every benchmark, one after the other, into one list of figures and one report.
//!
//! What a second queue costs is told by the program of the crate `bench`, in virtual time; what an I/O
//! costs is counted on real Xen by [`matrix`]. A benchmark reports: nothing here fails because
//! something was slow.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::error::{Context, LabError, Result};
use crate::host::{self, Host};
use crate::matrix::{self, Ask};
use crate::progress::Progress;
use crate::{figures, report};

/// Seeds of the figures on Xen, and in a quick run.
const SEEDS: u32 = 8;
const QUICK_SEEDS: u32 = 1;
/// Seeds in virtual time in a quick run; else the program has its own measure.
const QUICK_MODEL_SEEDS: u64 = 5;
/// About how many seconds each seed takes in virtual time, with its program's build.
const MODEL_SECONDS: u64 = 60;

/// What is checked in: figures of an earlier run, to hold new ones against.
const BASELINE: &str = "docs/bench.json";

/// What to run.
#[derive(Debug, Clone, Default)]
pub struct Benchmarks {
    /// Seeds of each figure, instead of what is usual.
    pub seeds: Option<u32>,
    /// Few seeds, and without QEMU's back.
    pub quick: bool,
    /// Only in virtual time.
    pub model_only: bool,
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

    fn ask(&self, host: Host) -> Ask {
        let usual = if self.quick { QUICK_SEEDS } else { SEEDS };
        Ask { seeds: self.seeds.unwrap_or(usual), quick: self.quick, verbose: host.verbose }
    }
}

/// Runs them, writes `bench.json` and `report.html`, and gives what differs from what is checked in.
///
/// Errors: [`LabError::Failed`] if a lab cannot be had or the files cannot be written.
pub fn run(host: Host, benchmarks: &Benchmarks) -> Result<Vec<String>> {
    let out = benchmarks.out.clone().unwrap_or_else(|| host::target().join("bench"));
    let ask = benchmarks.ask(host);
    let seconds = if benchmarks.model_only { 0 } else { ask.estimate().as_secs() } + MODEL_SECONDS;
    eprintln!("about {} min, without what has to be fetched or built first", seconds.div_ceil(60));
    host.show(&mut benchmarks.model(&out))?;
    if benchmarks.model_only {
        return Ok(Vec::new());
    }
    let matrix = matrix::run(ask, &Progress::new(host.verbose))?;
    let found = figures::of(&matrix);
    let tables = [figures::table, figures::elevators, figures::targets].map(|of| of(&found));
    tables.iter().filter(|table| !table.is_empty()).for_each(|table| println!("\n{table}"));
    let list = out.join("bench.json");
    let Value::Array(mut all) = read(&list)? else {
        return Err(LabError::Failed(format!("{} is no list", list.display())));
    };
    all.extend(figures::json(&found));
    write(&list, &format!("{:#}\n", Value::Array(all)))?;
    let plot = out.join("queueing.svg");
    let plot = fs::read_to_string(&plot).context(|| format!("reading {}", plot.display()))?;
    write(&out.join("report.html"), &report::html(&found, &tables, &plot))?;
    println!("{} and report.html beside it", list.display());
    Ok(figures::changes(&found, &read(&host::workspace().join(BASELINE))?))
}

fn read(path: &Path) -> Result<Value> {
    let text = fs::read(path).context(|| format!("reading {}", path.display()))?;
    serde_json::from_slice(&text)
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
    fn the_baseline_is_a_list() {
        assert!(read(&host::workspace().join(BASELINE)).is_ok_and(|list| list.is_array()));
    }
}
