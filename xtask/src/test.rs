//! `cargo xtask test`: every gate that a change has to pass, in one command and in order of cost.
//!
//! A failing gate does not stop the others: one run tells all that is wrong. The whole output of each
//! gate is kept in a log file; the terminal shows one line per gate, and the end of what failed.

use std::env;
use std::fs::{self, File};
use std::io::{Write, stderr};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group, setpriority_process};

use crate::error::{Context, LabError, Result};
use crate::fuzz;
use crate::host::{self, Host, TRIAL};
use crate::setup::KERNEL_TARGET;
use crate::sim::Sim;
use crate::torture::Torture;
use crate::{build, interrupt, lab, packages, setup, smoke};

/// No gate may take longer than this.
const GATE_TIMEOUT: Duration = Duration::from_secs(40 * 60);

/// How many seeds the simulator runs: about four minutes of two processors.
const SIM_SEEDS: u64 = 100_000;

/// How many schedules Miri tries: half a minute of a processor each.
const MIRI_SEEDS: u32 = 3;

/// How long the fuzzer looks at each target.
const FUZZ_SECONDS: u64 = 60;

/// Gates that run at the same time as the one before them, in a lane of their own: a lab leaves most
/// of a processor to others. Two labs with half of the stories each were not sooner done than one.
const BESIDE: [&str; 3] = ["builds", "counted", "loom"];

/// Gates that come next in the lane of the one before them.
const BEHIND: [&str; 3] = ["fuzz", "miri", "sim"];

/// Gates that take what the others leave of the processors: nothing waits for them.
const YIELDING: [&str; 3] = ["loom", "miri", "sim"];
const YIELDING_NICE: i32 = 10;

/// How much of a failed gate's output is shown.
const SHOWN_LINES: usize = 60;

/// One gate: a name, and what it runs.
struct Gate {
    name: &'static str,
    check: Check,
}

enum Check {
    /// A command that succeeds.
    Command(Command),
    /// What the labs and the fuzzer need, built.
    Builds,
    /// Our kernel alone on Xen.
    Smoke,
}

/// How many checks passed and failed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Tests and gates that passed.
    pub passed: u32,
    /// Tests and gates that failed.
    pub failed: u32,
}

/// The names of all gates, in order.
pub fn names() -> Vec<&'static str> {
    gates().iter().map(|gate| gate.name).collect()
}

/// Runs the gates whose names contain one of the `words` (all, if there are none); gives the tally.
///
/// Errors: only what ends the run, such as Ctrl-C or a missing tool; a failed gate is in the tally.
pub fn run(host: Host, words: &[String]) -> Result<Tally> {
    let start = Instant::now();
    let chosen =
        |gate: &Gate| words.is_empty() || words.iter().any(|word| gate.name.contains(word));
    let mut gates: Vec<Gate> = gates().into_iter().filter(chosen).collect();
    if gates.is_empty() {
        return Err(LabError::Usage(format!("no such gate; there are: {}", names().join(" "))));
    }
    setup::ensure(host)?;
    if gates.iter().any(|gate| gate.name == "miri") {
        setup::miri(host)?;
    }
    if gates.iter().any(|gate| matches!(gate.name, "smoke" | "xen" | "counted")) {
        lab::prepare(host)?;
    }
    if let Some(Gate { check: Check::Command(cargo), .. }) =
        gates.iter_mut().find(|gate| gate.name == "test")
    {
        cargo.env("XEN_HEADERS", packages::ensure(host)?.headers());
    }
    eprintln!("{:7.1} s  set-up", start.elapsed().as_secs_f64());
    let logs = lab::new_logs("test")?;
    fs::create_dir_all(&logs).context(|| format!("making {}", logs.display()))?;
    let mut total = Tally::default();
    for lanes in arranged(gates) {
        for tally in pass_together(host, lanes, &logs)? {
            total.passed += tally.passed;
            total.failed += tally.failed;
        }
    }
    eprintln!("{:7.1} s  in all; logs: {}", start.elapsed().as_secs_f64(), logs.display());
    println!("{} passed, {} failed", total.passed, total.failed);
    Ok(total)
}

