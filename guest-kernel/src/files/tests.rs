//! The commands for files on a machine to play on, with an image of mke2fs as its disk.

extern crate std;
use alloc::string::String;
use alloc::vec::Vec;
use std::process::Command;
use std::{env, fs, process};

use crate::programs::plate::Plate;
use crate::programs::play::{Mischief, Play};
use crate::programs::{Disks, digest, filing};

const SECTORS: usize = 16_384;

/// An 8 MiB image with a small tree.
fn image(name: &str, kind: &str) -> Vec<u8> {
    let folder = env::temp_dir().join(std::format!("guest-files-{}-{name}", process::id()));
    let (tree, file) = (folder.join("tree"), folder.join("image"));
    fs::create_dir_all(tree.join("boot")).unwrap();
    fs::write(tree.join("hello"), "hello\nworld\n").unwrap();
    fs::write(tree.join("boot/big"), big()).unwrap();
    let mut command = Command::new("mke2fs");
    command.args(["-q", "-F", "-L", "/", "-t", kind, "-d"]).arg(&tree).arg(&file).arg("8M");
    assert!(command.output().expect("mke2fs").status.success());
    let bytes = fs::read(&file).unwrap();
    fs::remove_dir_all(&folder).unwrap();
    bytes
}

fn big() -> Vec<u8> {
    (0..100_000_u32).flat_map(u32::to_le_bytes).take(300_001).collect()
}

fn assert_clean(name: &str, bytes: &[u8]) {
    let file = env::temp_dir().join(std::format!("guest-files-{}-{name}.img", process::id()));
    fs::write(&file, bytes).unwrap();
    let checked = Command::new("e2fsck").arg("-fn").arg(&file).output().expect("e2fsck");
    fs::remove_file(&file).unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
}

fn scene(bytes: &[u8]) -> (Play, Disks<Play>) {
    let play = Play::with(1, SECTORS, 100_000, |disk| disk.medium.copy_from_slice(bytes));
    let disks = play.disks();
    (play, disks)
}

#[test]
fn what_the_shell_writes_is_there_and_e2fsck_finds_nothing_wrong() {
    for kind in ["ext2", "ext3", "ext4"] {
        let (play, mut disks) = scene(&image(kind, kind));
        play.run(&mut disks, filing::mount, "rw LABEL=/").unwrap();
        play.run(&mut disks, filing::mkdir, "/d").unwrap();
        play.run(&mut disks, filing::cp, "/boot/big /d/copy").unwrap();
        play.run(&mut disks, filing::write, "/note one two").unwrap();
        play.run(&mut disks, filing::rm, "/hello").unwrap();
        assert_eq!(play.run(&mut disks, filing::cat, "/note").unwrap(), "one two");
        let hash = |disks: &mut Disks<Play>, path| {
            let printed = play.run(disks, digest::run, path).unwrap();
            String::from(printed.split(' ').next().unwrap())
        };
        assert_eq!(hash(&mut disks, "/d/copy"), hash(&mut disks, "/boot/big"));
        // At the prompt, with nothing closed: as after a destroyed guest.
        play.back(0, |disk| assert_clean(kind, &disk.medium));
        assert!(play.back(0, |disk| disk.flushes) > 0);
        let listed = play.run(&mut disks, filing::ls, "/ /d").unwrap();
        assert!(listed.contains("d0755") && listed.contains("    300001 copy"), "{listed}");
        assert!(!listed.contains("hello"), "{listed}");
        play.assert_clean(disks);
    }
}

#[test]
fn a_read_only_mount_is_not_changed() {
    let bytes = image("ro", "ext4");
    let (play, mut disks) = scene(&bytes);
    let mounted = play.run(&mut disks, filing::mount, "/dev/xvda").unwrap();
    assert_eq!(mounted, "xvda on / type ext4 (ro)");
    assert_eq!(play.run(&mut disks, filing::cat, "/hello").unwrap(), "hello\nworld");
    for (program, line) in [
        (filing::write as crate::programs::Program<Play>, "/new text"),
        (filing::rm, "/hello"),
        (filing::mkdir, "/d"),
        (filing::cp, "/hello /new"),
    ] {
        let failure = play.run(&mut disks, program, line).unwrap_err();
        assert_eq!(failure.text, "xvda is mounted on / read-only");
    }
    play.run(&mut disks, filing::df, "").unwrap();
    assert!(play.back(0, |disk| disk.medium == bytes));
}

