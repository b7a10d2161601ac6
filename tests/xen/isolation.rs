//! What one guest does is nobody else's business, and what the toolstack does to a guest under
//! load loses nothing that was acknowledged.

use std::time::{Duration, Instant};

use guest_kernel::pattern::Pattern;
use xtask::error::Result;
use xtask::guest::{Backend, Guest};
use xtask::lab::GuestEnd;

use crate::guests::{assert_pattern, on_disk, sum, sum_of, sum_of_disk, vdev};
use crate::neighbours::{BAD, Fate};
use crate::reboot::{domain, next_life, wait_times};
use crate::scene::{
    GUEST_TIMEOUT, LINUX, PATTERN, PATTERN_BYTES, PROMPT, Scene, Story, TREE, ensure, fail,
};

pub(crate) const STORIES: &[Story] = &[
    ("a_hostile_ring_closes_its_own_disk_with_a_reason_and_no_other", hostile),
    ("a_guest_verifies_its_data_while_others_crash_loop_and_are_destroyed", neighbours),
    ("what_xl_is_to_do_with_a_crashed_guest_is_done", on_crash),
    ("a_guest_under_load_that_is_shut_down_keeps_what_was_acknowledged", shut_down),
    ("a_guest_under_load_that_is_destroyed_keeps_what_was_acknowledged", destroyed),
];

/// A guest that writes and verifies all its data over and over. Its end must be with status 0.
struct Steady<'a>(&'a Scene);

impl<'a> Steady<'a> {
    const NAME: &'static str = "steady";

    /// Has it running.
    fn begin(scene: &'a Scene) -> Result<Self> {
        let options = "xvda --seed=6 --generation=6";
        let round = format!("pattern write {options}; pattern verify {options}; ");
        let run = format!("run=\"echo begun; {}poweroff\"", round.repeat(8));
        let guest = Guest::pvblk(Self::NAME, &run).disk(Backend::Pvblk, PATTERN, "xvda", false);
        scene.lab.create(&guest)?;
        scene.lab.wait_guest(Self::NAME, "begun", GUEST_TIMEOUT)?;
        Ok(Self(scene))
    }

    /// The same, or another one if this one is done, so that the next neighbour has one beside it.
    fn go_on(self) -> Result<Self> {
        if self.0.lab.ended(Self::NAME).is_none() {
            return Ok(self);
        }
        let scene = self.0;
        self.end()?;
        Self::begin(scene)
    }

    /// It has found no wrong sector, and neither do we.
    fn end(self) -> Result<()> {
        self.0.outcome(Self::NAME)?;
        let pattern = Pattern { disk: vdev(0), generation: 6, seed: 6 };
        assert_pattern(self.0, PATTERN, pattern, PATTERN_BYTES)
    }
}

fn neighbours(scene: &Scene) -> Result<()> {
    let tree = sum_of_disk(scene, TREE)?;
    let mut steady = Steady::begin(scene)?;
    for bad in &BAD {
        steady = steady.go_on()?;
        scene.lab.create(&bad.guest(TREE))?;
        bad.begun(scene)?;
        if matches!(bad.fate, Fate::IsDestroyed | Fate::Stays) {
            scene.dom0("usleep 500000")?;
        }
        bad.done(scene)?;
        bad.gone(scene)?;
    }
    steady.end()?;
    let now = sum_of_disk(scene, TREE)?;
    ensure(now == tree, || "the disk that was read only has changed".into())
}

/// What a hostile front says of each kind of harm, when its back bears it or closes it.
const VERDICTS: [(&str, &str); 4] = [
    ("index", "the back closed the disk: peer's ring index"),
    ("requests --count=3000", "unsupported, the back serves on"),
    ("storm --count=50000", "50000 events for nothing, the back serves on"),
    ("rubbish", "the back closed the disk: peer's ring index"),
];

fn hostile(scene: &Scene) -> Result<()> {
    let steady = Steady::begin(scene)?;
    let harm: Vec<String> =
        VERDICTS.iter().map(|(kind, _)| format!("hostile xvda {kind}; ")).collect();
    let own = "xvda --seed=1";
    let run = format!(
        "run=\"{}pattern write {own}; pattern verify {own}; selfcheck; poweroff\"",
        harm.concat()
    );
    let guest = Guest::pvblk("hostile", &run).disk(Backend::Pvblk, LINUX[1], "xvda", false);
    let console = scene.play(&guest)?;
    for (kind, verdict) in VERDICTS {
        ensure(console.contains(verdict), || format!("{kind}: no {verdict:?} in\n{console}"))?;
    }
    println!("    {}", console.lines().find(|line| line.contains(" errors, ")).unwrap_or_default());
    steady.end()
}