fn gates() -> Vec<Gate> {
    let command = |name, arguments: &[&str]| {
        let mut cargo = host::cargo();
        cargo.args(arguments);
        Gate { name, check: Check::Command(cargo) }
    };
    let strict = ["--", "-D", "warnings"];
    let own = ["-p", "guest-kernel", "-p", "guest-programs"];
    let kernel = [&["clippy"][..], &own, &["--bins", "--target", KERNEL_TARGET]].concat();
    let all_modules = build::MODULES.iter().flat_map(|name| ["-p", name]);
    let modules = ["clippy", "--lib", "--target", KERNEL_TARGET].into_iter().chain(all_modules);
    let modules: Vec<&str> = modules.collect();
    // `--all-targets` passes over a target that `cargo test` does not run by itself.
    let xen = ["clippy", "-p", "tests", "--test", "xen"];
    let told = ["test", "-p", "tests", "--test", "xen"];
    let seeds = Sim { seeds: Some(SIM_SEEDS), ..Sim::default() };
    vec![
        command("fmt", &["fmt", "--all", "--check"]),
        command("clippy", &[&["clippy", "--all-targets"][..], &strict].concat()),
        command("clippy-kernel", &[&kernel[..], &strict].concat()),
        command("clippy-modules", &[&modules[..], &strict].concat()),
        command("clippy-xen", &[&xen[..], &strict].concat()),
        Gate { name: "doc", check: Check::Command(doc()) },
        // With the kernel's library, which is no default member.
        command("test", &["test", "--workspace", "--no-fail-fast"]),
        Gate { name: "complete", check: Check::Command(complete()) },
        Gate { name: "orders", check: Check::Command(orders()) },
        Gate { name: "torture", check: Check::Command(Torture::default().command()) },
        Gate { name: "smoke", check: Check::Smoke },
        Gate { name: "builds", check: Check::Builds },
        command("xen", &told),
        command("counted", &[&told[..], &["--", "--icount"]].concat()),
        Gate { name: "fuzz", check: Check::Command(fuzz()) },
        Gate { name: "loom", check: Check::Command(loom()) },
        Gate { name: "miri", check: Check::Command(miri()) },
        Gate { name: "sim", check: Check::Command(seeds.command()) },
    ]
}

