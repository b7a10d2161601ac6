//! A back without manners on a real Xen: `spite` against our front. What other fronts make of it is
//! not for this suite to judge.

use xtask::error::Result;
use xtask::guest::{Backend, Guest};
use xtask::lab::Job;

use crate::scene::{GUEST_TIMEOUT, SPITE, Scene, Story, TREE, ensure};

pub(crate) const STORIES: &[Story] =
    &[("a_guest_survives_every_trick_of_its_backs_and_uses_its_good_disk", ours)];

/// The tricks, and whether the disk can still be used afterwards: by closing, or by taking the
/// directory away, even a back with manners would end it.
const TRICKS: [(&str, bool); 13] = [
    ("unknown-id", false),
    ("twice", false),
    ("wrong-operation", false),
    ("wrong-status", false),
    ("overflow", false),
    ("backwards", false),
    ("garbage", false),
    ("keep", false),
    ("vanish", false),
    ("geometry", false),
    ("storm", true),
    ("states", false),
    ("resize", true),
];
/// The disk of the trick that a front can only wait for.
const SILENT: &str = "xvdn";
/// The disk of a back with manners.
const GOOD: &str = "xvdo";
/// How long a back waits for its guest, in seconds.
const PATIENCE: u64 = 600;

fn name(nth: usize) -> String {
    format!("xvd{}", char::from(b'a'.saturating_add(u8::try_from(nth).unwrap_or(u8::MAX))))
}

fn start(scene: &Scene, disk: &str, trick: &str) -> Result<Job> {
    let command = format!("{SPITE} plagued {disk} --trick={trick} --after=2 --timeout={PATIENCE}");
    scene.lab.start_daemon(&command, "waiting for the front")
}

fn ours(scene: &Scene) -> Result<()> {
    let reads: Vec<String> =
        (0..TRICKS.len()).map(|nth| format!("sha256 {} --size=192k", name(nth))).collect();
    let run = format!(
        "run=\"{}; sha256 {GOOD} --size=64k; echo survived; sha256 {SILENT}\"",
        reads.join("; ")
    );
    let guest = Guest::pvblk("plagued", &run).disk(Backend::Pvblk, TREE, GOOD, true);
    scene.lab.create_paused(&guest)?;
    let tricks = TRICKS.iter().map(|(trick, _)| *trick).chain(["silence"]);
    let mut jobs = Vec::new();
    for (nth, trick) in tricks.enumerate() {
        jobs.push((trick, start(scene, &name(nth), trick)?));
    }
    scene.lab.unpause("plagued")?;
    let console = scene.lab.wait_guest("plagued", "survived\r\n", GUEST_TIMEOUT)?;
    scene.lab.destroy("plagued")?;
    for (trick, job) in jobs {
        scene.lab.kill(job)?;
        let (_, text) = scene.lab.finish(job, GUEST_TIMEOUT)?;
        let text = String::from_utf8_lossy(&text);
        let played = text.contains(" requests") || text.contains(": the front ended in state");
        ensure(played || trick == "silence", || format!("{trick} was not played: {text}"))?;
    }
    scene.dom0("xenstore-rm /local/domain/0/backend/spite")?;
    let read = |disk: &str| console.contains(&format!("  {disk}\r\n"));
    ensure(read(GOOD), || format!("the good disk is not read:\n{console}"))?;
    for (nth, (trick, usable)) in TRICKS.iter().enumerate() {
        let disk = name(nth);
        let told = console.contains(&format!("sha256: {disk}: "));
        ensure(told && read(&disk) == *usable, || format!("{disk} after {trick}:\n{console}"))?;
    }
    Ok(())
}
