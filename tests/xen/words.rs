//! Words that are for the kernel: on its command line, and the tunables that can be set there.

use xtask::error::Result;
use xtask::guest::{Backend, Guest};

use crate::scene::{PATTERN, Scene, Story, ensure};

pub(crate) const STORIES: &[Story] = &[
    ("unknown_words_on_the_kernel_command_line_are_told_once_and_kept", unknown),
    ("every_tunable_is_listed_with_what_it_is_for", tunables),
];

fn unknown(scene: &Scene) -> Result<()> {
    let line =
        "quiet console=hvc0 elevator=noop quiet run=\"cmdline; cat /proc/cmdline; poweroff\"";
    let console = scene.play(&Guest::pvblk("words", line))?;
    let told = "pvblk: warning: unknown on the kernel command line: quiet console=hvc0\r\n";
    ensure(console.contains(told), || console.clone())?;
    ensure(console.matches("pvblk: warning: ").count() == 1, || console.clone())?;
    let shown = console.lines().filter(|it| it.trim_end() == line).count();
    ensure(shown == 2, || format!("shown {shown} times:\n{console}"))
}

/// What is known to be there; each has its own words.
const KEYS: [&str; 8] = [
    "kernel.steal_warn",
    "kernel.version",
    "block.xvda.scheduler",
    "block.xvda.read_expire",
    "block.xvda.write_expire",
    "block.xvda.fifo_batch",
    "block.xvda.writes_starved",
    "block.xvda.front_merges",
];

fn tunables(scene: &Scene) -> Result<()> {
    let guest = Guest::pvblk("tuned", "elevator=deadline run=\"echo begin; sysctl -a; poweroff\"");
    let console = scene.play(&guest.disk(Backend::Pvblk, PATTERN, "xvda", false))?;
    let list = console.split("begin\r\n").nth(1).unwrap_or_default();
    let lines: Vec<&str> = list.lines().take_while(|line| !line.starts_with("pvblk:")).collect();
    for line in &lines {
        let about = line.split_once(" = ").and_then(|(_, rest)| rest.split_once("  # "));
        let words = about.map_or(0, |(_, about)| about.split_whitespace().count());
        ensure(words >= 3, || format!("not a key, a value and what it is for: {line:?}"))?;
    }
    for key in KEYS {
        let found = lines.iter().filter(|line| line.starts_with(&format!("{key} = "))).count();
        ensure(found == 1, || format!("{key} is there {found} times:\n{list}"))?;
    }
    Ok(())
}