/// What xl does with a guest that has crashed, by `on_crash`. It crashes when it is told to, so
/// that a second life lasts.
fn on_crash(scene: &Scene) -> Result<()> {
    for action in ["preserve", "destroy", "restart"] {
        let config = Guest::pvblk("mortal", "").config();
        let wanted = format!("on_crash=\"{action}\"");
        let config = config.replace("on_crash=\"preserve\"", &wanted);
        scene.lab.forget("mortal");
        scene.lab.put_bytes(config.as_bytes(), "/tmp/mortal.cfg")?;
        scene.dom0("xl create -q /tmp/mortal.cfg")?;
        scene.lab.wait_guest("mortal", PROMPT, GUEST_TIMEOUT)?;
        let first = domain(scene, "mortal")?.unwrap_or_default();
        scene.dom0(&format!(
            "{{ printf 'crash panic\\r'; sleep 2; }} | \
             xenconsole --interactive --type pv {first} >/dev/null; true"
        ))?;
        let end = scene.lab.wait_end("mortal", GUEST_TIMEOUT, |_| {})?;
        ensure(end == GuestEnd::Crash, || format!("{action}: {end:?}, not a crash"))?;
        let told = format!("Action for shutdown reason code 3 is {action}");
        scene.lab.wait_xl("mortal", &told, GUEST_TIMEOUT)?;
        match action {
            // The state of xl list ends in c: crashed.
            "preserve" => {
                let state = scene.dom0("xl list mortal | awk 'NR==2 {print $5}'")?;
                ensure(state.trim() == "---sc-", || format!("preserved in state {state}"))?;
                ensure(domain(scene, "mortal")? == Some(first), || "another domain".into())?;
            }
            "destroy" => {
                scene.until("it is destroyed", || Ok(domain(scene, "mortal")?.is_none()))?;
            }
            _ => {
                next_life(scene, "mortal", &first, || Ok(()))?;
                wait_times(scene, "mortal", PROMPT, 2)?;
            }
        }
        if action != "destroy" {
            scene.lab.destroy("mortal")?;
        }
    }
    Ok(())
}

/// A guest that writes a pattern over a large disk, again and again: it is never done before it is
/// told to end.
pub(crate) fn writer(name: &str, generation: u32, before: &str) -> Guest {
    let write = format!("pattern write xvda --seed=8 --generation={generation}; ");
    let run = format!("run=\"{before}echo begun; {}\"", write.repeat(12));
    Guest::pvblk(name, &run).disk(Backend::Pvblk, LINUX[0], "xvda", false)
}

/// How many sectors the guest says it has written, all of them if it had begun again, before it was
/// interrupted.
pub(crate) fn written(console: &str) -> Result<u64> {
    let number = |text: &str| text.split(' ').next()?.parse().ok();
    let cut = console.lines().find_map(|line| number(line.split_once("interrupted after ")?.1));
    let all = console.lines().rfind(|line| line.contains(" written and flushed"));
    let all = all.and_then(|line| number(line.split_once("pattern: xvda: ")?.1));
    match cut {
        Some(cut) => Ok(all.unwrap_or(cut)),
        None => fail(format!("it was not interrupted:\n{console}")),
    }
}

/// Fails unless the first sectors of the disk are what was acknowledged.
fn assert_written(scene: &Scene, generation: u32, sectors: u64) -> Result<()> {
    ensure(sectors > 0, || "nothing was written before the end".into())?;
    let pattern = Pattern { disk: vdev(0), generation, seed: 8 };
    let bytes = sectors * 512;
    let found = on_disk(scene, LINUX[0])?;
    let found = usize::try_from(bytes).ok().and_then(|bytes| found.get(..bytes)).map(sum_of);
    let wanted = sum(pattern, bytes);
    ensure(found == Some(wanted), || format!("the first {sectors} sectors are not there"))
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
