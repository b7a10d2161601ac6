//! Workers with real processes where there is no Xen: they open images, say what is missing, and
//! go.

#[path = "../src/scratch.rs"]
mod scratch;

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use blkback::crew::{Connect, Crew, Report, WorkerId};
use blkback::{Bell, Folders, Image, Program, Workers};
use blkif::{Abi, Agreed, Discard, Features, Geometry};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair};
use rustix::process::{Pid, Signal, kill_process};
use scratch::Scratch;
use xen::{DomainId, GrantRef, Port};

const FIRST: WorkerId = WorkerId(1);

/// An image in a folder of its own.
fn image(scratch: &Scratch) -> PathBuf {
    scratch.file("d.img", 8192)
}

/// Workers that serve what is in the folder.
fn workers(scratch: &Scratch) -> Workers {
    let program = Program {
        path: env!("CARGO_BIN_EXE_blkback").into(),
        arguments: vec!["device".into()],
        user: None,
    };
    let folders = Folders::new(&[scratch.path().into()]).expect("a folder");
    Workers::new(Bell::new().expect("a bell can be had"), program, folders)
}

/// The next report; the bell rings for each.
fn await_report(workers: &mut Workers) -> (WorkerId, Report) {
    for _ in 0..1000 {
        if let Some(report) = workers.report() {
            return report;
        }
        thread::sleep(Duration::from_millis(5));
    }
    panic!("no report");
}

fn connect() -> Connect {
    Connect {
        peer: DomainId(1),
        ring: vec![GrantRef(8)],
        port: Port(9),
        agreed: Agreed {
            abi: Abi::X86_64,
            order: 0,
            indirect_max: 0,
            features: Features::empty(),
            discard_limits: Discard::default(),
        },
        geometry: Geometry::new(16).expect("a geometry"),
    }
}

#[test]
fn a_worker_opens_its_image_says_why_it_cannot_connect_and_goes_when_told() {
    if Path::new("/dev/xen/evtchn").exists() {
        return;
    }
    let scratch = Scratch::new("worker-life");
    let image = image(&scratch);
    let mut workers = workers(&scratch);
    workers.open(FIRST, "1/51712", image.clone(), false);
    let (_, Report::Opened(profile)) = await_report(&mut workers) else { panic!("not open") };
    assert_eq!(profile.sectors, 16);
    // The second time with a new process.
    for _ in 0..2 {
        workers.connect(FIRST, connect());
        let (_, Report::Unconnected(reason)) = await_report(&mut workers) else {
            panic!("connected")
        };
        assert!(reason.contains("/dev/xen/evtchn"), "{reason}");
    }
    workers.stop(FIRST);
    assert_eq!(await_report(&mut workers), (FIRST, Report::Stopped));
    workers.dismiss(FIRST);
    assert_eq!(await_report(&mut workers), (FIRST, Report::Gone));
    // Its image is free again.
    assert!(Image::open(&image, false).is_ok());
}

#[test]
fn a_worker_measures_its_image_and_keeps_what_it_had_of_one_that_shrank() {
    let scratch = Scratch::new("worker-measures");
    let image = image(&scratch);
    let mut workers = workers(&scratch);
    workers.open(FIRST, "1/51712", image.clone(), false);
    assert!(matches!(await_report(&mut workers), (FIRST, Report::Opened(_))));
    for (bytes, found) in [(8192, Some(16)), (12_288, Some(24)), (8192, None), (12_800, Some(25))] {
        File::options().write(true).open(&image).unwrap().set_len(bytes).unwrap();
        workers.measure(FIRST);
        let (_, Report::Measured(measured)) = await_report(&mut workers) else { panic!("{bytes}") };
        assert_eq!(measured.ok(), found, "{bytes}");
    }
}

#[test]
fn an_image_that_its_last_user_is_about_to_close_is_waited_for() {
    let scratch = Scratch::new("worker-waits");
    let image = image(&scratch);
    let first = Image::open(&image, false).unwrap();
    let mut workers = workers(&scratch);
    workers.open(FIRST, "1/51712", image, false);
    thread::sleep(Duration::from_millis(100));
    assert_eq!(workers.report(), None);
    drop(first);
    assert!(matches!(await_report(&mut workers), (FIRST, Report::Opened(_))));
}

