//! Reboots on a real Xen: `xl` makes a new domain and knows nothing of our disks, which are there all
//! the same, with all that was acknowledged.

use std::time::{Duration, Instant};

use xtask::error::Result;
use xtask::guest::{Backend, Guest};

use crate::isolation::{writer, written};
use crate::scene::{
    BLKBACK, BYSTANDER, GUEST_TIMEOUT, LINUX, PATTERN, Scene, Story, TREE, ensure, fail,
};

pub(crate) const STORIES: &[Story] = &[
    ("a_guest_under_load_that_is_rebooted_goes_on_with_its_disk_and_its_data", under_load),
    ("a_root_is_there_after_every_reboot_even_if_the_daemon_died_meanwhile", root),
    ("a_linux_guest_that_reboots_finds_its_disk_and_what_it_wrote", linux),
    ("a_disk_that_was_detached_is_not_there_after_the_reboot", detached),
    ("a_guest_that_is_destroyed_can_be_told_to_be_gone_for_good", gone_for_good),
    ("the_disks_of_a_guest_that_does_not_come_back_are_forgotten_in_time", forgotten),
];

/// How long disks wait for a guest that will not come back.
const KEEP_SECONDS: u64 = 10;
/// The daemon needs no longer than this to end when it is told to.
const GOODBYE: Duration = Duration::from_secs(30);

/// Creates a guest that `xl` restarts when it reboots.
fn create(scene: &Scene, guest: &Guest) -> Result<()> {
    let name = &guest.name;
    let config = guest.config().replace("on_reboot=\"preserve\"", "on_reboot=\"restart\"");
    scene.lab.forget(name);
    scene.lab.put_bytes(config.as_bytes(), &format!("/tmp/{name}.cfg"))?;
    scene.dom0(&format!("xl create -q -p /tmp/{name}.cfg"))?;
    for (_, disk) in &guest.disks {
        scene.lab.attach(name, disk)?;
    }
    scene.lab.unpause(name)
}

/// The number of a guest's domain, if it has one now.
pub(crate) fn domain(scene: &Scene, name: &str) -> Result<Option<String>> {
    let found = scene.lab.dom0(&format!("xl domid {name}"))?;
    Ok((found.status == 0).then(|| found.text.trim().to_owned()))
}

/// Waits until the guest's domain is another one than `first`; `gone` is called when that is away
/// and the next one is not there yet.
pub(crate) fn next_life(
    scene: &Scene,
    name: &str,
    first: &str,
    mut gone: impl FnMut() -> Result<()>,
) -> Result<()> {
    let end = Instant::now() + GUEST_TIMEOUT;
    let mut away = false;
    while Instant::now() < end {
        match domain(scene, name)? {
            None if !away => {
                away = true;
                gone()?;
            }
            Some(now) if now != first => return Ok(()),
            _ => drop(scene.dom0("usleep 50000")?),
        }
    }
    let xl = scene.dom0(&format!("xl list; tail -n 20 /var/log/xen/xl-{name}.log; true"))?;
    let (console, before) = (scene.lab.guest_log(name), if away { "gone" } else { "there still" });
    fail(format!("xl made no new domain of {name}, the first is {before}:\n{xl}\n{console}"))
}

/// Waits until the console shows a line so often.
pub(crate) fn wait_times(scene: &Scene, name: &str, text: &str, times: usize) -> Result<String> {
    let end = Instant::now() + GUEST_TIMEOUT;
    loop {
        let console = scene.lab.guest_log(name);
        if console.matches(text).count() >= times {
            return Ok(console);
        }
        ensure(Instant::now() < end, || format!("not {times} times {text:?}:\n{console}"))?;
        scene.dom0("usleep 100000")?;
    }
}

fn under_load(scene: &Scene) -> Result<()> {
    // Each life looks first for what the one before has written.
    let verify = "pattern verify xvda --seed=8 --generation=2 --size=256k; ";
    let guest = writer("again", 2, verify);
    create(scene, &guest)?;
    scene.lab.wait_guest("again", "begun", GUEST_TIMEOUT)?;
    let first = domain(scene, "again")?.unwrap_or_default();
    scene.dom0("usleep 300000; xl reboot again")?;
    next_life(scene, "again", &first, || Ok(()))?;
    let console = wait_times(scene, "again", "begun", 2);
    scene.lab.destroy("again")?;
    let console = console?;
    let sectors = written(&console)?;
    println!("    {sectors} sectors were written before the reboot");
    ensure(sectors >= 512, || "too few to look for".into())?;
    let verified = console.matches("512 sectors of generation 2, seed 8 verified").count();
    ensure(verified == 1, || {
        format!("verified {verified} times, not in the second life:\n{console}")
    })
}

/// Kills the daemon and starts another one.
fn replace_daemon(scene: &Scene) -> Result<()> {
    scene.dom0("kill -9 $(cat /run/blkback.pid)")?;
    scene.daemon_ended(GOODBYE)?;
    scene.daemon()
}

fn root(scene: &Scene) -> Result<()> {
    let [_, disk] = LINUX;
    scene.dom0(&format!("/sbin/mke2fs -q -F -t ext4 -L again {disk} 8M"))?;
    let run = "run=\"cat /note; write /note from the life before; echo written; sleep 600000\"";
    let guest = Guest::pvblk("rooted", &format!("root=LABEL=again rw {run}"));
    create(scene, &guest.disk(Backend::Pvblk, disk, "xvda", false))?;
    for life in 1..=3 {
        let console = wait_times(scene, "rooted", "written\r\n", life)?;
        let found = console.matches("from the life before").count();
        ensure(found == life - 1, || format!("found {found} times in life {life}:\n{console}"))?;
        let first = domain(scene, "rooted")?.unwrap_or_default();
        if life < 3 {
            scene.dom0("xl reboot rooted")?;
            let killed = || if life == 2 { replace_daemon(scene) } else { Ok(()) };
            next_life(scene, "rooted", &first, killed)?;
        }
    }
    scene.dom0("xl shutdown -w rooted")?;
    scene.lab.destroy("rooted")?;
    scene.dom0(&format!("/sbin/e2fsck -fn {disk}")).map(drop)
}

