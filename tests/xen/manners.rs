//! A front without manners on a real Xen: our back tester against our back. Other backs are tested
//! by `cargo xtask run --guest blktest --backend …`: what they do is not for this suite to judge.

use std::time::Duration;

use xtask::error::Result;
use xtask::guest::{Backend, Guest};

use crate::scene::{LINUX, Scene, Story, TREE, ensure};

pub(crate) const STORIES: &[Story] = &[("the_back_tester_succeeds_on_our_back", ours)];

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
