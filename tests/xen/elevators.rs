//! Elevators on a real Xen: chosen on the command line, changed while the guest runs, and with the
//! same data on the disk in the end.

use guest_kernel::pattern::Pattern;
use xtask::error::Result;
use xtask::guest::{Backend, Guest};

use crate::guests::{assert_pattern, vdev};
use crate::scene::{PATTERN, PATTERN_BYTES, Scene, Story, ensure};

pub(crate) const STORIES: &[Story] = &[
    ("an_elevator_is_chosen_at_boot_and_changed_at_work", changed),
    ("an_elevator_that_is_none_is_told_and_is_noop", unknown),
];

fn told(console: &str, line: &str) -> Result<()> {
    ensure(console.lines().any(|it| it.trim_end() == line), || {
        format!("no line {line:?} in:\n{console}")
    })
}

fn changed(scene: &Scene) -> Result<()> {
    let options = "xvda --seed=6 --generation=6";
    let run = format!(
        "sysctl block.xvda.scheduler block.xvda.read_expire; \
         bench xvda --rw=randrw --iodepth=200 --number_ios=2000; \
         sysctl block.xvda.scheduler=noop; sysctl block.xvda.scheduler; \
         bench xvda --rw=randrw --iodepth=200 --number_ios=2000; \
         sysctl block.xvda.scheduler=deadline; \
         pattern write {options}; pattern verify {options}; poweroff"
    );
    let words = "elevator.xvda=deadline sysctl.block.xvda.read_expire=250";
    let guest = Guest::pvblk("elevators", &format!("{words} run=\"{run}\""));
    let console = scene.play(&guest.disk(Backend::Pvblk, PATTERN, "xvda", false))?;
    told(&console, "block.xvda.scheduler = noop [deadline]")?;
    told(&console, "block.xvda.read_expire = 250")?;
    told(&console, "block.xvda.scheduler = [noop] deadline")?;
    for elevator in ["noop", "deadline"] {
        let figure = format!("\"scheduler\":\"{elevator}\"");
        ensure(console.contains(&figure), || format!("no {figure} in:\n{console}"))?;
    }
    let pattern = Pattern { disk: vdev(0), generation: 6, seed: 6 };
    assert_pattern(scene, PATTERN, pattern, PATTERN_BYTES)
}

fn unknown(scene: &Scene) -> Result<()> {
    let guest = Guest::pvblk("cfq", "elevator=cfq run=\"sysctl block.xvda.scheduler; poweroff\"");
    let console = scene.play(&guest.disk(Backend::Pvblk, PATTERN, "xvda", false))?;
    told(&console, "pvblk: elevator=cfq: no such elevator: there is noop, deadline; noop is used")?;
    told(&console, "block.xvda.scheduler = [noop] deadline")
}