fn linux(scene: &Scene) -> Result<()> {
    let job = "if [ \"$(head -c 9 /dev/xvda)\" = was-here- ]; then\n\
        echo found in the second life; sleep 600\n\
        fi\n\
        echo was-here- | dd of=/dev/xvda conv=fsync 2>/dev/null\n\
        echo rebooting\n\
        reboot -f; sleep 600\n";
    scene.dom0(&format!("dd if=/dev/zero of={PATTERN} bs=512 count=1 2>/dev/null; sync"))?;
    scene.lab.linux_job("lin-again", job, false)?;
    let guest = Guest::linux("lin-again").disk(Backend::Pvblk, PATTERN, "xvda", false);
    create(scene, &guest)?;
    let found = scene.lab.wait_guest("lin-again", "found in the second life", GUEST_TIMEOUT);
    scene.lab.destroy("lin-again")?;
    found.map(drop)
}

/// A guest with two disks that does nothing.
fn idle(name: &str) -> Guest {
    let guest = Guest::pvblk(name, "run=\"sleep 2000; disks; echo listed; sleep 600000\"");
    guest.disk(Backend::Pvblk, TREE, "xvda", true).disk(Backend::Pvblk, PATTERN, "xvdb", false)
}

fn detached(scene: &Scene) -> Result<()> {
    create(scene, &idle("less"))?;
    scene.lab.wait_guest("less", "listed\r\n", GUEST_TIMEOUT)?;
    scene.blkback("detach less xvdb")?.ok()?;
    let first = domain(scene, "less")?.unwrap_or_default();
    scene.dom0("xl reboot less")?;
    next_life(scene, "less", &first, || Ok(()))?;
    let console = wait_times(scene, "less", "listed\r\n", 2)?;
    let list = scene.blkback("list less")?.ok()?;
    // Whose disk it is, is not the guest's to say.
    let second = domain(scene, "less")?.unwrap_or_default();
    let nodes = scene.dom0(&format!("xenstore-ls -fp /local/domain/{second}"))?;
    for key in ["vm", "name"] {
        let start = format!("/local/domain/{second}/{key} = ");
        let line = nodes.lines().find(|line| line.starts_with(&start)).unwrap_or_default();
        ensure(line.trim_end().ends_with(&format!("(n0,r{second})")), || format!("{key}: {line}"))?;
    }
    // Whoever attaches a disk that has come back as he did before is content.
    scene.lab.attach("less", &format!("format=raw,vdev=xvda,access=ro,target={TREE}"))?;
    scene.lab.destroy("less")?;
    let second = console.rsplit("KiB mapped").next().unwrap_or_default();
    ensure(list.contains(TREE) && !list.contains(PATTERN), || list.clone())?;
    ensure(second.contains("xvda") && !second.contains("xvdb"), || console.clone())
}

fn gone_for_good(scene: &Scene) -> Result<()> {
    // No guest before it had this name: its disks may wait still.
    create(scene, &idle("left"))?;
    scene.lab.wait_guest("left", "listed\r\n", GUEST_TIMEOUT)?;
    scene.lab.destroy("left")?;
    // They wait, under the name that the guest had, and hold no image.
    let list = scene.blkback("list left")?.ok()?;
    ensure(list.matches(" away ").count() == 2, || list.clone())?;
    scene.lab.attach(BYSTANDER, &format!("format=raw,vdev=xvda,access=rw,target={PATTERN}"))?;
    scene.blkback(&format!("detach {BYSTANDER} xvda --force"))?.ok()?;
    scene.blkback(&format!("detach left xvda && {BLKBACK} detach left xvdb"))?.ok()?;
    let none = scene.blkback("list left")?;
    ensure(none.status == 1 && none.text.contains("does not exist"), || none.text.clone())
}

fn forgotten(scene: &Scene) -> Result<()> {
    scene.dom0("kill -TERM $(cat /run/blkback.pid)")?;
    scene.daemon_ended(GOODBYE)?;
    let serve = format!("exec {BLKBACK} -v serve --keep {KEEP_SECONDS}");
    let daemon = scene.lab.start_daemon(&serve, "serving")?;
    create(scene, &idle("never"))?;
    scene.lab.wait_guest("never", "listed\r\n", GUEST_TIMEOUT)?;
    scene.lab.destroy("never")?;
    let begin = Instant::now();
    let list = scene.blkback("list never")?.ok()?;
    ensure(list.matches(" away ").count() == 2, || list.clone())?;
    let nodes = || scene.dom0("xenstore-ls /local/domain/0/backend/pvblk 2>/dev/null; true");
    while !nodes()?.trim().is_empty() && begin.elapsed() < GOODBYE {
        scene.dom0("usleep 500000")?;
    }
    let (left, waited) = (nodes()?, begin.elapsed().as_secs());
    scene.dom0("kill -TERM $(cat /run/blkback.pid)")?;
    scene.lab.finish(daemon, GOODBYE)?;
    println!("    forgotten after {waited} s of {KEEP_SECONDS}");
    ensure(left.trim().is_empty(), || format!("left behind:\n{left}"))
}
