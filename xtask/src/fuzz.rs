//! `cargo xtask fuzz`: the targets of `tests::fuzz` under libFuzzer, with `AddressSanitizer`.
//!
//! What was found grows in `target/fuzz/corpus`; what is checked in is `fuzz/corpus`, which
//! [`minimise`] makes anew from both. An input that fails is saved under a name of its own in
//! `fuzz/regressions`, where `cargo test` finds it. Must never change the corpus without being asked.

mod figures;
mod session;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Context, LabError, Result};
use crate::host::{self, Host};
use crate::setup::{self, DOM0_TARGET};

pub use figures::Figures;
pub use session::{Failure, Outcome};

/// How often progress is shown.
const SHOWN_EVERY: Duration = Duration::from_secs(10);
/// What the compiler is told, as cargo-fuzz tells it: to count every edge, to show what is compared,
/// and to check every access to memory.
const RUSTFLAGS: [&str; 9] = [
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cllvm-args=-simplifycfg-branch-fold-threshold=0",
    "-Zsanitizer=address",
    "-Cforce-frame-pointers=yes",
];

/// What is to be fuzzed.
#[derive(Debug, Clone)]
pub struct Fuzz {
    /// How long each target runs.
    pub seconds: u64,
    /// How many run at a time.
    pub at_a_time: u8,
    /// Their names; all, if there are none.
    pub targets: Vec<String>,
}

/// The fuzzers, built.
#[derive(Debug)]
pub struct Built {
    programs: PathBuf,
    seeds: PathBuf,
}

/// The names of all targets.
///
/// # Errors
/// The folder of the targets cannot be read.
pub fn names() -> Result<Vec<String>> {
    let folder = folder().join("fuzz_targets");
    let entries = fs::read_dir(&folder).context(|| format!("reading {}", folder.display()))?;
    let stem = |path: PathBuf| path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let mut names: Vec<String> = entries.filter_map(|entry| stem(entry.ok()?.path())).collect();
    names.sort();
    Ok(names)
}

/// Runs the targets and says how it goes. A target that fails is in the outcomes.
///
/// # Errors
/// Only what keeps the fuzzers from running.
pub fn run(host: Host, fuzz: &Fuzz) -> Result<Vec<Outcome>> {
    let names = chosen(&fuzz.targets)?;
    let start = Instant::now();
    let built = build(host)?;
    eprintln!("{:7.1} s  built", start.elapsed().as_secs_f64());
    let (next, outcomes) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || -> Result<()> {
        while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
            let session = session(&built, name)?;
            let shown = |figures: &Figures| {
                eprintln!("{:7.1} s  {name:14} {figures}", start.elapsed().as_secs_f64());
            };
            let outcome = session.run(Duration::from_secs(fuzz.seconds), SHOWN_EVERY, shown)?;
            outcomes.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(outcome);
        }
        Ok(())
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..fuzz.at_a_time).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(|_| panicked()))
    })?;
    let mut outcomes = outcomes.into_inner().unwrap_or_default();
    outcomes.sort_by(|one, other| one.target.cmp(&other.target));
    Ok(outcomes)
}

fn panicked() -> Result<()> {
    Err(LabError::Failed("a thread panicked".into()))
}

/// Makes the corpus of the targets anew: of all that is known the least that reaches every edge.
/// Gives for each target how many inputs it has, and their bytes.
///
/// # Errors
/// The fuzzers cannot be built or run, or the corpus cannot be written.
pub fn minimise(host: Host, targets: &[String]) -> Result<Vec<(String, usize, u64)>> {
    let names = chosen(targets)?;
    let built = build(host)?;
    names.into_iter().map(|name| session(&built, &name)?.minimise(host)).collect()
}

/// A table of outcomes.
pub fn table(outcomes: &[Outcome]) -> String {
    let mut table = format!(
        "{:14} {:>11} {:>8} {:>9} {:>9} {:>7}\n",
        "target", "inputs run", "per s", "coverage", "features", "new"
    );
    for Outcome { target, figures, failure } in outcomes {
        let Figures { executed, per_second, coverage, features, new } = figures;
        table.push_str(&format!(
            "{target:14} {executed:>11} {per_second:>8} {coverage:>9} {features:>9} {new:>7}"
        ));
        table.push_str(if failure.is_some() { "  FAILED\n" } else { "\n" });
    }
    table
}

/// What went wrong, what was saved, and how to see it again; nothing if nothing did.
pub fn complaints(outcomes: &[Outcome]) -> String {
    let mut text = String::new();
    for Outcome { target, failure, .. } in outcomes {
        let Some(Failure { input, replay, log }) = failure else { continue };
        let saved = match input {
            Some(input) => format!("an input fails, saved as {}", input.display()),
            None => "the fuzzer failed".into(),
        };
        text.push_str(&format!("{target}: {saved}\n  log: {}\n", log.display()));
        replay.iter().for_each(|line| text.push_str(&format!("  replay: {line}\n")));
    }
    text
}

fn chosen(targets: &[String]) -> Result<Vec<String>> {
    let names = names()?;
    match targets.iter().find(|target| !names.contains(target)) {
        Some(_) => Err(LabError::Usage(format!("no such target; there are: {}", names.join(" ")))),
        None if targets.is_empty() => Ok(names),
        None => Ok(targets.to_vec()),
    }
}

/// What is checked in about fuzzing.
fn folder() -> PathBuf {
    host::workspace().join("fuzz")
}

/// What is not.
fn scratch() -> PathBuf {
    host::target().join("fuzz")
}

/// Builds the fuzzers.
///
/// # Errors
/// The toolchain is missing, or it does not build.
pub fn build(host: Host) -> Result<Built> {
    setup::fuzzer(host)?;
    let mut cargo = host::nightly();
    cargo.args(["cargo", "build", "--release", "--locked", "--manifest-path"]);
    cargo.arg(folder().join("Cargo.toml")).args(["--target", DOM0_TARGET, "--target-dir"]);
    cargo.arg(scratch()).env("RUSTFLAGS", RUSTFLAGS.join(" "));
    host.run(&mut cargo)?;
    let programs = scratch().join(DOM0_TARGET).join("release");
    let seeds = scratch().join("seeds");
    host::remove_folder(&seeds)?;
    host.run(Command::new(programs.join("kit")).arg("seeds").arg(&seeds))?;
    Ok(Built { programs, seeds })
}

fn session(built: &Built, name: &str) -> Result<session::Session> {
    let own = |folder: &Path| folder.join(name);
    let session = session::Session {
        target: name.into(),
        program: own(&built.programs),
        found: own(&scratch().join("corpus")),
        corpus: own(&folder().join("corpus")),
        regressions: own(&folder().join("regressions")),
        seeds: own(&built.seeds),
        artifacts: own(&scratch().join("artifacts")),
        log: scratch().join("logs").join(format!("{name}.log")),
    };
    session.make_folders()?;
    Ok(session)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_that_is_not_there_is_a_usage_error() {
        let error = chosen(&["no-such-target".into()]).unwrap_err();
        assert_eq!(error.code(), 2);
        assert!(error.to_string().contains("ring"), "{error}");
        assert_eq!(chosen(&[]).unwrap(), names().unwrap());
        assert_eq!(chosen(&["ring".into()]).unwrap(), ["ring"]);
    }
}