#[test]
fn an_image_that_cannot_be_opened_is_said_and_is_no_bug() {
    let (scratch, outside) = (Scratch::new("worker-missing"), Scratch::new("worker-outside"));
    let mut workers = workers(&scratch);
    for (image, word) in [("/none/at/all".into(), "no such file"), (image(&outside), "--images")] {
        workers.open(FIRST, "1/51712", image, false);
        let (_, Report::Unopened(reason)) = await_report(&mut workers) else { panic!("open") };
        assert!(reason.contains(word), "{reason}");
        thread::sleep(Duration::from_millis(20));
        assert_eq!(workers.report(), None);
        workers.dismiss(FIRST);
        assert_eq!(await_report(&mut workers), (FIRST, Report::Gone));
    }
}

#[test]
fn xsa_374_a_worker_that_is_dismissed_in_the_middle_of_anything_frees_its_image() {
    let scratch = Scratch::new("worker-dismissed");
    let image = image(&scratch);
    for round in 0..40 {
        let mut workers = workers(&scratch);
        workers.open(FIRST, "1/51712", image.clone(), false);
        if round % 2 == 0 {
            await_report(&mut workers);
        }
        if round % 8 < 4 {
            workers.connect(FIRST, connect());
        }
        if round % 4 < 2 {
            workers.stop(FIRST);
        }
        workers.dismiss(FIRST);
        // Waits for the thread, and that for its process, wherever they were.
        drop(workers);
        assert!(Image::open(&image, false).is_ok(), "round {round}");
    }
}

/// The process of a device and the other end of its orders.
fn device() -> (Child, OwnedFd) {
    let flags = SocketFlags::CLOEXEC;
    let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
    let (ours, theirs) = pair.expect("a pair of sockets");
    let mut command = Command::new(env!("CARGO_BIN_EXE_blkback"));
    command.args(["device", "1/51712"]).stdin(Stdio::from(theirs)).stderr(Stdio::null());
    (command.spawn().expect("it starts"), ours)
}

#[test]
fn a_device_ends_when_it_is_not_needed_and_takes_no_order_that_makes_no_sense() {
    for (order, code) in [(None, 0), (Some(&b"stop"[..]), 0), (Some(&b"begin"[..]), 1)] {
        let (mut child, ours) = device();
        if let Some(order) = order {
            send(ours.as_fd(), order, SendFlags::empty()).expect("it listens");
        } else {
            drop(ours);
        }
        assert_eq!(child.wait().unwrap().code(), Some(code), "{order:?}");
    }
}

#[test]
fn what_ends_the_daemon_does_not_end_a_device_before_it_was_told() {
    let (mut child, ours) = device();
    assert!(settles(&child, "NoNewPrivs:\t1"));
    for signal in [Signal::HUP, Signal::INT, Signal::TERM] {
        kill_process(Pid::from_child(&child), signal).unwrap();
        thread::sleep(Duration::from_millis(20));
        assert_eq!(child.try_wait().unwrap(), None, "{signal:?}");
    }
    send(ours.as_fd(), b"stop", SendFlags::empty()).expect("it listens");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// Whether the kernel's status of a process has a line like this, soon.
fn settles(child: &Child, line: &str) -> bool {
    let status = format!("/proc/{}/status", child.id());
    (0..400).any(|_| {
        thread::sleep(Duration::from_millis(10));
        std::fs::read_to_string(&status).is_ok_and(|text| text.contains(line))
    })
}

#[test]
fn a_device_that_waits_has_given_up_what_it_can_before_its_orders() {
    let (mut child, ours) = device();
    assert!(settles(&child, "NoNewPrivs:\t1"));
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.id())).unwrap();
    for (name, most) in
        [("Max address space", "134217728"), ("Max open files", "16"), ("Max core file size", "0")]
    {
        let line = limits.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        let numbers: Vec<&str> = line[name.len()..].split_whitespace().collect();
        assert_eq!(numbers[..2], [most, most], "{line}");
    }
    drop(ours);
    child.wait().unwrap();
}
