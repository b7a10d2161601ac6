//! What one guest does is nobody else's business, and what the toolstack does to a guest under
//! load loses nothing that was acknowledged.

use std::time::{Duration, Instant};

use guest_kernel::pattern::Pattern;
use xtask::error::Result;
use xtask::guest::{Backend, Guest};
use xtask::lab::GuestEnd;

use crate::guests::{assert_pattern, sum, vdev};
use crate::scene::{
    GUEST_TIMEOUT, LINUX, PATTERN, PATTERN_BYTES, Scene, Story, TREE, ensure, fail,
};
use crate::share::uptime;

pub(crate) const STORIES: &[Story] = &[
    ("a_guest_verifies_its_data_while_others_crash_loop_and_are_destroyed", neighbours),
    ("a_guest_under_load_that_is_shut_down_keeps_what_was_acknowledged", shut_down),
    ("a_guest_under_load_that_is_destroyed_keeps_what_was_acknowledged", destroyed),
];

/// Those for a machine whose time is its instructions.
pub(crate) const COUNTED: &[Story] = &[(
    "the_instructions_of_a_guest_for_its_requests_are_the_same_beside_guests_that_crash",
    instructions,
)];

/// How a neighbour ends.
const BUGS: [&str; 4] = ["panic", "fault", "stack", "loop"];

fn neighbours(scene: &Scene) -> Result<()> {
    let options = "xvda --seed=6 --generation=6";
    let round = format!("pattern write {options}; pattern verify {options}; ");
    let run = format!("run=\"echo begun; {}poweroff\"", round.repeat(8));
    let steady = Guest::pvblk("steady", &run).disk(Backend::Pvblk, PATTERN, "xvda", false);
    scene.lab.create(&steady)?;
    scene.lab.wait_guest("steady", "begun", GUEST_TIMEOUT)?;
    for bug in BUGS {
        neighbour(scene, bug)?;
    }
    // At least one round was done while they were there, and one is left, or all are.
    scene.outcome("steady")?;
    let pattern = Pattern { disk: vdev(0), generation: 6, seed: 6 };
    assert_pattern(scene, PATTERN, pattern, PATTERN_BYTES)
}

/// A neighbour that reads and then ends by a bug of its own, or never, and is destroyed.
fn neighbour(scene: &Scene, bug: &str) -> Result<()> {
    let run = format!("run=\"sha256 xvda --size=4k; echo now; crash {bug}\"");
    let guest = Guest::pvblk("bad", &run).disk(Backend::Pvblk, TREE, "xvda", true);
    scene.lab.create(&guest)?;
    if bug == "loop" {
        scene.lab.wait_guest("bad", "now", GUEST_TIMEOUT)?;
        scene.dom0("usleep 1000000")?;
    } else {
        let end = scene.lab.wait_end("bad", GUEST_TIMEOUT, |_| {})?;
        ensure(end == GuestEnd::Crash, || format!("{bug}: {end:?}, not a crash"))?;
    }
    scene.lab.destroy("bad")
}

/// A guest that writes a pattern over a large disk for long.
pub(crate) fn writer(name: &str, generation: u32, before: &str) -> Guest {
    let write = format!("pattern write xvda --seed=8 --generation={generation}");
    let run = format!("run=\"{before}echo begun; {write}\"");
    Guest::pvblk(name, &run).disk(Backend::Pvblk, LINUX[0], "xvda", false)
}

/// How many sectors the guest says it has written before it was interrupted.
pub(crate) fn written(console: &str) -> Result<u64> {
    let line = console.lines().find_map(|line| line.split_once("interrupted after "));
    let number = line.and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
    number.map_or_else(|| fail(format!("it was not interrupted:\n{console}")), Ok)
}

/// Fails unless the first sectors of the disk are what was acknowledged.
fn assert_written(scene: &Scene, generation: u32, sectors: u64) -> Result<()> {
    ensure(sectors > 0, || "nothing was written before the end".into())?;
    let pattern = Pattern { disk: vdev(0), generation, seed: 8 };
    let command = format!(
        "echo 3 >/proc/sys/vm/drop_caches; head -c {} {} | sha256sum",
        sectors * 512,
        LINUX[0]
    );
    let found = scene.dom0(&command)?;
    let wanted = sum(pattern, sectors * 512);
    ensure(found.starts_with(&wanted), || format!("the first {sectors} sectors are not there"))
}

