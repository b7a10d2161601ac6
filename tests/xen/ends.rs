//! Ends on a real Xen: of the guest by its own bug, of the daemon by request and by force.

use std::time::Duration;

use xtask::error::Result;
use xtask::guest::{Backend, Guest, STATUS_LINE};
use xtask::lab::GuestEnd;

use crate::scene::{GUEST_TIMEOUT, Scene, Story, TREE, ensure};

pub(crate) const STORIES: &[Story] = &[
    ("a_guest_that_panics_ends_with_reason_crash_and_a_message", panic),
    ("a_guest_that_faults_ends_with_reason_crash_and_a_dump", fault),
    ("a_daemon_that_is_killed_leaves_nothing_mapped_and_the_next_one_serves", killed),
    ("a_daemon_that_gets_sigterm_drains_its_disks_and_exits_0", terminated),
];

/// Longer than the daemon waits for guests that do not let go.
const GOODBYE: Duration = Duration::from_secs(30);

fn crash(scene: &Scene, how: &str, word: &str) -> Result<()> {
    let name = &format!("bug-{how}");
    let guest = Guest::pvblk(name, &format!("run=\"sha256 xvda --size=4k; crash {how}\""));
    let guest = guest.disk(Backend::Pvblk, TREE, "xvda", true);
    scene.lab.create(&guest)?;
    let end = scene.lab.wait_end(name, GUEST_TIMEOUT, |_| {})?;
    let console = scene.lab.wait_guest(name, STATUS_LINE, GOODBYE)?;
    let reason = scene.dom0(&format!("xl list {name} | awk 'NR==2 {{print $5}}'"))?;
    scene.lab.destroy(name)?;
    ensure(end == GuestEnd::Crash, || format!("{end:?}, not a crash:\n{console}"))?;
    ensure(reason.contains('c'), || format!("xl list shows {reason:?}"))?;
    ensure(console.contains(word), || format!("no {word:?} on the console:\n{console}"))
}

fn panic(scene: &Scene) -> Result<()> {
    crash(scene, "panic", "crash: ")
}

fn fault(scene: &Scene) -> Result<()> {
    crash(scene, "fault", "crash: page fault")
}

/// A guest that reads without end.
fn busy(scene: &Scene, name: &str) -> Result<()> {
    let run = "run=\"echo begun; bench xvda --rw=randread --iodepth=32 --runtime=600\"";
    let guest = Guest::pvblk(name, run).disk(Backend::Pvblk, TREE, "xvda", true);
    scene.lab.create(&guest)?;
    scene.lab.wait_guest(name, "begun", GUEST_TIMEOUT)?;
    scene.dom0("usleep 300000").map(drop)
}

fn killed(scene: &Scene) -> Result<()> {
    busy(scene, "orphan")?;
    scene.dom0("kill -9 $(cat /run/blkback.pid)")?;
    scene.daemon_ended(GOODBYE)?;
    scene.lab.destroy("orphan")?;
    scene.daemon()?;
    let guest = Guest::pvblk("after", "run=\"sha256 xvda --size=64k; poweroff\"");
    scene.play(&guest.disk(Backend::Pvblk, TREE, "xvda", true)).map(drop)
}

fn terminated(scene: &Scene) -> Result<()> {
    busy(scene, "drained")?;
    scene.dom0("kill -TERM $(cat /run/blkback.pid)")?;
    let status = scene.daemon_ended(GOODBYE)?;
    ensure(status == 0, || format!("the daemon's exit code is {status}"))?;
    // What it closed can be taken away without it.
    scene.blkback("detach drained xvda --force")?.ok()?;
    scene.lab.destroy("drained")
}
