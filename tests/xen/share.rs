//! What a guest gets of the machine: its share of a processor, by its own count and by Xen's, and
//! its memory, whatever its neighbours take.

use std::time::Duration;

use xtask::error::Result;
use xtask::guest::{Backend, Guest};

use crate::scene::{GUEST_TIMEOUT, PATTERN, Scene, Story, ensure, fail};

pub(crate) const STORIES: &[Story] = &[
    ("steal_time_is_what_xen_counts_at_shares_of_5_10_33_and_50_percent", steal),
    ("a_guest_uses_all_its_memory_while_a_neighbour_takes_all_it_can", touch),
    ("memory_goes_back_to_xen_and_comes_again_when_the_guest_says_so", balloon),
];

/// The seconds that Xen says a guest has run.
fn seconds_run(scene: &Scene, name: &str) -> Result<f64> {
    let text = scene.dom0(&format!("xl list {name} | awk 'NR==2 {{print $NF}}'"))?;
    text.trim().parse().or_else(|_| fail(format!("xl list says {text:?}")))
}

/// The number before a word of the last line that begins with `up`.
pub(crate) fn uptime(console: &str, nth: usize, word: &str) -> Result<f64> {
    let line = console.lines().filter(|line| line.starts_with("up ")).nth(nth).unwrap_or_default();
    let found = line.split([',', ':']).find_map(|part| part.trim().strip_suffix(word));
    let number = found.and_then(|number| number.trim().parse().ok());
    number.map_or_else(|| fail(format!("no {word} in {line:?} of\n{console}")), Ok)
}

fn steal(scene: &Scene) -> Result<()> {
    for share in [5, 10, 33, 50] {
        let (found, wanted) = stolen(scene, share)?;
        println!("    neighbour has {share} %: st {found:.1} %, by Xen's count {wanted:.1} %");
        ensure((found - wanted).abs() <= 1.0, || format!("st {found}, Xen: {wanted}"))?;
        ensure(found >= f64::from(share) / 2.0, || format!("nobody took time: st {found:.1}"))?;
    }
    Ok(())
}

/// The percentage that a neighbour with this share of their processor takes from a guest while
/// both compute: as the guest says, and as Xen does.
fn stolen(scene: &Scene, share: u32) -> Result<(f64, f64)> {
    let run = "uptime; vmstat 2 5 spin 10000; uptime; echo all-counted; sleep 3000; uptime; \
               echo all-told; sleep 600000";
    let small = |name, run: &str| Guest {
        memory_mib: 16,
        ..Guest::pvblk(name, &format!("run=\"{run}\" sysctl.kernel.steal_warn=100"))
    };
    scene.lab.create_paused(&small("counted", run))?;
    scene.lab.create_paused(&small("spinner", "spin 600000"))?;
    // Both run on the one processor that Dom0 does not have.
    scene.lab.set_share("spinner", share)?;
    scene.lab.set_share("counted", 100 - share)?;
    // By weights alone a guest with a small share was seen to get a quarter of the processor.
    scene.dom0(&format!("xl sched-credit2 -d spinner -c {share}"))?;
    scene.lab.unpause("spinner")?;
    scene.lab.unpause("counted")?;
    scene.lab.wait_guest("counted", "all-counted", GUEST_TIMEOUT)?;
    // It sleeps now, so what Xen says holds until it counts for the third time.
    let ran = seconds_run(scene, "counted")?;
    scene.lab.wait_guest("counted", "all-told", GUEST_TIMEOUT)?;
    let console = scene.lab.guest_log("counted").replace('\r', "");
    scene.lab.destroy("spinner")?;
    scene.lab.destroy("counted")?;
    let spent = |from, to, word| Ok(uptime(&console, to, word)? - uptime(&console, from, word)?);
    let spinning = |word| spent(0, 1, word);
    let busy = spinning(" sy")? + spinning(" us")?;
    let stolen = spinning(" st")?;
    let waited = spinning(" id")? + spinning(" wa")?;
    let all = busy + waited + stolen;
    // What Xen says it ran between the first two counts.
    let ran = ran - uptime(&console, 0, " sy")? - spent(1, 2, " sy")?;
    Ok((stolen / all * 100.0, 100.0 - (ran + waited) / all * 100.0))
}

