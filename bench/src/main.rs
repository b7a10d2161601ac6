//! The benchmarks as a program; `cargo xtask bench` builds it and runs it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use bench::queueing::{Row, cases, study};
use bench::{json, plot, table};
use clap::Parser;

const EXIT_CODES: &str = "Exit codes: 0 ok · 1 failed · 2 usage";

/// What a second queue costs: waits of heavy writes under one elevator and under two, in virtual
/// time.
#[derive(Debug, Parser)]
#[command(name = "bench", after_help = EXIT_CODES)]
struct Options {
    /// Seeds of each figure
    #[arg(long, default_value_t = 30, value_name = "NUMBER",
          value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// Where to write bench.json and queueing.svg
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let rows = rows(options.seeds);
    print!("{}", table(&rows));
    match written(&options.out, &rows) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}: {error}", options.out.display());
            ExitCode::FAILURE
        }
    }
}

/// All cases, in order, on all processors.
fn rows(seeds: u64) -> Vec<Row> {
    let (cases, next, start) = (cases(), AtomicUsize::new(0), Instant::now());
    let work = || {
        let mut rows = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(case) = cases.get(at) else { return rows };
            eprintln!("{:6.1} s  {}", start.elapsed().as_secs_f64(), case.name());
            rows.push((at, study(*case, seeds)));
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

fn written(folder: &Path, rows: &[Row]) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    let lines = serde_json::to_string_pretty(&json(rows))?;
    fs::write(folder.join("bench.json"), lines + "\n")?;
    fs::write(folder.join("queueing.svg"), plot(rows))
}
