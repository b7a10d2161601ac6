//! What the backend may do in Dom0, and what is lost when a part of it dies.

use guest_kernel::pattern::Pattern;
use xtask::build;
use xtask::error::{Context, Result};
use xtask::guest::{Backend, Guest};
use xtask::host::Host;

use crate::guests::{assert_pattern, vdev};
use crate::scene::{
    BYSTANDER, GUEST_TIMEOUT, PATTERN, PATTERN_BYTES, Scene, Story, TREE, ensure, fail,
};

pub(crate) const STORIES: &[Story] = &[
    ("the_daemon_and_its_devices_have_given_up_their_rights", rights),
    ("forbidden_calls_are_refused_by_dom0s_kernel", forbidden),
    ("an_image_outside_the_folders_is_refused_with_the_option_to_use", outside),
    ("a_device_whose_process_is_killed_takes_no_other_along", killed),
];

/// The user of the processes that serve.
const NOBODY: &str = "65534";

/// A guest that reads without end.
fn busy(scene: &Scene, name: &str) -> Result<()> {
    let run = "run=\"echo begun; bench xvda --rw=randread --iodepth=32 --runtime=600\"";
    let guest = Guest::pvblk(name, run).disk(Backend::Pvblk, TREE, "xvda", true);
    scene.lab.create(&guest)?;
    scene.lab.wait_guest(name, "begun", GUEST_TIMEOUT)?;
    scene.dom0("usleep 300000").map(drop)
}

/// The process of a guest's only device.
fn process_of(scene: &Scene, guest: &str) -> Result<String> {
    // The brackets keep the search from finding itself.
    let found = scene.dom0(&format!(
        "ps -o pid,args | awk \"/devic[e] $(xl domid {guest})\\\\//\"' {{print $1}}'"
    ))?;
    match found.split_whitespace().collect::<Vec<_>>()[..] {
        [process] => Ok(process.into()),
        _ => fail(format!("processes of {guest}: {found:?}")),
    }
}

/// What the kernel says of a process, each line without blanks.
struct Status(String);

impl Status {
    fn read(scene: &Scene, process: &str) -> Result<Self> {
        scene.dom0(&format!("cat /proc/{process}/status")).map(Self)
    }

    fn is(&self, key: &str, wanted: &[&str]) -> Result<()> {
        let line = self.0.lines().find_map(|line| line.strip_prefix(key));
        let words: Vec<&str> = line.unwrap_or_default().split_whitespace().collect();
        ensure(words == wanted, || format!("{key} {words:?}, not {wanted:?}"))
    }
}

/// What a process may have at most of something, whatever it does.
fn limits(scene: &Scene, process: &str, wanted: &[(&str, u64)]) -> Result<()> {
    let text = scene.dom0(&format!("cat /proc/{process}/limits"))?;
    for (what, most) in wanted {
        let line = text.lines().find_map(|line| line.strip_prefix(what)).unwrap_or_default();
        // The soft limit and the hard one.
        let found: Vec<&str> = line.split_whitespace().take(2).collect();
        let most = most.to_string();
        ensure(found == [&most, &most], || format!("{what}: {found:?}, not {most}"))?;
    }
    Ok(())
}

fn descriptors(scene: &Scene, process: &str) -> Result<Vec<String>> {
    let list = scene.dom0(&format!("for f in /proc/{process}/fd/*; do readlink $f; done"))?;
    Ok(list.lines().map(str::to_owned).collect())
}

