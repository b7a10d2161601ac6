//! The tasks that measure. They report: none of them fails because something was slow.

use std::path::PathBuf;

use clap::Args;
use xtask::benchmarks::{self, Benchmarks};
use xtask::error::Result;
use xtask::pairs::{self, Pairs};
use xtask::progress::Progress;

use super::{Common, EXIT_CODES, print};

/// `cargo xtask pairs`.
#[derive(Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct PairsTask {
    #[command(flatten)]
    common: Common,
    /// Seconds for each kind of I/O
    #[arg(long, default_value_t = 2, value_name = "SECONDS")]
    runtime: u32,
    /// Count time by instructions, 2^N ns each: figures then depend little on the host's load
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=10))]
    icount: Option<u8>,
}

impl PairsTask {
    /// Runs the task.
    pub(crate) fn run(&self) -> Result<u8> {
        let verbose = self.common.verbose;
        let pairs = Pairs { seconds: self.runtime, icount: self.icount, verbose };
        let figures = pairs::run(&pairs, &Progress::new(verbose))?;
        print(&format!(
            "{figures}(I/Os per second, mean of two rounds; in brackets each round's ratio to Linux × kernel)\n"
        ));
        Ok(0)
    }
}

/// `cargo xtask bench`.
#[derive(Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct BenchTask {
    #[command(flatten)]
    common: Common,
    /// Seeds of each figure [default: 30]
    #[arg(long, value_name = "NUMBER")]
    seeds: Option<u64>,
    /// Where to write bench.json and queueing.svg [default: target/bench]
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

impl BenchTask {
    /// Runs the task.
    pub(crate) fn run(&self) -> Result<u8> {
        let benchmarks = Benchmarks { seeds: self.seeds, out: self.out.clone() };
        benchmarks::run(self.common.host(), &benchmarks).map(|()| 0)
    }
}
