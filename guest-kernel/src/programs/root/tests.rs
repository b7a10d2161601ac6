//! A root whose disk is there, comes late, or never comes.

extern crate std;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use std::process::Command;
use std::{env, fs, process};

use super::*;
use crate::programs::play::Play;

const SECTORS: usize = 4096;
const XVDB: u32 = 51728;

/// An empty file system that is called `root`.
fn image(name: &str) -> Vec<u8> {
    let file = env::temp_dir().join(std::format!("guest-root-{}-{name}", process::id()));
    let mut command = Command::new("mke2fs");
    command.args(["-q", "-F", "-t", "ext2", "-L", "root"]).arg(&file).arg("2M");
    assert!(command.output().expect("mke2fs").status.success());
    let bytes = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    bytes
}

/// A machine whose `xvda` comes at one wait and whose `xvdb`, which is the root, at another.
fn scene(name: &str, [first, root]: [u64; 2]) -> (Play, Disks<Play>) {
    let image = image(name);
    let play = Play::with(2, SECTORS, 100_000, |disk| {
        let is_root = disk.number == XVDB;
        disk.late = if is_root { root } else { first };
        disk.medium = if is_root { image.clone() } else { vec![0; SECTORS * 512] };
    });
    let disks = play.disks();
    (play, disks)
}

fn mounted(play: &Play, disks: &mut Disks<Play>, seconds: u64) -> Result<String, Failure> {
    let ended = mount(play, disks, "LABEL=root", Access::ReadOnly, seconds);
    disks.settle(play);
    ended.map(|()| play.printed())
}

#[test]
fn a_root_that_is_there_is_not_waited_for() {
    let (play, mut disks) = scene("there", [0, 0]);
    assert_eq!(mounted(&play, &mut disks, 10).unwrap(), "xvdb on / type ext2 (ro)");
    play.assert_clean(disks);
}

#[test]
fn a_root_whose_disk_comes_late_is_mounted_when_it_comes() {
    // Alone, before another disk, after it, and together with it.
    for (name, late) in [("a", [0, 300]), ("b", [400, 300]), ("c", [300, 400]), ("d", [300, 300])] {
        let (play, mut disks) = scene(name, late);
        let printed = mounted(&play, &mut disks, 10).unwrap();
        let told =
            "root: LABEL=root is not there yet: waiting for its disk, 10 s at most (rootwait=)";
        assert_eq!(printed, std::format!("{told}\nxvdb on / type ext2 (ro)"), "{late:?}");
        play.assert_clean(disks);
    }
}

#[test]
fn a_root_that_never_comes_is_told_with_what_there_is_when_the_time_is_over() {
    let (play, mut disks) = scene("never", [300, u64::MAX]);
    let begin = play.now();
    let failure = mounted(&play, &mut disks, 10).unwrap_err();
    let waited = play.now().since(begin);
    assert!((10.0..10.1).contains(&waited.as_secs_f64()), "{waited:?}");
    assert_eq!(failure.status, 3);
    assert_eq!(failure.text, "LABEL=root: not found, there is:\n  xvda: nothing known");
    assert_eq!(play.printed().matches("waiting").count(), 1);
}

#[test]
fn without_a_time_to_wait_nothing_is_waited_for() {
    let (play, mut disks) = scene("at-once", [0, 300]);
    let begin = play.now();
    assert_eq!(mounted(&play, &mut disks, 0).unwrap_err().status, 3);
    assert!(play.now().since(begin).as_secs_f64() < 0.5);
    assert_eq!(play.printed(), "");
}

#[test]
fn ctrl_c_ends_the_waiting() {
    let (play, mut disks) = scene("break", [0, u64::MAX]);
    play.interrupt_after(50);
    assert_eq!(mounted(&play, &mut disks, 10).unwrap_err(), Failure::interrupted());
}
