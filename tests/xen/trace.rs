//! What a daemon writes down of real guests is what the simulator makes of it.

use tests::replay::{connections, replay};
use xtask::error::{Context, LabError, Result};
use xtask::guest::{Backend, Guest};

use crate::scene::{LINUX, PATTERN, Scene, Story, ensure};

/// It starts a daemon of its own.
pub(crate) const BEFORE_THE_DAEMON: &[Story] =
    &[("a_trace_of_real_guests_gives_the_same_answers_in_the_simulator", traced)];

/// Where the trace is in Dom0.
const TRACE: &str = "/tmp/trace";
/// Requests that each guest sends, at least.
const REQUESTS_MIN: usize = 50;

fn traced(scene: &Scene) -> Result<()> {
    let daemon = scene.lab.start_blkback_with(&format!("--trace {TRACE}"))?;
    let run = "pattern write xvda --seed=3; pattern verify xvda --seed=3; poweroff";
    let ours = Guest::pvblk("traced", &format!("run=\"{run}\""));
    let first = scene.play(&ours.disk(Backend::Pvblk, PATTERN, "xvda", false));
    scene.lab.linux_job(
        "tracedlin",
        "mkfs.ext4 -q -F /dev/xvda && e2fsck -fn /dev/xvda\n",
        false,
    )?;
    let linux = Guest::linux("tracedlin").disk(Backend::Pvblk, LINUX[0], "xvda", false);
    let second = first.and_then(|_| scene.play(&linux));
    scene.lab.stop_blkback(daemon)?;
    second?;
    let bytes = scene.lab.get(TRACE)?;
    scene.dom0(&format!("rm {TRACE}"))?;
    let connections = connections(&bytes).context(|| "the trace".into())?;
    ensure(connections.len() == 2, || format!("{} connections", connections.len()))?;
    for (connection, seed) in connections.iter().zip(1..) {
        let name = &connection.begin.name;
        let replayed = replay(connection, seed);
        let replayed = replayed.map_err(|error| LabError::Failed(format!("{name}: {error}")))?;
        println!("    {name}: {replayed:?} in {} bytes", bytes.len());
        ensure(replayed.requests > REQUESTS_MIN, || format!("{name}: {replayed:?}"))?;
        ensure(replayed.answers == replayed.requests, || format!("{name}: {replayed:?}"))?;
    }
    Ok(())
}
