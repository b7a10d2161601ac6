//! The real policies of this machine's kernel, each on a thread of its own: what they refuse, and
//! that the work can be done under them.

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::thread;

use ring::Page;
use xen::{DomainId, Events};

use super::*;
use crate::disk::{Disk, Extent, Job, Verb};
use crate::scratch::Scratch;
use crate::sys::{Channels, Patience, UringDisk, forbidden};
use crate::{Bell, Image};

/// What `act` gives when it is done by a thread that was confined before.
fn confined<T: Send>(
    confine: impl FnOnce() -> io::Result<()> + Send,
    act: impl FnOnce() -> T + Send,
) -> T {
    let life = || {
        confine().expect("this kernel can confine");
        act()
    };
    thread::scope(|scope| scope.spawn(life).join()).expect("no panic")
}

fn refused<T>(result: io::Result<T>) {
    let error = result.map(drop).expect_err("it must be refused");
    assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{error}");
}

fn disk(path: &std::path::Path) -> UringDisk<Arc<Page>> {
    let image = Image::open(path, false).expect("the image can be opened");
    UringDisk::new(Arc::new(image), 32).expect("io_uring can be had")
}

#[test]
fn a_serving_process_opens_starts_and_connects_to_nothing() {
    let scratch = Scratch::new("confine-serving");
    let image = scratch.file("d.img", 8192);
    let open = File::open(&image).unwrap();
    confined(to_serving, || {
        refused(File::open(&image));
        refused(File::open("/dev/null"));
        refused(std::fs::metadata(&image));
        refused(File::create(scratch.path().join("new")));
        refused(std::fs::remove_file(&image));
        refused(UnixStream::pair());
        refused(std::net::TcpListener::bind("127.0.0.1:0"));
        refused(Command::new("/bin/true").status());
        refused(thread::Builder::new().spawn(|| {}));
        refused(Bell::new());
        refused(rustix::io::dup(&open).map_err(Into::into));
        // Another ring would be one without restrictions.
        refused(io_uring::IoUring::new(8));
        let ourselves = rustix::process::getpid();
        let kill = rustix::process::kill_process(ourselves, rustix::process::Signal::CONT);
        refused(kill.map_err(Into::into));
        refused(forbidden::hypercall(&open));
        refused(forbidden::terminal(&open));
        refused(forbidden::executable_memory());
        refused(forbidden::executable_later());
    });
}

#[test]
fn a_confined_process_reads_writes_flushes_and_discards() {
    let scratch = Scratch::new("confine-works");
    let path = scratch.file("d.img", 1 << 20);
    thread::scope(|scope| {
        let work = || {
            let mut disk = disk(&path);
            let bell = Bell::new().unwrap();
            disk.listen(&bell, &bell);
            reach(None).expect("this kernel can confine");
            to_serving().expect("this kernel can confine");
            let verbs =
                [Verb::Write, Verb::Flush, Verb::Read, Verb::Discard { length_bytes: 4096 }];
            for (tag, verb) in (0..).zip(verbs) {
                let memory = matches!(verb, Verb::Read | Verb::Write).then(|| {
                    let page = Arc::new(Page::new());
                    page.write(0, &[7; 4096]);
                    Extent { page, offset_bytes: 0, length_bytes: 4096 }
                });
                let extents = memory.into_iter().collect();
                disk.submit(&mut vec![Job { tag, verb, offset_bytes: 8192, extents }]);
                let done = loop {
                    disk.wait(Patience::UntilWoken).expect("waiting works");
                    if let Some(done) = disk.reap() {
                        break done;
                    }
                };
                let supported = disk.profile().discard_granularity.is_some();
                let is_discard = matches!(verb, Verb::Discard { .. });
                assert!(
                    done.result.is_ok() || (is_discard && !supported),
                    "{verb:?}: {:?}",
                    done.result
                );
            }
            // What the run-time library needs when something is wrong, and at the end.
            thread::sleep(std::time::Duration::from_millis(1));
            let map: std::collections::HashMap<u8, Vec<u8>> = [(1, vec![0; 1 << 20])].into();
            assert!(std::panic::catch_unwind(|| panic!("as a test")).is_err() && map.len() == 1);
        };
        scope.spawn(work).join().expect("no panic")
    });
    assert!(std::fs::read(&path).unwrap()[..8192] == [0; 8192]);
}

