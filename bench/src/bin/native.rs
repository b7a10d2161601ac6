//! The native benchmarks as a program; `cargo xtask bench` builds it, builds its peers, and runs it.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bench::native::rings::{self, Shape};
use bench::native::{Figure, Measure, Place, all, plot, table};
use clap::{Parser, Subcommand, ValueEnum};
use serde_json::Value;

const EXIT_CODES: &str = "Exit codes: 0 ok · 1 failed · 2 usage";

/// Front and back as two threads of one process, beside others that do the same.
#[derive(Debug, Parser)]
#[command(name = "native", after_help = EXIT_CODES)]
struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Measure everything
    Measure {
        /// Few blocks of few loads
        #[arg(long)]
        quick: bool,
        /// The raw `io_uring` loop, built of peers/raw.c
        #[arg(long, value_name = "PROGRAM")]
        raw: PathBuf,
        /// The ring in Xen's macros, built of peers/macros.c
        #[arg(long, value_name = "PROGRAM")]
        macros: Option<PathBuf>,
        /// Where to write native.json, .txt and .svg, and a file to work on
        #[arg(long, value_name = "FOLDER")]
        out: PathBuf,
    },
    /// Pass messages through a ring, to be counted
    Ring {
        /// Whose
        who: Who,
        /// Pages of each request
        #[arg(value_parser = clap::value_parser!(u32).range(1..=11))]
        segments: u32,
        /// Requests that become visible at once
        #[arg(value_parser = clap::value_parser!(u32).range(1..=32))]
        batch: u32,
        /// How many
        messages: u64,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Who {
    Ours,
    Rtrb,
    Crossbeam,
}

fn main() -> ExitCode {
    let done = match Options::parse().what {
        What::Measure { quick, raw, macros, out } => measure(quick, raw, macros, &out),
        What::Ring { who, segments, batch, messages } => {
            let through = match who {
                Who::Ours => rings::ours,
                Who::Rtrb => rings::through_rtrb,
                Who::Crossbeam => rings::through_crossbeam,
            };
            println!("{}", through(Shape { segments, batch }, messages));
            Ok(())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(quick: bool, raw: PathBuf, macros: Option<PathBuf>, out: &Path) -> io::Result<()> {
    std::fs::create_dir_all(out)?;
    let own = std::env::current_exe()?;
    let place = Place { file: out.join("native.img"), raw, macros, own };
    let measured = all(&place, if quick { Measure::QUICK } else { Measure::FULL })?;
    let notes = measured.notes.iter().map(|what| format!("note: {what}\n"));
    let table = table(&measured.figures) + &notes.collect::<String>();
    print!("{table}");
    let figures = Value::Array(measured.figures.iter().map(Figure::json).collect());
    std::fs::write(out.join("native.json"), format!("{figures:#}\n"))?;
    std::fs::write(out.join("native.txt"), table)?;
    std::fs::write(out.join("native.svg"), plot(&measured))
}
