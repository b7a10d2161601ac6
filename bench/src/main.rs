//! The benchmarks as a program; `cargo xtask bench` builds it and runs it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use bench::{fairness, json, plot, queueing, table};
use clap::Parser;
use serde_json::Value;

const EXIT_CODES: &str = "Exit codes: 0 ok · 1 failed · 2 usage";

/// What a second queue costs, and what guests that share a disk take from each other: waits and shares in
/// virtual time.
#[derive(Debug, Parser)]
#[command(name = "bench", after_help = EXIT_CODES)]
struct Options {
    /// Seeds of each figure
    #[arg(long, default_value_t = 30, value_name = "NUMBER",
          value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// Where to write bench.json, queueing.svg and fairness.txt
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let (seeds, start) = (options.seeds, Instant::now());
    let told = |name: String| eprintln!("{:6.1} s  {name}", start.elapsed().as_secs_f64());
    let waits = all(&queueing::cases(), |case| {
        told(case.name());
        queueing::study(*case, seeds)
    });
    let shares = all(&fairness::cases(), |case| {
        told(case.name());
        fairness::study(*case, seeds)
    });
    print!("{}\n{}", table(&waits), fairness::table(&shares));
    match written(&options.out, &waits, &shares) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}: {error}", options.out.display());
            ExitCode::FAILURE
        }
    }
}

/// What came out of all cases, in order, on all processors.
fn all<C: Sync, R: Send>(cases: &[C], study: impl Fn(&C) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut rows = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(case) = cases.get(at) else { return rows };
            rows.push((at, study(case)));
        }
    };
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let mut rows = thread::scope(|scope| {
        let threads: Vec<_> = (0..processors).map(|_| scope.spawn(work)).collect();
        let joined = threads.into_iter().map(|thread| thread.join().expect("no panic"));
        joined.flatten().collect::<Vec<_>>()
    });
    rows.sort_by_key(|(at, _)| *at);
    rows.into_iter().map(|(_, row)| row).collect()
}

fn written(
    folder: &Path,
    waits: &[queueing::Row],
    shares: &[fairness::Row],
) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    let figures = [json(waits), fairness::json(shares)].concat();
    fs::write(folder.join("bench.json"), format!("{:#}\n", Value::Array(figures)))?;
    fs::write(folder.join("fairness.txt"), fairness::table(shares))?;
    fs::write(folder.join("queueing.svg"), plot(waits))
}
