//! The torture as a program: hostile peers for as long as it is told, with a count of what was
//! tried. `cargo xtask torture` builds it and runs it.
//!
//! It ends with 0 when everything held, and else with the options that do the failed job again. An
//! interrupt ends it after the jobs that are under way.

use std::io::{IsTerminal, Write, stderr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use signal_hook::consts::{SIGINT, SIGTERM};
use tests::torture::Tally;
use tests::torture::plan::{Job, ROUND_REQUESTS, exhaustive};

const THREADS: usize = 2;
/// In a run that is bounded by time there is a page for so many requests.
const REQUESTS_PER_PAGE: u64 = 10;
/// Positions of a ring at which all indexes are tried.
const POSITIONS: usize = 2;
const POSITIONS_PER_HOUR: u64 = 8;

const EXIT_CODES: &str = "Exit codes: 0 ok · 1 something did not hold · 2 usage";

/// Hostile peers for as long as it is told, with a count of what was tried.
#[derive(Clone, Copy, Debug, Parser)]
#[command(name = "torture", after_help = EXIT_CODES)]
struct Options {
    /// Go on for so many hours, ten requests for each page
    #[arg(long, conflicts_with_all = ["requests", "pages"], value_name = "HOURS")]
    hours: Option<f64>,
    /// Requests to hold against the oracle
    #[arg(long, default_value_t = 100_000_000, value_name = "NUMBER")]
    requests: u64,
    /// Ring pages to give to a back
    #[arg(long, default_value_t = 1_000_000, value_name = "NUMBER")]
    pages: u64,
    /// Seed of the first round
    #[arg(long, default_value_t = 0, value_name = "NUMBER")]
    seed: u64,
    /// Leave out what is exhaustive and the same each time
    #[arg(long)]
    random_only: bool,
}

impl Options {
    fn positions(&self) -> usize {
        let of_hours = |hours: f64| {
            let hours = Duration::from_secs_f64(hours.clamp(0.0, 8.0) * 3600.0).as_secs() / 3600;
            usize::try_from(hours.max(1) * POSITIONS_PER_HOUR).unwrap_or(POSITIONS)
        };
        self.hours.map_or(POSITIONS, of_hours)
    }
}

/// Gives the jobs out.
struct Desk {
    exhaustive: Vec<Job>,
    options: Options,
    rounds: u64,
    next: AtomicU64,
    stop: Arc<AtomicBool>,
    deadline: Option<Instant>,
}

impl Desk {
    fn new(options: Options) -> Self {
        let exhaustive =
            if options.random_only { Vec::new() } else { exhaustive(options.positions()) };
        let most = options.requests.div_ceil(ROUND_REQUESTS);
        // Pages without requests still need rounds to be in.
        let rounds =
            if options.hours.is_some() { u64::MAX } else { most.max(options.pages.min(1)) };
        let time = |hours: f64| Instant::now() + Duration::from_secs_f64(hours.max(0.0) * 3600.0);
        let deadline = options.hours.map(time);
        let (next, stop) = (AtomicU64::new(0), Arc::default());
        Self { exhaustive, options, rounds, next, stop, deadline }
    }

    fn job(&self) -> Option<Job> {
        let late = self.deadline.is_some_and(|deadline| Instant::now() >= deadline);
        if late || self.stop.load(Ordering::Relaxed) {
            return None;
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        if let Some(&job) = usize::try_from(number).ok().and_then(|at| self.exhaustive.get(at)) {
            return Some(job);
        }
        let round = number - self.exhaustive.len() as u64;
        if round >= self.rounds {
            return None;
        }
        let seed = self.options.seed.wrapping_add(round);
        if self.options.hours.is_some() {
            let (requests, pages) = (ROUND_REQUESTS, ROUND_REQUESTS / REQUESTS_PER_PAGE);
            return Some(Job::Round { seed, requests, pages });
        }
        // The remainder goes to the first rounds.
        let share = |all: u64| all / self.rounds + u64::from(round < all % self.rounds);
        let (requests, pages) = (share(self.options.requests), share(self.options.pages));
        Some(Job::Round { seed, requests, pages })
    }

    /// The seed of the first round that was not given out.
    fn next_seed(&self) -> u64 {
        let given = self.next.load(Ordering::Relaxed).saturating_sub(self.exhaustive.len() as u64);
        self.options.seed.wrapping_add(given.min(self.rounds))
    }
}

/// What all threads have done so far.
#[derive(Default)]
struct Board {
    tally: Mutex<Tally>,
    failed: Mutex<Vec<Job>>,
}

impl Board {
    fn tally(&self) -> Tally {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn work(desk: &Desk, board: &Board) {
    while let Some(job) = desk.job() {
        let mut tally = Tally::default();
        // What a failed job leaves behind is dropped with it.
        let done = catch_unwind(AssertUnwindSafe(|| job.run(&mut tally)));
        board.tally.lock().unwrap_or_else(PoisonError::into_inner).add(&tally);
        if done.is_err() {
            board.failed.lock().unwrap_or_else(PoisonError::into_inner).push(job);
            desk.stop.store(true, Ordering::Relaxed);
        }
    }
}

/// One line that is rewritten on a terminal; elsewhere a line now and then.
fn show(start: Instant, desk: &Desk, board: &Board, working: &AtomicBool) {
    let terminal = stderr().is_terminal();
    let pause = if terminal { Duration::from_millis(500) } else { Duration::from_secs(20) };
    let mut shown = Instant::now();
    while working.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(50));
        if shown.elapsed() < pause {
            continue;
        }
        shown = Instant::now();
        let Tally { requests, pages, steps, orders, indexes, .. } = board.tally();
        let line = format!(
            "{:7.0} s  requests {requests}  pages {pages}  steps {steps}  orders {orders}  indexes \
             {indexes}  next seed {}",
            start.elapsed().as_secs_f64(),
            desk.next_seed()
        );
        if terminal {
            eprint!("\r{line}\u{1b}[K");
            let _ = stderr().flush();
        } else {
            eprintln!("{line}");
        }
    }
    if terminal {
        eprintln!();
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    let start = Instant::now();
    let (desk, board) = (Desk::new(options), Board::default());
    for signal in [SIGINT, SIGTERM] {
        if let Err(error) = signal_hook::flag::register(signal, desk.stop.clone()) {
            eprintln!("no handler for signal {signal}: {error}");
        }
    }
    let working = AtomicBool::new(true);
    thread::scope(|scope| {
        let shown = scope.spawn(|| show(start, &desk, &board, &working));
        let workers = [(); THREADS].map(|()| scope.spawn(|| work(&desk, &board)));
        let ended = workers.map(thread::ScopedJoinHandle::join);
        working.store(false, Ordering::Relaxed);
        // Panics are caught in the jobs.
        drop((ended, shown.join()));
    });
    report(start, &desk, &board)
}

fn report(start: Instant, desk: &Desk, board: &Board) -> ExitCode {
    println!("{}", board.tally());
    println!("time      {:>14.0} s", start.elapsed().as_secs_f64());
    println!("next seed {:>16}", desk.next_seed());
    let failed = board.failed.lock().unwrap_or_else(PoisonError::into_inner);
    for job in failed.iter() {
        println!("FAILED {job:?}\nagain with: cargo xtask torture {}", job.again());
    }
    println!("{} passed, {} failed", u8::from(failed.is_empty()), failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
