//! The tasks that measure. They report: none of them fails because something was slow.

use std::path::PathBuf;

use clap::Args;
use xtask::benchmarks::{self, Benchmarks, Part};
use xtask::error::Result;

use super::{Common, EXIT_CODES};

/// `cargo xtask bench`.
#[derive(Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct BenchTask {
    #[command(flatten)]
    common: Common,
    /// One seed on Xen and five in virtual time, few native blocks, nothing on QEMU's back, nothing on
    /// Dom0's schedulers and no idle disks: about 5 minutes
    #[arg(long)]
    quick: bool,
    /// Only what is told in virtual time: a minute
    #[arg(long, conflicts_with = "strict")]
    model_only: bool,
    /// Only front and back in one process, beside a raw io_uring loop, queues and Xen's macros: six
    /// minutes, half a one if quick
    #[arg(long, conflicts_with_all = ["strict", "model_only", "seeds"])]
    native_only: bool,
    /// Only guests' elevators above Dom0's own schedulers: ten minutes
    #[arg(long, conflicts_with_all = ["strict", "model_only", "native_only", "quick"])]
    schedulers_only: bool,
    /// Only the memory of 256 idle disks: seven minutes
    #[arg(long, conflicts_with_all = ["strict", "model_only", "native_only", "quick", "seeds"])]
    #[arg(conflicts_with = "schedulers_only")]
    idle_only: bool,
    /// Seeds of each figure [default: 8 on Xen, but 3 on Dom0's schedulers, 30 in virtual
    /// time]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    seeds: Option<u32>,
    /// End with 1 if a counted figure differs by more than 2 % from that of as many seeds that is
    /// checked in
    #[arg(long)]
    strict: bool,
    /// Where to write bench.json, report.html and queueing.svg [default: target/bench]
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

impl BenchTask {
    /// Runs the task.
    pub(crate) fn run(self) -> Result<u8> {
        let host = self.common.host();
        let Self { quick, seeds, strict, out, .. } = self;
        let parts = [
            (self.model_only, Part::Model),
            (self.native_only, Part::Native),
            (self.schedulers_only, Part::Schedulers),
            (self.idle_only, Part::Idle),
        ];
        let only = parts.into_iter().find_map(|(only, part)| only.then_some(part));
        let changes = benchmarks::run(host, &Benchmarks { seeds, quick, only, out })?;
        changes.iter().for_each(|change| println!("changed: {change}"));
        Ok(u8::from(strict && !changes.is_empty()))
    }
}
