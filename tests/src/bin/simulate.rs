//! Tells tales, seed after seed, on all processors, and says what they have seen.
//!
//! Each seed is one thread's from its beginning to its end; threads share nothing but the number of
//! the next seed. Of every hundredth seed the tale is told twice, and must be the same. The first
//! tale that fails ends the run: it is made as short as it can be and shown.

use std::io::{IsTerminal, Write, stderr};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use signal_hook::consts::{SIGINT, SIGTERM};
use tests::{Failure, Score, Script, shrink, tried};

/// One seed in so many is told twice.
const TWICE_ONE_IN: u64 = 100;
/// How long a failing script is made shorter.
const SHRINK_MAX: Duration = Duration::from_secs(60);
/// How often the numbers are shown: on a terminal, and elsewhere.
const SHOWN_EVERY: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(20)];

const EXIT_CODES: &str = "Exit codes: 0 ok · 1 a tale failed · 2 usage · 130 interrupted";

/// Front, back, control planes and disks on the simulated Xen, seed after seed.
#[derive(Parser)]
#[command(name = "simulate", after_help = EXIT_CODES)]
struct Options {
    /// How many seeds; without --minutes 10000
    #[arg(long, value_name = "NUMBER")]
    seeds: Option<u64>,
    /// The first seed
    #[arg(long, env = "SEED", default_value_t = 0, value_name = "NUMBER")]
    seed: u64,
    /// End after so many minutes
    #[arg(long, value_name = "NUMBER")]
    minutes: Option<u64>,
}

/// What the threads share.
struct Run {
    next: AtomicU64,
    end: u64,
    until: Option<Instant>,
    interrupted: Arc<AtomicBool>,
    failed: Mutex<Option<(u64, Failure)>>,
    score: Mutex<Score>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let start = Instant::now();
    let limit = options.minutes.map(|minutes| Duration::from_secs(60 * minutes));
    let seeds = options.seeds.unwrap_or(if limit.is_some() { u64::MAX } else { 10_000 });
    let run = Run {
        next: AtomicU64::new(options.seed),
        end: options.seed.saturating_add(seeds),
        until: limit.map(|limit| start + limit),
        interrupted: Arc::new(AtomicBool::new(false)),
        failed: Mutex::new(None),
        score: Mutex::new(Score::default()),
    };
    for signal in [SIGINT, SIGTERM] {
        if let Err(error) = signal_hook::flag::register(signal, run.interrupted.clone()) {
            eprintln!("warning: no handler for signal {signal}: {error}");
        }
    }
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| run.work())).collect();
        run.watch(start, || workers.iter().all(thread::ScopedJoinHandle::is_finished));
    });
    run.report(start)
}

impl Run {
    /// Tells tales until there is a reason to stop.
    fn work(&self) {
        while !self.is_over() {
            let seed = self.next.fetch_add(1, Ordering::Relaxed);
            let script = Script::of(seed);
            let told = tried(&script).and_then(|outcome| {
                if seed.is_multiple_of(TWICE_ONE_IN) && tried(&script).as_ref() != Ok(&outcome) {
                    let message = "told again the tale is another one".to_owned();
                    return Err(Failure { message, place: String::new() });
                }
                Ok(outcome)
            });
            match told {
                Ok(outcome) => lock(&self.score).add(&outcome.score),
                Err(failure) => {
                    lock(&self.failed).get_or_insert((seed, failure));
                }
            }
        }
    }

    fn is_over(&self) -> bool {
        self.next.load(Ordering::Relaxed) >= self.end
            || self.interrupted.load(Ordering::Relaxed)
            || self.until.is_some_and(|until| Instant::now() >= until)
            || lock(&self.failed).is_some()
    }

    /// Shows how far the run is until it is done: two lines that are rewritten on a terminal, and
    /// elsewhere two lines now and then.
    fn watch(&self, start: Instant, is_done: impl Fn() -> bool) {
        let terminal = stderr().is_terminal();
        let [on_terminal, elsewhere] = SHOWN_EVERY;
        let every = if terminal { on_terminal } else { elsewhere };
        let (mut shown, mut lines) = (Instant::now(), 0);
        while !is_done() {
            thread::sleep(Duration::from_millis(20));
            if shown.elapsed() < every {
                continue;
            }
            shown = Instant::now();
            let [seen, faults] = self.lines(start);
            if terminal {
                // Over the two from before.
                let back = "\u{1b}[A".repeat(lines);
                eprint!("{back}\r{seen}\u{1b}[K\n{faults}\u{1b}[K\n");
                lines = 2;
                // Only shown: whether it could be makes no difference.
                let _ = stderr().flush();
            } else {
                eprintln!("{seen}\n{faults}");
            }
        }
    }

    /// What was seen so far, and what was done badly.
    fn lines(&self, start: Instant) -> [String; 2] {
        let score = lock(&self.score);
        let seconds = start.elapsed().as_secs_f64();
        let rate = score.seeds as f64 / seconds;
        let seen = format!(
            "{seconds:7.0} s  seeds {} ({rate:.0}/s)  I/Os {}  connections {}  pairs of states {}  \
             next seed {}",
            score.seeds,
            score.operations,
            score.connections,
            score.pairs_reached(),
            self.next.load(Ordering::Relaxed),
        );
        let kinds = score.faults_by_kind().map(|(kind, count)| format!("{kind} {count}"));
        [seen, format!("{:9}  faults: {}", "", kinds.join("  "))]
    }

    /// Says what was seen, and how it ended.
    fn report(&self, start: Instant) -> ExitCode {
        let score = lock(&self.score).clone();
        let seconds = start.elapsed().as_secs_f64();
        print!("{score}");
        println!("{seconds:.1} s, {:.0} seeds/s", score.seeds as f64 / seconds);
        println!("go on with: cargo xtask sim --seed={}", self.next.load(Ordering::Relaxed));
        if let Some((seed, failure)) = lock(&self.failed).take() {
            explain(seed, &failure);
            return ExitCode::from(1);
        }
        if self.interrupted.load(Ordering::Relaxed) {
            ExitCode::from(130)
        } else {
            ExitCode::SUCCESS
        }
    }
}

/// Shows a failure and the shortest script that has it.
fn explain(seed: u64, failure: &Failure) {
    println!("\nSEED={seed}: {failure}");
    println!("again: cargo xtask sim --seeds=1 --seed={seed}");
    let script = Script::of(seed);
    let small = shrink(&script, SHRINK_MAX, |script| {
        tried(script).is_err_and(|other| other.place == failure.place)
    });
    let (acts, of) = (small.acts.len(), script.acts.len());
    println!("the shortest script found that fails there, {acts} acts of {of}:\n{small}");
    if let Err(failure) = tried(&small) {
        println!("  {failure}");
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
