//! The tasks that check the project: gates, hostile peers, simulator, fuzzer, and how much the tests
//! themselves hold.

use clap::Args;
use xtask::error::Result;
use xtask::fuzz::{self, Fuzz};
use xtask::host::Host;
use xtask::measure::{Measured, Share};
use xtask::orders::{self, Changes};
use xtask::sim::{self, Sim};
use xtask::test;
use xtask::torture::{self, Torture};

use super::{Common, EXIT_CODES, print};

/// `cargo xtask sim`.
#[derive(Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct SimTask {
    #[command(flatten)]
    common: Common,
    /// How many seeds [default: 10000, or without end with --minutes]
    #[arg(long, value_name = "NUMBER")]
    seeds: Option<u64>,
    /// The first seed [default: 0]
    #[arg(long, env = "SEED", value_name = "NUMBER")]
    seed: Option<u64>,
    /// End after so many minutes
    #[arg(long, value_name = "NUMBER")]
    minutes: Option<u64>,
}

impl SimTask {
    /// Runs the task; gives 0 when every tale ended well.
    pub(crate) fn run(&self) -> Result<u8> {
        let Self { seeds, seed, minutes, .. } = *self;
        sim::run(self.common.host(), &Sim { seeds, seed, minutes })?;
        Ok(0)
    }
}

/// `cargo xtask test`.
#[derive(Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct TestTask {
    #[command(flatten)]
    common: Common,
    /// Print the gates, run nothing
    #[arg(short = 'N', long)]
    dry_run: bool,
    /// Run only gates whose names contain one of these words
    #[arg(value_name = "GATE")]
    gates: Vec<String>,
}

impl TestTask {
    /// Runs the task; gives 0 when every gate passed.
    pub(crate) fn run(&self) -> Result<u8> {
        if self.dry_run {
            println!("{}", test::names().join("\n"));
            return Ok(0);
        }
        let tally = test::run(self.common.host(), &self.gates)?;
        Ok(u8::from(tally.failed > 0))
    }
}

/// `cargo xtask torture`.
#[derive(Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct TortureTask {
    #[command(flatten)]
    common: Common,
    /// Go on for so many hours, 100 requests for each 10 pages
    #[arg(long, value_name = "HOURS", conflicts_with_all = ["requests", "pages"])]
    hours: Option<f64>,
    /// Requests to hold against the oracle [default: 100000000]
    #[arg(long, value_name = "NUMBER")]
    requests: Option<u64>,
    /// Ring pages to give to a back [default: 1000000]
    #[arg(long, value_name = "NUMBER")]
    pages: Option<u64>,
    /// Seed of the first round, to go on where another run ended [default: 0]
    #[arg(long, env = "SEED", value_name = "NUMBER")]
    seed: Option<u64>,
    /// Leave out what is exhaustive and the same each time
    #[arg(long)]
    random_only: bool,
}

impl TortureTask {
    /// Runs the task; gives 0 when everything held.
    pub(crate) fn run(&self) -> Result<u8> {
        let Self { hours, requests, pages, seed, random_only, .. } = *self;
        let torture = Torture { hours, requests, pages, seed, random_only };
        torture::run(self.common.host(), &torture)?;
        Ok(0)
    }
}

/// `cargo xtask orders`.
#[derive(Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct OrdersTask {
    #[command(flatten)]
    common: Common,
    /// Only drop each fence, which takes a minute
    #[arg(long)]
    fences: bool,
}

impl OrdersTask {
    /// Runs the task; gives 0 when every change was noticed.
    pub(crate) fn run(&self) -> Result<u8> {
        let changes = if self.fences { Changes::Fences } else { Changes::All };
        let (tried, missed) = orders::run(self.common.host(), changes)?;
        println!("{} passed, {} failed", tried - missed.len(), missed.len());
        missed.iter().for_each(|mutant| println!("not noticed: {mutant}"));
        Ok(u8::from(!missed.is_empty()))
    }
}

/// `cargo xtask coverage` and `cargo xtask mutants`.
#[derive(Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct MeasureTask {
    #[command(flatten)]
    common: Common,
}

impl MeasureTask {
    /// Measures; gives 0 when every crate has enough.
    pub(crate) fn run(&self, measure: fn(Host) -> Result<Measured>) -> Result<u8> {
        let Measured { crates, lacking } = measure(self.common.host())?;
        lacking.iter().for_each(|line| println!("lacking: {line}"));
        crates.iter().for_each(|share| println!("{share}"));
        Ok(u8::from(!crates.iter().all(Share::is_enough)))
    }
}

/// `cargo xtask fuzz`.
#[derive(Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct FuzzTask {
    #[command(flatten)]
    common: Common,
    /// Print the targets, run nothing
    #[arg(short = 'N', long)]
    dry_run: bool,
    /// Seconds for each target
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    seconds: u64,
    /// How many targets run at a time
    #[arg(long, default_value_t = 3, value_name = "NUMBER", value_parser = clap::value_parser!(u8).range(1..))]
    at_a_time: u8,
    /// Make the corpus anew instead: of all that is known the least that reaches every edge
    #[arg(long)]
    minimise: bool,
    /// Only these targets
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
}

impl FuzzTask {
    /// Runs the task; gives 0 if no input failed.
    pub(crate) fn run(self) -> Result<u8> {
        let host = self.common.host();
        if self.dry_run {
            println!("{}", fuzz::names()?.join("\n"));
            return Ok(0);
        }
        if self.minimise {
            for (target, inputs, bytes) in fuzz::minimise(host, &self.targets)? {
                println!("{target:14} {inputs:>5} inputs {bytes:>8} bytes");
            }
            return Ok(0);
        }
        let Self { seconds, at_a_time, targets, .. } = self;
        let outcomes = fuzz::run(host, &Fuzz { seconds, at_a_time, targets })?;
        print(&fuzz::table(&outcomes));
        eprint!("{}", fuzz::complaints(&outcomes));
        let failed = outcomes.iter().filter(|outcome| outcome.failure.is_some()).count();
        println!("{} passed, {failed} failed", outcomes.len() - failed);
        Ok(u8::from(failed > 0))
    }
}
