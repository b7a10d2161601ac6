//! Every input that the fuzzer keeps, without the fuzzer: the corpus of each target, each input that
//! once failed as a test of its own name, and some inputs by chance.
//!
//! Words on the command line choose by name: `cargo test -p tests --test fuzz -- ring`.

use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use sim::Random;
use tests::fuzz::{Share, TARGETS, Target, corpus};

/// An input that takes longer has failed, however it ends. The fuzzer's own limit is lower, for an
/// optimized build on a quiet machine.
const INPUT_MAX: Duration = Duration::from_secs(60);

/// Inputs by chance for each target; the seed is `SEED`, or always the same.
const BY_CHANCE: usize = 400;

/// How many of 100 things that are made by chance are valid: three quarters, and what is left to
/// chance.
const VALID: RangeInclusive<u64> = 68..=82;

/// A test: its name, and the inputs that are to pass.
struct Test {
    name: String,
    target: Target,
    inputs: Vec<corpus::Input>,
    /// Which part of what is made of them is to be valid, of 100.
    valid: RangeInclusive<u64>,
}

fn tests() -> Vec<Test> {
    let mut tests = Vec::new();
    for target in TARGETS {
        let mut add = |kind: &str, file: &str, inputs, valid| {
            let name = format!("{kind}/{}{file}", target.0);
            tests.push(Test { name, target, inputs, valid });
        };
        for (file, bytes) in corpus::regressions(target.0) {
            add("regressions", &format!("/{file}"), vec![(file, bytes)], 0..=100);
        }
        let mut inputs = corpus::corpus(target.0);
        // Nothing at all is an input too.
        inputs.push(("nothing".into(), Vec::new()));
        add("corpus", "", inputs, 0..=100);
        add("chance", "", by_chance(), VALID);
    }
    tests
}

fn by_chance() -> Vec<corpus::Input> {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let mut random = Random::new(seed);
    let mut input = |number| {
        let bytes: Vec<u8> =
            (0..20 + random.below(600)).map(|_| random.next().to_le_bytes()[0]).collect();
        (format!("seed-{seed}-number-{number}"), bytes)
    };
    (0..BY_CHANCE).map(&mut input).collect()
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let wanted: Vec<&String> = words.iter().filter(|word| !word.starts_with('-')).collect();
    let chosen = |name: &str| wanted.is_empty() || wanted.iter().any(|word| name.contains(*word));
    let chosen: Vec<Test> = tests().into_iter().filter(|test| chosen(&test.name)).collect();
    if words.iter().any(|word| word == "--list") {
        chosen.iter().for_each(|test| println!("{}: test", test.name));
        return ExitCode::SUCCESS;
    }
    let failed = chosen.iter().filter(|test| !test.passes()).count();
    println!("test result: {} passed; {failed} failed", chosen.len() - failed);
    ExitCode::from(u8::from(failed > 0))
}

impl Test {
    /// Runs all inputs; those that fail are kept where their path says.
    fn passes(&self) -> bool {
        let Self { name, target: (target, check), inputs, valid } = self;
        let mut share = Share::default();
        let mut held = |bytes: &[u8]| {
            let begin = Instant::now();
            let checked = catch_unwind(AssertUnwindSafe(|| check(bytes)));
            checked.map(|part| share += part).is_ok() && begin.elapsed() < INPUT_MAX
        };
        let bad: Vec<&corpus::Input> = inputs.iter().filter(|input| !held(&input.1)).collect();
        let Share { valid: made, all } = share;
        let percent = (made * 100).checked_div(all).unwrap_or(100);
        let passes = bad.is_empty() && valid.contains(&percent);
        let result = if passes { "ok" } else { "FAILED" };
        println!("test {name} ... {result} ({} inputs, {made} of {all} valid)", inputs.len());
        for (file, bytes) in &bad {
            let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{target}-{file}"));
            let kept = std::fs::write(&path, bytes).map(|()| path.display().to_string());
            println!("    {file} fails: {}", kept.unwrap_or_else(|error| error.to_string()));
        }
        passes
    }
}
