//! What a guest's requests cost it beside others, on a machine whose time is its instructions: there
//! a nanosecond is one, and other load on the host changes nothing.

use xtask::error::Result;
use xtask::guest::{Backend, Guest};

use crate::neighbours::{BAD, Neighbour};
use crate::scene::{GUEST_TIMEOUT, Scene, Story, ensure, fail};
use crate::share::uptime;

pub(crate) const STORIES: &[Story] = &[
    (
        "the_instructions_of_a_guest_for_its_requests_are_the_same_beside_bad_neighbours",
        instructions,
    ),
    ("a_guest_starts_and_ends_without_delay_beside_one_that_never_idles", busy),
];

/// Disks in Dom0's memory: how fast the host's are would change how requests come together.
const DISKS: [&str; 2] = ["/dev/ram0", "/dev/ram1"];
/// Requests of one measurement: more than enough for a neighbour to begin and end meanwhile.
const REQUESTS: u32 = 20_000;
/// The most that a neighbour may change, in percent.
const CHANGE_MAX: f64 = 5.0;

fn instructions(scene: &Scene) -> Result<()> {
    ram_disks(scene)?;
    let alone = per_request(scene, None)?;
    println!("    alone: {alone:.1} instructions for a request");
    let mut worst = Vec::new();
    for bad in &BAD {
        let beside = per_request(scene, Some(bad))?;
        let change = (beside / alone - 1.0) * 100.0;
        println!("    {}: {beside:.1}, {change:+.2} %", bad.name);
        if change.abs() >= CHANGE_MAX {
            worst.push(format!("{}: changed by {change:.2} %", bad.name));
        }
    }
    let again = per_request(scene, None)?;
    println!("    alone again: {again:.1}, {:+.2} %", (again / alone - 1.0) * 100.0);
    ensure(worst.is_empty(), || worst.join("\n"))
}

/// Makes the disks, unless they are there.
fn ram_disks(scene: &Scene) -> Result<()> {
    let all = DISKS.join(" ");
    scene.dom0(&format!(
        "modprobe brd rd_nr=2 rd_size=8192 && for d in {all}; do dd if=/dev/zero of=$d bs=1M count=8; \
         done"
    ))?;
    Ok(())
}

/// The nanoseconds, which are instructions here, that a guest runs for one request, alone or
/// beside a neighbour on the same processor, which begins when the measurement has begun. What it
/// reads then is verified at the end.
fn per_request(scene: &Scene, bad: Option<&Neighbour>) -> Result<f64> {
    let run = format!(
        "run=\"pattern write xvda --size=4M; bench xvda --rw=randread --number_ios=32; \
         echo begun; uptime; bench xvda --rw=randread --iodepth=32 --number_ios={REQUESTS}; uptime; \
         pattern verify xvda --size=4M; poweroff\""
    );
    let guest = Guest::pvblk("worker", &run).disk(Backend::Pvblk, DISKS[0], "xvda", false);
    scene.lab.create_paused(&anywhere(guest))?;
    if let Some(bad) = bad {
        scene.lab.create_paused(&anywhere(bad.guest(DISKS[1])))?;
    }
    scene.lab.unpause("worker")?;
    scene.lab.wait_guest("worker", "begun", GUEST_TIMEOUT)?;
    if let Some(bad) = bad {
        meanwhile(scene, bad)?;
    }
    let console = scene.outcome("worker")?;
    if let Some(bad) = bad {
        bad.gone(scene)?;
    }
    let ran = |nth| uptime(&console, nth, " sy");
    Ok((ran(1)? - ran(0)?) * 1e9 / f64::from(REQUESTS))
}

/// The guest on the one processor that there is.
pub(crate) fn anywhere(guest: Guest) -> Guest {
    Guest { beside_dom0: false, ..guest }
}

/// Lets a neighbour begin and do what it does while the worker is at work.
fn meanwhile(scene: &Scene, bad: &Neighbour) -> Result<()> {
    scene.lab.unpause("bad")?;
    bad.begun(scene)?;
    bad.done(scene)?;
    let late = scene.lab.guest_log("worker").matches("\nup ").count() > 1;
    ensure(!late, || format!("{}: the worker was done too early", bad.name))
}

/// The most seconds of the machine for the whole life of a guest that reads a little. Half of them
/// go to the neighbour; less than any patience of the guest's with a back that does not answer.
const LIFE_MAX: f64 = 8.0;

/// A guest that misses an event is woken by its next time limit only: where nobody idles, these are
/// seconds in which the machine computes, and are seen.
fn busy(scene: &Scene) -> Result<()> {
    ram_disks(scene)?;
    scene.lab.create(&anywhere(Guest::pvblk("bad", "run=\"echo now; crash loop\"")))?;
    scene.lab.wait_guest("bad", "now", GUEST_TIMEOUT)?;
    for _ in 0..2 {
        let guest = Guest::pvblk("brief", "run=\"sha256 xvda --size=64k; poweroff\"");
        let guest = guest.disk(Backend::Pvblk, DISKS[0], "xvda", true);
        scene.lab.create_paused(&anywhere(guest))?;
        let begin = seconds_up(scene)?;
        scene.lab.unpause("brief")?;
        let end = scene.lab.wait_end("brief", GUEST_TIMEOUT, |_| {});
        let took = seconds_up(scene)? - begin;
        println!("    from its start to its end: {took:.1} s of the machine");
        scene.outcome("brief")?;
        ensure(end.is_ok() && took < LIFE_MAX, || format!("{took:.1} s, {end:?}"))?;
    }
    scene.lab.destroy("bad")
}

/// How long Dom0 runs, by its own clock.
fn seconds_up(scene: &Scene) -> Result<f64> {
    let text = scene.dom0("cut -d' ' -f1 /proc/uptime")?;
    text.trim().parse().or_else(|_| fail(format!("/proc/uptime says {text:?}")))
}