/// The states of both ends of a guest's first disk.
pub(crate) fn states(scene: &Scene, name: &str) -> Result<String> {
    let front = "/local/domain/$(xl domid NAME)/device/vbd/51712".replace("NAME", name);
    let read = format!(
        "F={front}; B=$(xenstore-read $F/backend); \
         echo $(xenstore-read $F/state) $(xenstore-read $B/state)"
    );
    scene.dom0(&read).map(|text| text.trim().to_owned())
}

fn shut_down(scene: &Scene) -> Result<()> {
    scene.lab.create(&writer("load", 1, ""))?;
    scene.lab.wait_guest("load", "begun", GUEST_TIMEOUT)?;
    scene.dom0("usleep 200000; xl shutdown load")?;
    let end = scene.lab.wait_end("load", GUEST_TIMEOUT, |_| {})?;
    let (console, states) = (scene.lab.guest_log("load"), states(scene, "load")?);
    scene.lab.destroy("load")?;
    ensure(end == GuestEnd::PowerOff, || format!("{end:?}:\n{console}"))?;
    ensure(states == "6 6", || format!("the disk's ends are in states {states}:\n{console}"))?;
    let sectors = written(&console)?;
    println!("    {sectors} sectors were written before the end");
    assert_written(scene, 1, sectors)
}

fn destroyed(scene: &Scene) -> Result<()> {
    let run = "run=\"pattern write xvda --seed=9 --generation=9; echo begun; \
               bench xvdb --rw=randwrite --iodepth=32 --runtime=600\"";
    let guest = Guest::pvblk("gone", run).disk(Backend::Pvblk, PATTERN, "xvda", false).disk(
        Backend::Pvblk,
        LINUX[1],
        "xvdb",
        false,
    );
    scene.lab.create(&guest)?;
    scene.lab.wait_guest("gone", "begun", GUEST_TIMEOUT)?;
    scene.dom0("usleep 300000")?;
    scene.lab.destroy("gone")?;
    let pattern = Pattern { disk: vdev(0), generation: 9, seed: 9 };
    assert_pattern(scene, PATTERN, pattern, PATTERN_BYTES)?;
    // The disks can be had again at once.
    let run = "run=\"pattern verify xvda --seed=9 --generation=9; poweroff\"";
    let guest = Guest::pvblk("next", run).disk(Backend::Pvblk, PATTERN, "xvda", true);
    let begin = Instant::now();
    scene.play(&guest)?;
    ensure(begin.elapsed() < Duration::from_secs(120), || "the disk was held for long".into())
}

/// Requests of one measurement.
const REQUESTS: f64 = 3000.0;
/// The most that a neighbour may change, in percent.
const CHANGE_MAX: f64 = 5.0;

fn instructions(scene: &Scene) -> Result<()> {
    let alone = per_request(scene, None)?;
    println!("    alone: {alone:.1} instructions for a request");
    for bug in &BUGS[..3] {
        let beside = per_request(scene, Some(bug))?;
        let change = (beside / alone - 1.0) * 100.0;
        println!("    beside crash {bug}: {beside:.1}, {change:+.2} %");
        ensure(change.abs() < CHANGE_MAX, || format!("{bug}: changed by {change:.2} %"))?;
    }
    Ok(())
}

/// The nanoseconds, which are instructions here, that a guest runs for one request, alone or
/// beside a neighbour on the same processor.
fn per_request(scene: &Scene, bug: Option<&str>) -> Result<f64> {
    let run = "run=\"bench xvda --rw=randread --number_ios=32; uptime; \
               bench xvda --rw=randread --iodepth=32 --number_ios=3000; uptime; poweroff\"";
    let guest = Guest::pvblk("worker", run).disk(Backend::Pvblk, TREE, "xvda", true);
    scene.lab.create_paused(&guest)?;
    if let Some(bug) = bug {
        let bad = Guest::pvblk("bad", &format!("run=\"echo begun; sleep 20; crash {bug}\""));
        scene.lab.create(&bad)?;
        scene.lab.wait_guest("bad", "begun", GUEST_TIMEOUT)?;
    }
    scene.lab.unpause("worker")?;
    let console = scene.outcome("worker")?;
    if bug.is_some() {
        scene.lab.destroy("bad")?;
    }
    let ran = |nth| uptime(&console, nth, " sy");
    Ok((ran(1)? - ran(0)?) * 1e9 / REQUESTS)
}
