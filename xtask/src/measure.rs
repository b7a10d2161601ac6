//! `cargo xtask coverage` and `cargo xtask mutants`: how much of the code that a peer talks to is run
//! by its own tests, and how many small changes to it those tests notice.
//!
//! For the two crates that stand between a peer's bytes and everything else. Not among the gates:
//! the second takes long.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Context, LabError, Result};
use crate::host::{self, Host};
use crate::setup;

/// The crates that are measured.
pub const CRATES: [&str; 2] = ["ring", "blkif"];

/// The least that is good enough, in percent.
const LEAST: f64 = 95.0;

/// What is only built for loom: models of orderings, tried by `cargo xtask orders`.
const FOR_LOOM: &str = "ring/src/sync/**";

/// One part of a measurement.
#[derive(Debug, Clone, PartialEq)]
pub struct Share {
    /// A crate or a file.
    pub name: String,
    /// How many there are.
    pub all: u64,
    /// How many of them are good.
    pub good: u64,
}

impl Share {
    /// In percent; of nothing, all is good.
    pub fn percent(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "counts of lines and mutants")]
        let (good, all) = (self.good as f64, self.all as f64);
        if self.all == 0 { 100.0 } else { good / all * 100.0 }
    }

    /// Whether it reaches the goal.
    pub fn is_enough(&self) -> bool {
        self.percent() >= LEAST
    }
}

impl std::fmt::Display for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:<28} {:>5} of {:>5}  {:5.1} %", self.name, self.good, self.all, self.percent())
    }
}

/// A measurement: its crates, and what falls short.
#[derive(Debug)]
pub struct Measured {
    /// One for each crate.
    pub crates: Vec<Share>,
    /// What could be better, a line each.
    pub lacking: Vec<String>,
}

/// Lines that the crates' own tests run.
///
/// Errors: [`LabError::Missing`] without `cargo-llvm-cov` or LLVM's tools; failing tests.
pub fn coverage(host: Host) -> Result<Measured> {
    setup::cargo_tool(host, "cargo-llvm-cov")?;
    setup::llvm_tools(host)?;
    let report = host::target().join("coverage.json");
    let mut cargo = host::cargo();
    cargo.args(["llvm-cov", "test", "--json", "--output-path"]).arg(&report);
    host.run(cargo.args(CRATES.iter().flat_map(|name| ["-p", name])))?;
    let text = fs::read_to_string(&report).context(|| format!("reading {}", report.display()))?;
    let files = files(&text, host::workspace())
        .ok_or_else(|| LabError::Failed("cargo llvm-cov writes another format now".into()))?;
    let crates = CRATES.map(|name| sum(name, &files)).to_vec();
    let short = files.iter().filter(|file| file.good < file.all);
    Ok(Measured { crates, lacking: short.map(Share::to_string).collect() })
}

/// The files of LLVM's export, by their paths below `root`, with their lines.
fn files(export: &str, root: &Path) -> Option<Vec<Share>> {
    let export: serde_json::Value = serde_json::from_str(export).ok()?;
    let files = export["data"][0]["files"].as_array()?;
    let share = |file: &serde_json::Value| {
        let path = Path::new(file["filename"].as_str()?);
        let name = path.strip_prefix(root).unwrap_or(path).display().to_string();
        let lines = &file["summary"]["lines"];
        Some(Share { name, all: lines["count"].as_u64()?, good: lines["covered"].as_u64()? })
    };
    files.iter().map(share).collect()
}

fn sum(name: &str, files: &[Share]) -> Share {
    let own = files.iter().filter(|file| Path::new(&file.name).starts_with(name));
    own.fold(Share { name: name.into(), all: 0, good: 0 }, |sum, file| Share {
        all: sum.all + file.all,
        good: sum.good + file.good,
        ..sum
    })
}

/// Mutants that the crates' own tests notice.
///
/// Errors: [`LabError::Missing`] without `cargo-mutants`; tests that fail without any change.
pub fn mutants(host: Host) -> Result<Measured> {
    setup::cargo_tool(host, "cargo-mutants")?;
    let mut measured = Measured { crates: Vec::new(), lacking: Vec::new() };
    for name in CRATES {
        let folder = host::target().join("mutants").join(name);
        host::remove_folder(&folder)?;
        fs::create_dir_all(&folder).context(|| format!("making {}", folder.display()))?;
        tried(host, name, &folder)?;
        let [missed, caught, late] = ["missed", "caught", "timeout"]
            .map(|outcome| lines(&folder.join(format!("mutants.out/{outcome}.txt"))));
        let (missed, caught, late) = (missed?, caught?, late?);
        let good = (caught.len() + late.len()) as u64;
        let all = good + missed.len() as u64;
        measured.crates.push(Share { name: name.into(), all, good });
        measured.lacking.extend(missed);
    }
    Ok(measured)
}

/// Tries all mutants of a crate; what became of them is in files in `folder`.
fn tried(host: Host, name: &str, folder: &Path) -> Result<()> {
    let mut cargo: Command = host::cargo();
    cargo.args(["mutants", "--package", name, "--exclude", FOR_LOOM, "--output"]).arg(folder);
    cargo.args(["--baseline", "run", "--no-shuffle", "--colors", "never"]);
    let ended = host.show(&mut cargo);
    // It fails when a mutant was missed, which is for us to judge; without a list it did not run.
    if folder.join("mutants.out/missed.txt").is_file() { Ok(()) } else { ended }
}

fn lines(path: &PathBuf) -> Result<Vec<String>> {
    let text = fs::read_to_string(path).context(|| format!("reading {}", path.display()))?;
    Ok(text.lines().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_summed_by_crate() {
        let export = r#"{"data":[{"files":[
            {"filename":"/w/ring/src/a.rs","summary":{"lines":{"count":90,"covered":90}}},
            {"filename":"/w/ring/src/b.rs","summary":{"lines":{"count":10,"covered":5}}},
            {"filename":"/w/rings/src/a.rs","summary":{"lines":{"count":7,"covered":0}}}]}]}"#;
        let files = files(export, Path::new("/w")).unwrap();
        let ring = sum("ring", &files);
        assert_eq!((ring.all, ring.good), (100, 95));
        assert!(ring.is_enough());
        assert!(!Share { good: 94, ..ring }.is_enough());
        assert_eq!(files[1].to_string(), "ring/src/b.rs                    5 of    10   50.0 %");
        assert_eq!(super::files("{}", Path::new("/w")), None);
    }
}
