//! Ends without manners on a real Xen: our back tester against our back, and a back that plays tricks
//! against our front. (`cargo xtask run --guest blktest --backend …` tests other backs; what they do
//! is not for this suite to judge.)

use std::time::Duration;

use xtask::error::Result;
use xtask::guest::{Backend, Guest};
use xtask::lab::Job;

use crate::scene::{LINUX, SPITE, Scene, Story, TREE, ensure};

pub(crate) const STORIES: &[Story] = &[
    ("the_back_tester_succeeds_on_our_back", ours),
    ("a_guest_survives_every_trick_of_a_back_and_its_honest_disk_goes_on", tricks),
];

/// A test waits for what must not happen, and some backs do; all of them together take long.
const TIMEOUT: Duration = Duration::from_secs(900);

/// Runs the back tester; gives its console.
fn tested(scene: &Scene, disk: &str, read_only: bool, line: &str) -> Result<String> {
    let guest = Guest::blktest("tester", line).disk(Backend::Pvblk, disk, "xvda", read_only);
    scene.lab.create(&guest)?;
    let status = scene.lab.wait_status("tester", TIMEOUT, |_| {});
    let console = scene.lab.guest_log("tester").replace('\r', "");
    scene.lab.destroy("tester")?;
    status?;
    let results = console.lines().filter(|line| {
        ["SUCCESS ", "SKIP ", "ERROR ", "FAILURE "].iter().any(|word| line.starts_with(word))
            || line.starts_with("Test result: ")
    });
    results.filter(|line| !line.starts_with("SUCCESS")).for_each(|line| println!("    {line}"));
    ensure(console.contains("\nTest result: "), || format!("it did not end:\n{console}"))?;
    Ok(console)
}

fn ours(scene: &Scene) -> Result<()> {
    for (disk, read_only, words) in
        [(LINUX[0], false, ""), (TREE, true, "tests=read_only,past,counts")]
    {
        let console = tested(scene, disk, read_only, words)?;
        ensure(console.contains("\nTest result: SUCCESS"), || console.clone())?;
    }
    Ok(())
}

/// Each trick, and what the guest must say of it.
const TRICKS: [(&str, &str); 12] = [
    ("unknown-id", "xvdb: "),
    ("twice", "xvdc: "),
    ("wrong-operation", "xvdd: "),
    ("wrong-status", "xvde: a read was answered with"),
    ("overflow", "xvdf: "),
    ("backwards", "xvdg: "),
    ("storm", "IOPS"),
    ("garbage", "xvdi: "),
    ("keep", "xvdj: "),
    ("states", ""),
    ("resize", ""),
    ("geometry", "xvdm: "),
];

fn tricks(scene: &Scene) -> Result<()> {
    let letters = 'b'..='m';
    let mut run = "pattern write xvda --seed=3; ".to_owned();
    run.extend(
        letters
            .clone()
            .map(|letter| format!("bench xvd{letter} --rw=randread --iodepth=4 --number_ios=64; ")),
    );
    run.push_str("disks; pattern verify xvda --seed=3; echo survived; selfcheck");
    let guest = Guest { memory_mib: 64, ..Guest::pvblk("patient", &format!("run=\"{run}\"")) };
    scene.lab.create_paused(&guest.disk(Backend::Pvblk, LINUX[1], "xvda", false))?;
    let start = |(letter, (trick, _)): (char, (&str, &str))| -> Result<Job> {
        let command = format!("exec {SPITE} patient xvd{letter} --trick={trick} --timeout=20");
        scene.lab.start_daemon(&command, "waiting")
    };
    let jobs: Vec<Job> = letters.clone().zip(TRICKS).map(start).collect::<Result<_>>()?;
    scene.lab.unpause("patient")?;
    let status = scene.lab.wait_status("patient", TIMEOUT, |_| {});
    let console = scene.lab.guest_log("patient").replace('\r', "");
    for (job, (trick, _)) in jobs.into_iter().zip(TRICKS) {
        let (_, said) = scene.lab.finish(job, TIMEOUT)?;
        println!(
            "    {trick}: {}",
            String::from_utf8_lossy(&said).lines().last().unwrap_or_default()
        );
    }
    scene.lab.destroy("patient")?;
    ensure(status.is_ok_and(|status| status != 4), || format!("the guest crashed:\n{console}"))?;
    ensure(console.contains("\nsurvived"), || console.clone())?;
    for (trick, words) in TRICKS {
        ensure(console.contains(words), || format!("{trick}: no {words:?}:\n{console}"))?;
    }
    ensure(!console.contains(" FAILED"), || console.clone())
}
