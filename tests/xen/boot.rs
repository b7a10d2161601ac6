//! What it costs to bring a guest up.

use xtask::error::Result;
use xtask::guest::{Backend, Guest};
use xtask::timeline;

use crate::counted::anywhere;
use crate::scene::{PATTERN, Scene, Story, ensure, fail};

/// Those for a machine whose time is its instructions.
pub(crate) const COUNTED: &[Story] =
    &[("a_guest_with_a_bare_disk_is_at_its_shell_within_5_million_instructions", shell)];

/// The most instructions from the entry to the first command.
const INSTRUCTIONS_MAX: u64 = 5_000_000;

fn shell(scene: &Scene) -> Result<()> {
    let guest = anywhere(Guest::pvblk("boot", "run=\"timeline; poweroff\""));
    let console = scene.play(&guest.disk(Backend::Pvblk, PATTERN, "xvda", false))?;
    let ran = |name| match timeline::mark(&console, name) {
        Some(mark) => Ok(mark.ran_ns),
        None => fail(format!("no mark {name}:\n{console}")),
    };
    let [ready, disks, shell] = [ran("ready")?, ran("disks")?, ran("shell")?];
    println!("    instructions: ready {ready}, disks connected {disks}, shell {shell}");
    // No time at all would be no count.
    ensure(ready > 0 && shell < INSTRUCTIONS_MAX, || format!("too many, or none:\n{console}"))
}
