//! Stories on a real Xen: one booted lab, many cases.
//!
//! A boot costs more than most cases, so all of them share one, in order: first those that need no
//! daemon, last the one that stops it. Each case leaves Dom0 as it found it; what it attached and
//! what xenstore holds afterwards is compared. Words on the command line choose cases by name.
//! `cargo xtask test` runs this; alone: `cargo test -p tests --test xen -- [-v] [WORD]…`. With
//! `--icount` the machine counts time by instructions, for the stories that need that; `--every-call`
//! tells the long one of all calls of the daemon.

mod bad_input;
mod boot;
mod calls;
mod counted;
mod elevators;
mod ends;
mod files;
mod guests;
mod isolation;
mod linux;
mod manners;
mod modules;
mod neighbours;
mod partitions;
mod privilege;
mod programs;
mod reboot;
mod resize;
mod scene;
mod share;
mod spite;
mod tables;
mod terminal;
mod trace;
mod typed;
mod words;

use std::process::ExitCode;
use std::time::Instant;

use scene::{Scene, Story};
use xtask::error::{LabError, Result};

/// All stories in the order in which they are told; the daemon is started after the first ones.
/// Those that count instructions need another machine, and are alone there.
fn stories(counted: bool, every_call: bool) -> Vec<(Story, bool)> {
    if every_call {
        return calls::EVERY_CALL.iter().map(|&story| (story, true)).collect();
    }
    if counted {
        let counted = [boot::COUNTED, counted::STORIES].concat();
        return counted.into_iter().map(|story| (story, true)).collect();
    }
    let before = [bad_input::BEFORE_THE_DAEMON, trace::BEFORE_THE_DAEMON].concat();
    let before = before.into_iter().map(|story| (story, false));
    let with = [
        bad_input::STORIES,
        linux::STORIES,
        guests::STORIES,
        manners::STORIES,
        spite::STORIES,
        elevators::STORIES,
        words::STORIES,
        files::STORIES,
        partitions::STORIES,
        modules::STORIES,
        programs::STORIES,
        typed::STORIES,
        resize::STORIES,
        isolation::STORIES,
        reboot::STORIES,
        privilege::STORIES,
        calls::STORIES,
        share::STORIES,
        ends::STORIES,
    ]
    .concat();
    before.chain(with.into_iter().map(|story| (story, true))).collect()
}

fn main() -> ExitCode {
    xtask::interrupt::install();
    let words: Vec<String> = std::env::args().skip(1).collect();
    let verbose = words.iter().any(|word| word == "-v");
    let wanted: Vec<&str> =
        words.iter().filter(|word| !word.starts_with('-')).map(String::as_str).collect();
    let chosen = |name: &str| wanted.is_empty() || wanted.iter().any(|word| name.contains(word));
    let [counted, every_call] =
        ["--icount", "--every-call"].map(|option| words.iter().any(|word| word == option));
    let stories: Vec<_> =
        stories(counted, every_call).into_iter().filter(|story| chosen(story.0.0)).collect();
    if words.iter().any(|word| word == "--list") {
        stories.iter().for_each(|((name, _), _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    match run(&stories, verbose, counted) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error}");
            error.exit_code()
        }
    }
}

/// Tells all stories and gives the number of those that failed. A lab that has crashed ends it.
fn run(stories: &[(Story, bool)], verbose: bool, counted: bool) -> Result<usize> {
    let start = Instant::now();
    let scene = Scene::set(verbose, counted)?;
    println!("lab ready after {:.1} s, logs: {}", seconds(start), scene.lab.logs().display());
    let mut failed = Vec::new();
    let mut before = scene.inventory()?;
    for &((name, tell), with_daemon) in stories {
        let start = Instant::now();
        if with_daemon {
            scene.daemon()?;
        }
        let told = tell(&scene).and_then(|()| scene.assert_same(&before));
        match told {
            Ok(()) => println!("{name} ... ok ({:.1} s)", seconds(start)),
            Err(error @ (LabError::Interrupted | LabError::Missing(_))) => return Err(error),
            Err(error) => {
                failed.push(name);
                println!("{name} ... FAILED ({:.1} s)\n    {error}", seconds(start));
                scene.clear()?;
                before = scene.inventory()?;
            }
        }
    }
    scene.strike()?;
    // Once more at the end, which is what is read first.
    failed.iter().for_each(|name| println!("FAILED {name}"));
    let passed = stories.len() - failed.len();
    println!("{passed} passed, {} failed, {:.0} s", failed.len(), seconds(start));
    Ok(failed.len())
}

fn seconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64()
}