fn rights(scene: &Scene) -> Result<()> {
    busy(scene, "served")?;
    let device = process_of(scene, "served")?;
    let status = Status::read(scene, &device)?;
    for (key, wanted) in [
        ("Uid:", &[NOBODY; 4][..]),
        ("Gid:", &[NOBODY; 4]),
        ("Groups:", &[]),
        ("CapPrm:", &["0000000000000000"]),
        ("CapEff:", &["0000000000000000"]),
        ("NoNewPrivs:", &["1"]),
        ("Seccomp:", &["2"]),
        ("Threads:", &["1"]),
    ] {
        status.is(key, wanted)?;
    }
    let own = [("Max address space", 128 << 20), ("Max open files", 16), ("Max core file size", 0)];
    limits(scene, &device, &own)?;
    let open = descriptors(scene, &device)?;
    println!("    a device has open: {}", open.join(" "));
    for (kind, most) in [
        ("/dev/xen/evtchn", 1),
        ("/dev/xen/gntdev", 1),
        ("anon_inode:[io_uring]", 1),
        (TREE, 1),
        ("socket:", 2),
        // Standard output and the log.
        ("pipe:", 2),
    ] {
        let count = open.iter().filter(|name| name.starts_with(kind)).count();
        ensure((1..=most).contains(&count), || format!("{count} times {kind}: {open:?}"))?;
    }
    ensure(open.len() <= 8, || format!("more is open: {open:?}"))?;
    let daemon = scene.dom0("cat /run/blkback.pid")?;
    let daemon = daemon.trim();
    let status = Status::read(scene, daemon)?;
    // DAC_OVERRIDE, KILL, SETGID, SETUID.
    for set in ["CapPrm:", "CapEff:", "CapBnd:"] {
        status.is(set, &["00000000000000e2"])?;
    }
    status.is("NoNewPrivs:", &["1"])?;
    status.is("Seccomp:", &["2"])?;
    limits(scene, daemon, &[("Max data size", 512 << 20), ("Max core file size", 0)])?;
    let open = descriptors(scene, daemon)?;
    println!("    the daemon has open: {}", open.join(" "));
    ensure(!open.iter().any(|name| name.contains("privcmd")), || format!("{open:?}"))?;
    scene.lab.destroy("served")
}

fn forbidden(scene: &Scene) -> Result<()> {
    let tests = build::blkback_tests(Host::default())?;
    let bytes = std::fs::read(&tests).context(|| format!("reading {}", tests.display()))?;
    scene.lab.put_bytes(&bytes, "/tmp/blkback-tests")?;
    let told = scene.lab.dom0("cd /tmp && ./blkback-tests confine --test-threads=1 --nocapture")?;
    scene.dom0("rm /tmp/blkback-tests")?;
    let told = told.ok()?;
    ensure(told.contains(" 5 passed; 0 failed"), || told.clone())
}

fn outside(scene: &Scene) -> Result<()> {
    scene.dom0(
        "mkdir -p /root/hidden && truncate -s 1M /root/hidden/a.img && \
         ln -sf /root/hidden/a.img /tmp/link.img",
    )?;
    for path in ["/root/hidden/a.img", "/tmp/link.img", "/tmp/../root/hidden/a.img"] {
        let spec = format!("format=raw,vdev=xvda,access=rw,target={path}");
        let output = scene.blkback(&format!("attach {BYSTANDER} {spec}"))?;
        let text = output.text.trim_end();
        let told = text.contains("--images /root/hidden") && text.lines().count() == 1;
        ensure(output.status == 1 && told, || format!("{path}: {}: {text}", output.status))?;
    }
    scene.dom0("rm -r /root/hidden /tmp/link.img").map(drop)
}

fn killed(scene: &Scene) -> Result<()> {
    busy(scene, "victim")?;
    let options = "xvda --seed=6 --generation=6";
    let run = format!(
        "run=\"echo begun; pattern write {options}; sleep 2000; pattern verify {options}; poweroff\""
    );
    let survivor = Guest::pvblk("survivor", &run).disk(Backend::Pvblk, PATTERN, "xvda", false);
    scene.lab.create(&survivor)?;
    scene.lab.wait_guest("survivor", "begun", GUEST_TIMEOUT)?;
    let back = scene.dom0("echo /local/domain/0/backend/pvblk/$(xl domid victim)/51712")?;
    let process = process_of(scene, "victim")?;
    scene.dom0(&format!("kill -9 {process}"))?;
    let mut reason = String::new();
    for _ in 0..100 {
        reason = scene.lab.dom0(&format!("xenstore-read {}/error", back.trim()))?.text;
        if reason.contains("bug of its own") {
            break;
        }
        scene.dom0("usleep 100000")?;
    }
    ensure(reason.contains("bug of its own"), || format!("its error node: {reason:?}"))?;
    scene.outcome("survivor")?;
    let pattern = Pattern { disk: vdev(0), generation: 6, seed: 6 };
    assert_pattern(scene, PATTERN, pattern, PATTERN_BYTES)?;
    scene.lab.destroy("victim")?;
    // The daemon serves the same image again.
    let guest = Guest::pvblk("next", "run=\"sha256 xvda --size=64k; poweroff\"");
    scene.play(&guest.disk(Backend::Pvblk, TREE, "xvda", true)).map(drop)
}