#[test]
fn what_cannot_be_done_is_told_in_one_line() {
    let (play, mut disks) = scene(&image("told", "ext2"));
    let failure = play.run(&mut disks, filing::ls, "/").unwrap_err();
    assert_eq!((failure.text.as_str(), failure.status), ("/: nothing is mounted there", 3));
    play.run(&mut disks, filing::mount, "rw xvda /mnt").unwrap();
    for (program, line, text, status) in [
        (
            filing::mount as crate::programs::Program<Play>,
            "xvda /other",
            "xvda is mounted on /mnt",
            1,
        ),
        (filing::cat, "/mnt/none", "/mnt/none: no such file", 3),
        (filing::cat, "/mnt/boot", "/mnt/boot: it is a folder", 1),
        (filing::cat, "/mnt/hello/x", "/mnt/hello/x: it is not in a folder", 1),
        (filing::rm, "/mnt/boot", "/mnt/boot: it is not empty", 1),
        (filing::mkdir, "/mnt/boot", "/mnt/boot: it is there already", 1),
        (filing::cp, "/mnt/none /mnt/new", "/mnt/none: no such file", 3),
        (filing::cp, "/mnt/hello /mnt/./hello", "cp: it is the same file", 2),
        (filing::umount, "/", "/: not mounted", 3),
    ] {
        let failure = play.run(&mut disks, program, line).unwrap_err();
        assert_eq!((failure.text.as_str(), failure.status), (text, status), "{line}");
    }
    play.run(&mut disks, filing::umount, "/mnt").unwrap();
    play.back(0, |disk| assert_clean("told", &disk.medium));
}

#[test]
fn a_whole_file_is_read_up_to_its_limit() {
    let (play, mut disks) = scene(&image("limit", "ext4"));
    play.run(&mut disks, filing::mount, "xvda").unwrap();
    assert_eq!(super::read(&play, &mut disks, "/boot/big", 300_001).unwrap(), big());
    let failure = super::read(&play, &mut disks, "/boot/big", 300_000).unwrap_err();
    assert_eq!(failure.text, "/boot/big: 300001 bytes, at most 300000 are read");
    assert_eq!(super::read(&play, &mut disks, "/boot", 10).unwrap_err().status, 1);
}

#[test]
fn an_error_of_the_disk_is_told_and_the_next_command_starts_anew() {
    let (play, mut disks) = scene(&image("error", "ext4"));
    play.run(&mut disks, filing::mount, "rw xvda").unwrap();
    for ahead in 0..12 {
        let at = play.back(0, |disk| disk.served) + ahead;
        play.back(0, |disk| disk.mischief = Mischief { error_at: Some(at), ..Mischief::default() });
        if let Err(failure) = play.run(&mut disks, filing::write, "/note text") {
            assert!(failure.text.contains("was answered with an error"), "{failure}");
        }
        play.back(0, |disk| disk.mischief = Mischief::default());
    }
    play.run(&mut disks, filing::write, "/note text").unwrap();
    assert_eq!(play.run(&mut disks, filing::cat, "/note").unwrap(), "text");
}

#[test]
fn ctrl_c_waits_until_a_change_is_whole() {
    let (play, mut disks) = scene(&image("break", "ext4"));
    play.run(&mut disks, filing::mount, "rw xvda").unwrap();
    play.interrupt_after(0);
    let failure = play.run(&mut disks, filing::cp, "/boot/big /copy").unwrap_err();
    assert_eq!(failure.status, 130);
    play.back(0, |disk| assert_clean("break", &disk.medium));
    play.interrupt_after(0);
    assert_eq!(play.run(&mut disks, filing::cat, "/boot/big").unwrap_err().status, 130);
}

#[test]
fn a_disk_without_a_back_is_mounted_changed_and_whole() {
    let (play, mut disks) = scene(&image("from", "ext4"));
    let info = blkif::Info::empty();
    let (plate, which) = Plate::add(&play, &mut disks, ("ram0", info), image("to", "ext3"));
    play.run(&mut disks, filing::mount, "xvda /").unwrap();
    assert_eq!(disks.mounts_on(which).count(), 0);
    let mounted = play.run(&mut disks, filing::mount, "rw /dev/ram0 /r").unwrap();
    assert_eq!(mounted, "ram0 on /r type ext3 (rw)");
    assert_eq!(disks.mounts_on(which).map(|mount| &*mount.folder).collect::<Vec<_>>(), ["/r"]);
    play.run(&mut disks, filing::cp, "/boot/big /r/copy").unwrap();
    assert_eq!(super::read(&play, &mut disks, "/r/copy", 300_001).unwrap(), big());
    plate.held(|held| assert!(held.flushes > 0));
    plate.held(|held| assert_clean("ram", &held.bytes));
    play.run(&mut disks, filing::umount, "/r").unwrap();
    assert_eq!(disks.mounts_on(which).count(), 0);
    play.assert_clean(disks);
}
