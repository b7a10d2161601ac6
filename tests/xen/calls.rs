//! System calls of the daemon and of its devices that fail, while a disk is attached, used and
//! detached: what follows is said in words, nobody hangs, and the next disk is served.

use std::time::Duration;

use xtask::error::Result;
use xtask::guest::Guest;
use xtask::lab::COMMAND_TIMEOUT;

use crate::scene::{Scene, Story, ensure};
use crate::typed::Typist;

pub(crate) const STORIES: &[Story] =
    &[("a_system_call_of_the_daemon_fails_and_the_next_disk_is_served", some)];

/// Told only when it is asked for: it takes long.
pub(crate) const EVERY_CALL: &[Story] =
    &[("every_system_call_of_the_daemon_fails_once_and_the_next_disk_is_served", every)];

/// The kinds of which the first fails, and what is said then, if that is always the same.
const SOME: [(&str, &str); 6] = [
    ("openat", "failing.img: Cannot allocate memory"),
    ("clone3", "no thread for this device"),
    ("mmap", ""),
    ("sendmsg", "xvda: not connected"),
    ("read", ""),
    ("write", ""),
];
/// All kinds that can fail for want of something, in the daemon or in what it starts.
const ALL: [&str; 25] = [
    "openat",
    "readlinkat",
    "statx",
    "lseek",
    "flock",
    "fallocate",
    "pread64",
    "eventfd2",
    "socketpair",
    "clone3",
    "clone",
    "execve",
    "mmap",
    "mprotect",
    "munmap",
    "brk",
    "ioctl",
    "sendmsg",
    "recvmsg",
    "poll",
    "read",
    "write",
    "io_uring_setup",
    "io_uring_register",
    "io_uring_enter",
];
/// No life of a disk takes so many calls of one kind.
const CALLS_MAX: u32 = 500;

const GUEST: &str = "failing";
const DISK: &str = "format=raw,vdev=xvda,access=rw,target=/tmp/failing.img";
/// Where it is written down what failed.
const NOTES: &str = "/tmp/failing.calls";
/// How often a command is tried until its disk is connected.
const TRIES: usize = 8;
/// The daemon is given so long for its word; it takes a second.
const PATIENCE: &str = "--timeout 5";

fn some(scene: &Scene) -> Result<()> {
    with_guest(scene, |typist| {
        for (kind, word) in SOME {
            let (hit, told) = fail_once(scene, typist, kind, 1)?;
            ensure(hit, || format!("{kind}: none was made"))?;
            ensure(told.contains(word), || format!("{kind}: not {word:?} but {told}"))?;
        }
        Ok(())
    })
}

fn every(scene: &Scene) -> Result<()> {
    with_guest(scene, |typist| {
        for kind in ALL {
            let mut nth = 1;
            while nth < CALLS_MAX && fail_once(scene, typist, kind, nth)?.0 {
                nth += 1;
            }
            println!("    {kind}: {}", nth - 1);
        }
        Ok(())
    })
}

/// A guest that waits for disks, and for commands.
fn with_guest(scene: &Scene, act: impl FnOnce(&mut Typist<'_>) -> Result<()>) -> Result<()> {
    scene.dom0("truncate -s 256k /tmp/failing.img")?;
    let mut typist = Typist::at(scene, &Guest::pvblk(GUEST, ""))?;
    act(&mut typist)?;
    typist.leave(GUEST)?;
    scene.dom0(&format!("rm /tmp/failing.img {NOTES}")).map(drop)
}

/// The life of a disk in which the `nth` call of a kind fails in each thread and process that makes so
/// many, and, unless all went well nevertheless, one in which none does. Tells whether any
/// failed, and what was said.
fn fail_once(
    scene: &Scene,
    typist: &mut Typist<'_>,
    kind: &str,
    nth: u32,
) -> Result<(bool, String)> {
    let tracer = scene.lab.start(&format!(
        "exec strace -f -qq -p $(cat /run/blkback.pid) -o {NOTES} -e trace={kind} \
         -e inject={kind}:error=ENOMEM:when={nth}"
    ))?;
    let is_traced = "grep -q 'TracerPid:.[1-9]' /proc/$(cat /run/blkback.pid)/status";
    scene.until("the daemon is traced", || Ok(scene.lab.dom0(is_traced)?.status == 0))?;
    let told = life(scene, typist)?;
    scene.lab.kill(tracer)?;
    scene.lab.finish(tracer, COMMAND_TIMEOUT)?;
    let failed = scene.dom0(&format!("grep -c INJECTED {NOTES}; true"))?;
    let lives = scene.lab.dom0("kill -0 $(cat /run/blkback.pid)")?.status == 0;
    if !lives {
        // It says why, and whoever watches over it starts another.
        let status = scene.daemon_ended(Duration::from_secs(30))?;
        ensure(status == 1 || status > 128, || {
            format!("{kind} {nth}: the daemon ended with {status}")
        })?;
        scene.daemon()?;
    }
    let outcome = told.as_deref().map_or("all went well", str::trim).to_owned();
    println!("    {kind} {nth}: {outcome}{}", if lives { "" } else { "; the daemon ended" });
    let after = if told.is_some() { life(scene, typist)? } else { None };
    ensure(after.is_none(), || format!("after {kind} {nth}: {after:?}"))?;
    Ok((failed.trim() != "0", outcome))
}

/// A disk is attached, written, read and detached; tells what went wrong.
fn life(scene: &Scene, typist: &mut Typist<'_>) -> Result<Option<String>> {
    let attached = scene.blkback(&format!("attach {GUEST} {DISK} {PATIENCE}"))?;
    let mut told = None;
    if attached.status == 0 {
        for (verb, word) in [("write", "written and flushed"), ("verify", "verified")] {
            let text = connected(scene, typist, &format!("pattern {verb} xvda"))?;
            told = told.or((!text.contains(word)).then(|| format!("the guest: {text}")));
        }
    }
    let detached = scene.blkback(&format!("detach {GUEST} xvda {PATIENCE}"))?;
    if detached.status != 0 {
        // What was never there cannot be taken away.
        scene.blkback(&format!("detach {GUEST} xvda --force"))?;
    }
    let wrong = [&attached, &detached].into_iter().find(|output| output.status != 0);
    Ok(wrong.map(|output| output.text.clone()).or(told))
}

/// What a command says once the disk is connected, or at last. No program waits for a disk that comes
/// later than the guest.
fn connected(scene: &Scene, typist: &mut Typist<'_>, command: &str) -> Result<String> {
    let mut text = typist.command(command)?;
    for _ in 0..TRIES {
        if !["not connected", "no such disk"].iter().any(|word| text.contains(word)) {
            break;
        }
        scene.dom0("usleep 200000")?;
        text = typist.command(command)?;
    }
    Ok(text)
}