fn doc() -> Command {
    let mut cargo = host::cargo();
    cargo.args(["doc", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings");
    cargo
}

/// Every interleaving of the notification protocol. Its own target folder: another cfg would rebuild
/// everything at each change of gate. Not that of the orders: cargo takes their `ring` for ours.
fn loom() -> Command {
    let mut cargo = host::cargo();
    cargo.args(["test", "-p", "ring", "--profile", TRIAL, "--test", "loom", "--target-dir"]);
    cargo.arg(host::target().join("loom")).env("RUSTFLAGS", "--cfg loom");
    cargo
}

/// Every value of an index, of which there are few in this build. As above for the folder.
fn complete() -> Command {
    let mut cargo = host::cargo();
    cargo.args(["test", "-p", "ring", "--release", "--test", "complete", "--target-dir"]);
    cargo.arg(host::target().join("narrow")).env("RUSTFLAGS", "--cfg narrow");
    cargo
}

/// The part of `cargo xtask orders` that is quick.
fn orders() -> Command {
    let mut ourselves = ourselves();
    ourselves.args(["orders", "--fences"]);
    ourselves
}

/// Every target of the fuzzer, on what the labs leave of the processors: with more of them at a time
/// the stories on real Xen, which take longest, would wait.
fn fuzz() -> Command {
    let mut ourselves = ourselves();
    ourselves.args(["fuzz", "--seconds", &FUZZ_SECONDS.to_string(), "--at-a-time", "2"]);
    ourselves
}

fn ourselves() -> Command {
    Command::new(env::current_exe().unwrap_or_else(|_| "xtask".into()))
}

/// Two threads under Miri, scheduled by some seeds, unless `MIRIFLAGS` says how many. Who borrows what
/// is not looked at: there is no `unsafe` in that crate, and each borrow of a page would cost a walk over
/// all its words.
fn miri() -> Command {
    let mut command = host::nightly();
    command.args(["cargo", "miri", "test", "-p", "ring", "--test", "threads", "--target-dir"]);
    command.arg(host::target().join("miri"));
    if env::var_os("MIRIFLAGS").is_none() {
        let seeds = format!("-Zmiri-disable-stacked-borrows -Zmiri-many-seeds=0..{MIRI_SEEDS}");
        command.env("MIRIFLAGS", seeds);
    }
    command
}

/// The gates in groups of lanes: one group after the other, the lanes of a group at the same time.
fn arranged(gates: Vec<Gate>) -> Vec<Vec<Vec<Gate>>> {
    let mut groups: Vec<Vec<Vec<Gate>>> = Vec::new();
    for gate in gates {
        match groups.last_mut() {
            Some(lanes) if BESIDE.contains(&gate.name) => lanes.push(vec![gate]),
            Some(lanes) if BEHIND.contains(&gate.name) => match lanes.last_mut() {
                Some(lane) => lane.push(gate),
                None => lanes.push(vec![gate]),
            },
            _ => groups.push(vec![vec![gate]]),
        }
    }
    groups
}

/// Runs lanes of gates at the same time; gives how each gate went.
fn pass_together(host: Host, lanes: Vec<Vec<Gate>>, logs: &Path) -> Result<Vec<Tally>> {
    let names: Vec<&str> = lanes.iter().flatten().map(|gate| gate.name).collect();
    eprint!("           {:14}", names.join(" + "));
    // Only so that the names are seen while the gates run.
    let _ = stderr().flush();
    let pass_lane = |lane: Vec<Gate>| -> Result<Vec<Tally>> {
        lane.into_iter().map(|gate| pass(host, gate, logs)).collect()
    };
    let results = thread::scope(|scope| {
        let start = |lane| scope.spawn(move || pass_lane(lane));
        let running: Vec<_> = lanes.into_iter().map(start).collect();
        running.into_iter().map(thread::ScopedJoinHandle::join).collect::<Vec<_>>()
    });
    let died = |_| LabError::Failed("a gate panicked".into());
    let lanes = results.into_iter().map(|result| result.map_err(died)?);
    Ok(lanes.collect::<Result<Vec<_>>>()?.concat())
}

/// Runs one gate and says how it went.
fn pass(host: Host, gate: Gate, logs: &Path) -> Result<Tally> {
    let start = Instant::now();
    let log = logs.join(format!("{}.log", gate.name));
    let (result, output) = match gate.check {
        Check::Command(mut command) => {
            captured(host, &mut command, &log, YIELDING.contains(&gate.name))
        }
        Check::Builds => (built(host), String::new()),
        Check::Smoke => (smoked(host), String::new()),
    };
    if let Err(error @ (LabError::Interrupted | LabError::Missing(_))) = result {
        eprintln!();
        return Err(error);
    }
    let counted = tally(&output);
    let seconds = start.elapsed().as_secs_f64();
    let word = if result.is_ok() { "ok" } else { "FAILED" };
    let tests =
        if counted.passed > 0 { format!("  {} tests", counted.passed) } else { String::new() };
    eprintln!("\r{seconds:7.1} s  {:14} {word}{tests}", gate.name);
    if let Err(error) = &result {
        eprintln!("{error}\n{}", end_of(&output));
        return Ok(Tally { failed: counted.failed.max(1), ..counted });
    }
    Ok(Tally { passed: counted.passed.max(1), ..counted })
}

/// For Dom0 first: the kernel is built meanwhile, in another folder.
fn built(host: Host) -> Result<()> {
    build::agent(host)?;
    build::blkback(host)?;
    build::guest_programs(host)?;
    fuzz::build(host).map(drop)
}

fn smoked(host: Host) -> Result<()> {
    let machine = smoke::prepare(host, &[])?;
    match smoke::run(host, &machine)? {
        0 => Ok(()),
        status => Err(LabError::Failed(format!("the kernel's exit status is {status}"))),
    }
}

/// Runs a command with its output into a log file; gives its result and its output.
fn captured(host: Host, command: &mut Command, log: &Path, yields: bool) -> (Result<()>, String) {
    let result = finished(host, command, log, yields);
    (result, fs::read_to_string(log).unwrap_or_default())
}

fn finished(host: Host, command: &mut Command, log: &Path, yields: bool) -> Result<()> {
    let line = host::command_line(command);
    if host.verbose {
        eprintln!("\n$ {line}");
    }
    let file = File::create(log).context(|| format!("making {}", log.display()))?;
    command.stdout(file.try_clone().context(|| line.clone())?).stderr(file);
    // Its own group, so that a gate that takes too long ends with all that it started.
    std::os::unix::process::CommandExt::process_group(command, 0);
    let mut child =
        command.spawn().map_err(|error| LabError::Missing(format!("{line}: {error}")))?;
    let group = Pid::from_child(&child);
    if yields {
        // It only takes longer for the others if it cannot be had.
        let _ = setpriority_process(Some(group), YIELDING_NICE);
    }
    let limit = Instant::now() + GATE_TIMEOUT;
    loop {
        if let Some(status) = child.try_wait().context(|| line.clone())? {
            return if status.success() {
                Ok(())
            } else {
                Err(LabError::Failed(format!("{line}: {status}")))
            };
        }
        let late = Instant::now() > limit;
        if late || interrupt::check().is_err() {
            // Asked first: a lab in there ends its QEMU when it is interrupted.
            let _ = kill_process_group(group, Signal::INT);
            thread::sleep(Duration::from_secs(2));
            let _ = kill_process_group(group, Signal::KILL);
            child.wait().context(|| line.clone())?;
            interrupt::check()?;
            return Err(LabError::TimedOut { what: line, tail: Vec::new() });
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// Adds up the lines that say `N passed` and `M failed`.
fn tally(output: &str) -> Tally {
    let before = |line: &str, word: &str| -> Option<u32> {
        line.split(word).next()?.split(' ').next_back()?.parse().ok()
    };
    let lines = output.lines().filter(|line| line.contains(" passed") && line.contains(" failed"));
    lines.fold(Tally::default(), |sum, line| Tally {
        passed: sum.passed + before(line, " passed").unwrap_or(0),
        failed: sum.failed + before(line, " failed").unwrap_or(0),
    })
}

fn end_of(output: &str) -> String {
    let lines: Vec<&str> = output.lines().collect();
    lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_counted_over_all_binaries_and_in_both_spellings() {
        let output = "test result: ok. 12 passed; 0 failed; 0 ignored\n\
                      test a_thing_that_passed ... ok\n\
                      test result: FAILED. 3 passed; 2 failed; 0 ignored\n\
                      7 passed, 1 failed, 90 s\n";
        assert_eq!(tally(output), Tally { passed: 22, failed: 3 });
    }

    #[test]
    fn the_fuzzer_follows_the_counted_stories_beside_the_others() {
        let names = |groups: Vec<Vec<Vec<Gate>>>| -> Vec<Vec<Vec<&str>>> {
            let lane = |lane: Vec<Gate>| lane.iter().map(|gate| gate.name).collect();
            let group = |lanes: Vec<Vec<Gate>>| lanes.into_iter().map(lane).collect();
            groups.into_iter().map(group).collect()
        };
        let last = names(arranged(gates())).pop().unwrap_or_default();
        assert_eq!(last, [vec!["xen"], vec!["counted", "fuzz"], vec!["loom", "miri", "sim"]]);
        let chosen = gates().into_iter().filter(|gate| BEHIND.contains(&gate.name)).collect();
        assert_eq!(names(arranged(chosen)), [[["fuzz", "miri", "sim"]]]);
    }

    #[test]
    fn every_gate_has_its_own_name_and_an_unknown_one_is_a_usage_error() {
        let mut sorted = names();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), names().len());
        let error = run(Host::default(), &["no-such-gate".to_owned()]).unwrap_err();
        assert_eq!(error.code(), 2);
    }
}
