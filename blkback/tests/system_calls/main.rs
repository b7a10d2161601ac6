//! The n-th system call of a device's process fails, once or from then on, for every n until a
//! connection passes untouched.
//!
//! The process is the real one, on the real kernel with a real `io_uring` and a real image. There is
//! no Xen: the nodes' requests are answered by whoever makes its calls fail ([`tracer`]), and what
//! the guest shares is a file in memory ([`front`]). Whatever fails, the process ends in time, serves
//! only when it has given up all rights, and answers only what was done.

mod front;
#[expect(dead_code, reason = "only a file is needed, not its folder")]
#[path = "../../src/scratch.rs"]
mod scratch;
mod tracer;

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use front::{Front, Life};
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use scratch::Scratch;
use tracer::{Fault, Spell, Traced};

/// No connection takes so many calls.
const CALLS_MAX: u64 = 2000;
/// Longer than a connection takes, on a machine that is busy with other things.
const LIFE_MAX: Duration = Duration::from_secs(60);

/// How a process of Rust ends that panics.
const PANIC: i32 = 101;
/// How one ends whose libraries cannot be loaded; in Dom0 it has none.
const LOADER: i32 = 127;

/// Starts the process, which is stopped before it becomes that of a device.
#[expect(clippy::zombie_processes, reason = "the tracer waits for it")]
fn start(line: impl Into<Stdio>) -> Pid {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "kill -STOP $$; exec \"$0\" device 1/51712"]);
    command.arg(env!("CARGO_BIN_EXE_blkback")).stdin(line).stderr(Stdio::null());
    let child = command.process_group(0).spawn().expect("it starts");
    Pid::from_raw(i32::try_from(child.id()).expect("a process"))
}

/// One connection, with trouble.
fn live(scratch: &Scratch, fault: Fault) -> (Traced, Life) {
    let flags = SocketFlags::CLOEXEC;
    let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
    let (ours, theirs) = pair.expect("a pair of sockets");
    let image = scratch.file("d.img", front::SECTORS * 512);
    let process = start(theirs);
    let (tell, told) = channel();
    let front = thread::spawn(move || {
        let mut front = Front::new(ours, &image, process);
        let life = front.live();
        // Dropped with it: the line, whose end the process takes for an order to go.
        drop(front);
        let _ = tell.send(());
        life
    });
    // Nobody waits for ever: a process that hangs is killed, and that is seen.
    let watch = thread::spawn(move || {
        let end = Instant::now() + LIFE_MAX;
        let _ = told.recv_timeout(LIFE_MAX);
        while Instant::now() < end && kill(process, None).is_ok() {
            thread::sleep(Duration::from_millis(5));
        }
        kill(process, Signal::SIGKILL).is_ok()
    });
    let traced = tracer::trace(process, fault);
    let hung = watch.join().expect("no panic");
    assert!(!hung, "{fault:?}: it hangs at {}", traced.last());
    (traced, front.join().expect("no panic"))
}

/// What must hold, whatever failed.
fn judge(fault: Fault, traced: &Traced, life: &Life) {
    let what = || format!("{fault:?}, {}: {life:?}, {:?}", traced.last(), traced.status);
    // A process that says how it ended has ended well; one that could not say it may not have.
    match traced.status {
        WaitStatus::Exited(_, 0 | 1 | PANIC) => {}
        WaitStatus::Exited(_, LOADER) if traced.hit.is_some() => {}
        WaitStatus::Signaled(_, Signal::SIGABRT | Signal::SIGSEGV, _) if traced.hit.is_some() => {}
        _ => panic!("{}", what()),
    }
    assert!(!life.connected || life.confined, "it serves with rights: {}", what());
    assert!(life.lies.is_empty(), "{:?}: {}", life.lies, what());
    assert!(!traced.is_mute || !life.is_whole(), "the guest may wait for ever: {}", what());
    let is_raised = !traced.is_mute || fault.spell != Spell::Once;
    assert!(is_raised, "what failed once is not tried again: {}", what());
}

fn for_every_n(name: &str, errno: i32, spell: Spell) {
    let scratch = Scratch::new(name);
    let mut connected = 0;
    for nth in 0..CALLS_MAX {
        let fault = Fault { nth, errno, spell };
        let (traced, life) = live(&scratch, fault);
        judge(fault, &traced, &life);
        connected += u64::from(life.connected);
        if traced.hit.is_none() {
            assert!(life.connected && life.is_whole(), "{life:?}");
            println!("{nth} calls, {connected} connections in spite of one");
            assert!(nth > 50, "{nth} calls");
            return;
        }
    }
    panic!("hit for ever");
}

#[test]
fn any_call_of_a_devices_process_may_fail_once() {
    for_every_n("calls-once", libc::ENOMEM, Spell::Once);
}

#[test]
fn any_call_of_a_devices_process_may_fail_and_all_that_follow() {
    for_every_n("calls-ever", libc::EIO, Spell::FromThenOn);
}

#[test]
fn a_guest_that_cannot_be_woken_is_not_left_waiting() {
    let scratch = Scratch::new("calls-notify");
    let fault = Fault { nth: 0, errno: libc::ENOMEM, spell: Spell::NotifiesFromThenOn };
    let (traced, life) = live(&scratch, fault);
    judge(fault, &traced, &life);
    assert!(traced.is_mute && life.connected, "{life:?}");
    // Its last word is that the ring is given up.
    assert_eq!(life.last, Some(b'b'), "{life:?}");
}

#[test]
fn any_call_of_a_devices_process_may_be_interrupted() {
    for_every_n("calls-interrupted", libc::EINTR, Spell::Once);
}