fn touch(scene: &Scene) -> Result<()> {
    // Its disk too comes up and works, although Xen has nothing for a larger grant table.
    let run = "run=\"free; echo begun; memory touch 4; pattern write xvda; bench xvda --rw=randread \
               --iodepth=32 --number_ios=2000; pattern verify xvda; free; poweroff\"";
    let guest = Guest::pvblk("owner", run).disk(Backend::Pvblk, PATTERN, "xvda", false);
    scene.lab.create_paused(&guest)?;
    // All that Xen has left; what its own bookkeeping needs is found by asking for less.
    let run = "run=\"memory touch 600\"";
    let mut free: u32 = {
        let text = scene.dom0("xl info | awk '/^free_memory/ {print $3}'")?;
        text.trim().parse().or_else(|_| fail(format!("xl info says {text:?}")))?
    };
    let mut hungry = None;
    while hungry.is_none() && free > 64 {
        let guest = Guest { memory_mib: free, ..Guest::pvblk("hungry", run) };
        match scene.lab.create_paused(&guest) {
            Ok(()) => hungry = Some(free),
            Err(_) => free -= 8,
        }
    }
    ensure(hungry.is_some(), || "no neighbour could be created".into())?;
    let left = scene.dom0("xl info | awk '/^free_memory/ {print $3}'")?;
    println!("    neighbour: {free} MiB, left in Xen: {} MiB", left.trim());
    scene.lab.unpause("hungry")?;
    scene.lab.unpause("owner")?;
    let console = scene.outcome("owner")?;
    scene.lab.destroy("hungry")?;
    let totals: Vec<&str> = console.lines().filter(|line| line.starts_with("Mem:")).collect();
    let same = |line: &&str| line.split_whitespace().nth(1) == Some("32768");
    ensure(totals.len() == 2 && totals.iter().all(same), || format!("{totals:?}"))?;
    ensure(console.contains("written and verified"), || console.clone())
}

fn balloon(scene: &Scene) -> Result<()> {
    let run = "run=\"balloon 16M; memory touch; echo small; sleep 2000; balloon 32M; memory touch; \
               balloon 48M; memory touch; memmap; selfcheck; poweroff\" mem=24M";
    let guest = Guest::pvblk("elastic", run);
    scene.lab.create_paused(&guest)?;
    scene.dom0("xl mem-max elastic 48")?;
    scene.lab.unpause("elastic")?;
    scene.lab.wait_guest("elastic", "small", GUEST_TIMEOUT)?;
    let size = "xl list elastic | awk 'NR==2 {print $3}'";
    let small = scene.dom0(size)?;
    let status = scene.lab.wait_status("elastic", GUEST_TIMEOUT, |_| {});
    let (console, large) = (scene.lab.guest_log("elastic"), scene.dom0(size)?);
    scene.lab.destroy("elastic")?;
    ensure(status.is_ok_and(|status| status == 0), || console.clone())?;
    ensure(console.contains("the guest has 24576 KiB"), || format!("no mem=:\n{console}"))?;
    let sizes = (small.trim().to_owned(), large.trim().to_owned());
    ensure(sizes == ("16".into(), "48".into()), || format!("xl list: {sizes:?}"))?;
    let wanted = "Xen: 49152 KiB are reserved for this guest";
    ensure(console.contains(wanted), || console.clone())?;
    refused(scene)
}

/// Below what is used nothing is given back, and nothing is had that Xen does not allow.
fn refused(scene: &Scene) -> Result<()> {
    let run = "run=\"balloon 100k; balloon 64M; memory touch; selfcheck; poweroff\"";
    scene.lab.create(&Guest::pvblk("greedy", run))?;
    let status = scene.lab.wait_status("greedy", Duration::from_secs(120), |_| {});
    let console = scene.lab.guest_log("greedy");
    scene.lab.destroy("greedy")?;
    ensure(status.is_ok_and(|status| status == 1), || console.clone())?;
    let said = ["KiB would have to go, but only", "the guest has 32768 KiB", "Xen has not given"];
    for words in said {
        ensure(console.contains(words), || format!("no {words:?} in\n{console}"))?;
    }
    ensure(!console.contains(" FAILED"), || console.clone())
}