/// Runs `act` as the daemon, with images in `folders`; tells how far Landlock went.
fn governing<T: Send>(folders: &[PathBuf], act: impl FnOnce(RulesetStatus) -> T + Send) -> T {
    let folders = Folders::new(folders).unwrap();
    let life = || act(to_governing(&folders).expect("this kernel can confine"));
    thread::scope(|scope| scope.spawn(life).join()).expect("no panic")
}

#[test]
fn the_daemon_opens_images_where_it_was_told_and_nothing_else() {
    let (inside, outside) = (Scratch::new("confine-inside"), Scratch::new("confine-outside"));
    let (image, other) = (inside.file("d.img", 8192), outside.file("d.img", 8192));
    let link = inside.path().join("link.img");
    std::os::unix::fs::symlink(&other, &link).unwrap();
    governing(&[inside.path().into()], |landlock| {
        let folders = Folders::new(&[inside.path().into()]).unwrap();
        assert!(Image::open_in(&folders, &image, false).is_ok());
        for path in [&other, &link] {
            let error = Image::open_in(&folders, path, false).expect_err("it is outside");
            let text = error.to_string();
            assert!(text.contains("--images") && text.contains("confine-outside"), "{text}");
        }
        if landlock == RulesetStatus::NotEnforced {
            return;
        }
        // Whatever our own code may forget to ask.
        for denied in [
            File::open(&other).map(drop),
            File::open("/etc/passwd").map(drop),
            File::create(inside.path().join("new")).map(drop),
            std::fs::read_dir(inside.path()).map(drop),
            Command::new("/bin/true").status().map(drop),
        ] {
            let error = denied.expect_err("Landlock refuses it");
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}");
        }
    });
}

#[test]
fn the_daemon_has_no_hypercalls_no_network_and_few_capabilities() {
    let scratch = Scratch::new("confine-daemon");
    let open = File::open(scratch.file("d.img", 8192)).unwrap();
    governing(&[scratch.path().into()], |_| {
        refused(forbidden::hypercall(&open));
        refused(forbidden::terminal(&open));
        refused(forbidden::executable_memory());
        refused(std::net::TcpListener::bind("127.0.0.1:0"));
        refused(std::fs::remove_file(scratch.path().join("d.img")));
        refused(std::fs::create_dir(scratch.path().join("new")));
        thread::spawn(|| {}).join().unwrap();
        let status = std::fs::read_to_string("/proc/thread-self/status");
        let Ok(status) = status else { return };
        let line = |name: &str| {
            let found = status.lines().find_map(|line| line.strip_prefix(name));
            found.map(|text| text.trim().to_owned()).unwrap_or_default()
        };
        assert_eq!((line("NoNewPrivs:").as_str(), line("Seccomp:").as_str()), ("1", "2"));
        for set in ["CapPrm:", "CapEff:", "CapBnd:"] {
            let found = u64::from_str_radix(&line(set), 16).unwrap();
            assert_eq!(found & !DAEMON_CAPABILITIES.bits(), 0, "{set} {found:x}");
        }
    });
}

#[test]
fn a_handle_on_event_channels_that_was_tied_to_a_guest_reaches_no_other_domain() {
    // Only in a real Dom0 is there such a node.
    let Ok(channels) = Channels::open() else { return };
    let port = channels.offer(DomainId::ZERO).expect("not tied yet");
    channels.close(port);
    channels.restrict(DomainId(0x7001)).expect("this kernel can tie it");
    assert!(channels.offer(DomainId::ZERO).is_err());
    assert!(channels.restrict(DomainId::ZERO).is_err(), "once and for all");
}
